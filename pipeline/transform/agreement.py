"""Whose value counts when Hull and Pipedrive differ: both against that on which they agreed last.

    only Hull's changed       it is written
    only Pipedrive's changed  it stays, if it comes to Hull by a mapping of its own; else Hull's is written again
    both changed              the field's owner decides
    neither changed           they differ in spelling alone: Pipedrive made something of its own of what was written

What Hull says is compared with what Hull said, and what Pipedrive holds with what it held; the two never with one another, so a
report that is older than the last delivery to Hull undoes nothing.
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
"""Within so many seconds values that come back are a quarrel of two rules, not the change of a mind."""
ROUNDS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """write   what is left to be written
    left    fields that stay as Pipedrive has them, with the reason; those that differ in spelling alone are not named
    fights  keys of fields whose values go back and forth; they are not written either
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

    owners         key of a field that is mapped both ways → who has the last word when both sides changed it
    hull_is_newer  whether Hull's report is younger than Pipedrive's record, for the owner `latest`
    echoes         keys of fields of which Hull says but what it was told
    """
    left: dict[str, FieldProblem | None] = {}
    for key in write.kinds:
        sides = write.sides.get(key)
        if sides is not None:
            changed = _changed(sides, memory.agreed.get(key), is_echo=key in echoes)
            why = _why_left(*changed, owners.get(key), hull_is_newer=hull_is_newer)
            if why == _SPELLING and memory.rules < RULES and write.kinds[key] in CORRECTED:
                continue  # it was written by a rule that was wrong, and nobody has changed it since
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
"""Kinds of fields whose conversion is another since RULES was raised."""
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
    """What is to be remembered once Pipedrive has answered a write, or once there was nothing to write.

    memory  with what the report itself told: `heard` and `reported_at`
    answer  the record as Pipedrive holds it now
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
    """Keys of fields of which Pipedrive holds something else than what was written."""
    flat = {**write.fields, **write.fields.get("custom_fields", {})}
    names = {"first_name", "last_name"} & flat.keys()
    return [
        key for key, kind in write.kinds.items() if key not in names and differs(kind, flat[key], value_of(answer, key))
    ]


def value_of(record: Mapping[str, Any], key: str) -> Any:
    """The value of a field by its key, which tells custom fields from the others by its form."""
    custom = record.get("custom_fields")
    return custom[key] if isinstance(custom, dict) and key in custom else record.get(key)
