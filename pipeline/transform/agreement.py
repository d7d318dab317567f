"""Decide which value wins when Hull and Pipedrive differ: compare both with the values on which they last agreed.

    only Hull's changed       it is written
    only Pipedrive's changed  it stays, if an incoming mapping sends it to Hull; else Hull's is written again
    both changed              the field's owner decides
    neither changed           they differ in spelling only: Pipedrive normalized what was written

Hull's value is compared with Hull's earlier value, and Pipedrive's with Pipedrive's earlier value, never with each
other, so a report that is older than the last delivery to Hull undoes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.domain.incoming import FieldProblem
from pipeline.domain.outgoing import RULES, Agreement, Memory, OutgoingWrite
from pipeline.domain.settings import Owner
from pipeline.transform.writing.differences import differs, digest_of

ROUND_S: Final = 600
"""Values that come back within this number of seconds are an update loop, not a changed decision."""
ROUNDS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """write   what is left to be written
    left    fields that stay as in Pipedrive, with the reason; those that differ in spelling only are not listed
    fights  keys of fields in an update loop; they are not written either
    """

    write: OutgoingWrite
    left: tuple[FieldProblem, ...]
    fights: tuple[str, ...]


def settle(
    write: OutgoingWrite,
    memory: Memory,
    owners: Mapping[str, Owner],
    *,
    hull_is_newer: bool,
    now_s: int,
    echoes: Collection[str] = (),
) -> Settled:
    """Decide field by field.

    owners         key of a field that is mapped in both directions → owner if both sides changed it
    hull_is_newer  whether Hull's report is newer than Pipedrive's record, for the owner `latest`
    echoes         keys of fields with Hull's own value as delivered
    """
    left: dict[str, FieldProblem | None] = {}
    for key in write.kinds:
        sides = write.sides.get(key)
        if sides is not None:
            changed = _changed(sides, memory.agreed.get(key), is_echo=key in echoes)
            why = _why_left(*changed, owners.get(key), hull_is_newer=hull_is_newer)
            if why == _SPELLING and memory.rules < RULES and write.kinds[key] in CORRECTED:
                continue  # it was written by a faulty rule, and was not changed since
            if why is not None:
                left[key] = FieldProblem(field=key, reason=why, detail=_DETAILS[why]) if why in _DETAILS else None
    remaining = write.without(set(left))
    fights = tuple(key for key in remaining.kinds if _fights(key, write.sides, memory.recent, now_s))
    return Settled(
        write=remaining.without(set(fights)),
        left=tuple(problem for problem in left.values() if problem is not None),
        fights=fights,
    )


_SPELLING: Final = "spelling"
CORRECTED: Final = frozenset({"date", "daterange", "enum", "set", "labels"})
"""Kinds of fields with a conversion that changed when RULES was raised."""
_DETAILS: Final = {
    "changed_in_pipedrive": "changed in Pipedrive, not in Hull",
    "owned_by_pipedrive": "changed on both sides; Pipedrive has the last word",
}


def _changed(sides: Agreement, agreed: Agreement | None, *, is_echo: bool) -> tuple[bool, bool]:
    """Whether Hull and Pipedrive have changed a field since they agreed on it."""
    hull, pipedrive = (True, True) if agreed is None else (sides[0] != agreed[0], sides[1] != agreed[1])
    return hull and not is_echo, pipedrive


def _why_left(hull_changed: bool, pipedrive_changed: bool, owner: Owner | None, *, hull_is_newer: bool) -> str | None:
    """Why a field that differs is not written; None when it is."""
    if not hull_changed and not pipedrive_changed:
        return _SPELLING
    if owner is None or not pipedrive_changed:
        return None
    if not hull_changed:
        return "changed_in_pipedrive"
    return None if owner == "hull" or (owner == "latest" and hull_is_newer) else "owned_by_pipedrive"


def _fights(key: str, sides: Mapping[str, Agreement], recent: Sequence[tuple[str, str, int]], now_s: int) -> bool:
    """Whether this very value was written before, and another put over it by either side, ROUNDS times in a short while."""
    if key not in sides:
        return False
    said = [value for name, value, at in recent if name == key and now_s - at < ROUND_S]
    return said.count(sides[key][0]) >= ROUNDS


def is_quarrel(memory: Memory, now_s: int) -> bool:
    """Whether a value of any field was written so often lately that it is not to be written once more."""
    said = Counter((key, value) for key, value, at in memory.recent if now_s - at < ROUND_S)
    return any(times >= ROUNDS for times in said.values())


def remember(write: OutgoingWrite, memory: Memory, answer: Mapping[str, Any], now_s: int) -> Memory:
    """Return what to store after Pipedrive's answer to a write, or if there was nothing to write.

    memory  with the report's own data: `heard` and `reported_at`
    answer  the record as Pipedrive has it now
    """
    agreed = {key: sides for key, sides in memory.agreed.items() if key in write.sides}  # what was left keeps its own
    agreed |= {key: write.sides[key] for key in write.same}
    for key, kind in write.kinds.items():
        if key in write.sides:
            agreed[key] = (write.sides[key][0], digest_of(kind, value_of(answer, key)))
    fresh = [each for each in memory.recent if now_s - each[2] < ROUND_S]
    fresh += [(key, write.sides[key][0], now_s) for key in write.kinds if key in write.sides]
    return replace(
        memory, agreed=agreed, present=tuple(sorted(write.present)), recent=tuple(fresh[-_KEPT:]), rules=RULES
    )


_KEPT: Final = 60


def unlike(write: OutgoingWrite, answer: Mapping[str, Any]) -> list[str]:
    """Return keys of fields in which Pipedrive has another value than the written one."""
    flat = {**write.fields, **write.fields.get("custom_fields", {})}
    names = {"first_name", "last_name"} & flat.keys()
    return [
        key for key, kind in write.kinds.items() if key not in names and differs(kind, flat[key], value_of(answer, key))
    ]


def value_of(record: Mapping[str, Any], key: str) -> Any:
    """Return the value of a field by its key, which distinguishes custom fields by its form."""
    custom = record.get("custom_fields")
    return custom[key] if isinstance(custom, dict) and key in custom else record.get(key)
