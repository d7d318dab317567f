"""Decide which value wins when Hull and Pipedrive differ: compare both with the values on which they last agreed.

    only Hull's changed       it is written
    only Pipedrive's changed  it stays, if an incoming mapping sends it to Hull; else Hull's is written again
    both changed              the field's owner decides
    neither changed           they differ in spelling only: Pipedrive normalized what was written

Hull's value is compared with Hull's earlier value, and Pipedrive's with Pipedrive's earlier value, never with each
other, so a report that is older than the last delivery to Hull undoes nothing.

Echoes: Hull reports every delivered shared attribute some time later. By then Pipedrive may have another value, and the
report looks like an edit. So a delivered value is an echo until Hull has reported another one: a later delivery, or one
of its own. Clocks count only if they are a minute apart. Hull already has the values of its own report, or a newer edit:
Pipedrive's answer to a write contains nothing new for it, and might undo that edit. Hull needs it only if Hull received
another value in between. We may have sent Hull another value over an edit while its report was in flight. The coalesced
messages contain both, and the edit counts as if it had arrived alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.domain.incoming import FieldProblem
from pipeline.domain.outgoing import RULES, Agreement, Delivered, Heard, Memory, OutgoingWrite
from pipeline.domain.settings import Owner
from pipeline.errors import Rejected
from pipeline.transform.hull_reports import ABSENT, attribute_name, find_attribute, reported_at, values_said
from pipeline.transform.reading import read_amount, read_boolean, read_id, read_ids, read_number
from pipeline.transform.targets import Target, digest_said, digest_value
from pipeline.transform.writing import write_day, write_day_or_time, write_time

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


LATE_S: Final = 60
"""Maximum difference between our clock and Hull's, and between our delivery and Hull's processing."""


def hear(
    targets: Iterable[Target],
    message: Mapping[str, Any],
    report: Mapping[str, Any],
    memory: Memory,
    told: Sequence[Delivered],
) -> dict[str, Heard]:
    """Return field key → the delivered value that the message repeats; the field is an echo if that is its last value there."""
    said = {attribute_name(name): values for name, values in values_said(message).items()}
    found: dict[str, Heard] = {}
    for target in targets:
        if target.attribute is None or target.parts:
            continue
        key, name = target.source.key, attribute_name(target.attribute)
        words = [(each.at, digest_value(each.values[name])) for each in told if name in each.values]
        since = memory.reported_at or 0
        heard = memory.heard.get(key, (0.0, False))
        values = [(digest_value(value), at) for value, at in said.get(name, ()) if at >= since]
        for digest, at in [*values, (digest_said(target, report), reported_at(report))]:
            heard = _hear_one(heard, digest, _not_over(words, at))
        if heard != (0.0, False):
            found[key] = heard
    return found


def _not_over(words: Sequence[tuple[float, str]], reported_ms: int | None) -> Sequence[tuple[float, str]]:
    """Leave out deliveries after which Hull received another one so long before this report that they cannot be in it."""
    if reported_ms is None:
        return words
    done = sum(at <= reported_ms / 1000 - LATE_S for at, _ in words)
    return words[max(0, done - 1) :]


def _hear_one(heard: Heard, digest: str, words: Sequence[tuple[float, str]]) -> Heard:
    """Hull has reported one more value: the last of our words that it may be, or none of them."""
    since, is_last = heard
    awaited = [at for at, word in words if word == digest and (at > since or (at == since and is_last))]
    return (awaited[-1], True) if awaited else (since, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A value that an attribute had before we delivered another one, and when Hull reported it, in milliseconds."""

    attribute: str
    value: Any
    at: int


def edits_told_over(
    targets: Iterable[Target], message: Mapping[str, Any], told: Sequence[Delivered], memory: Memory
) -> dict[str, Edit]:
    """Return field key → the last value that Hull's users or other sources set before our delivery."""
    found: dict[str, Edit] = {}
    said = {attribute_name(name): values for name, values in values_said(message).items()}
    for target in targets:
        name = attribute_name(target.attribute or "")
        ours = {digest_value(each.values[name]) for each in told if name in each.values}
        agreed = memory.agreed.get(target.source.key, ("", ""))[0]
        for value, at in said.get(name, ()):
            if digest_value(value) not in {*ours, agreed} and at >= (memory.reported_at or 0):
                found[target.source.key] = Edit(attribute=name, value=value, at=at)
    return found


def held_by_hull(
    targets: Iterable[Target], report: Mapping[str, Any], told: Sequence[Delivered], memory: Memory
) -> dict[str, Any]:
    """Return attribute → Hull's value, for attributes without a delivery that Hull has not reported again."""
    held: dict[str, Any] = {}
    for target in targets:
        if target.attribute is not None and not target.parts:
            name, (since, _) = attribute_name(target.attribute), memory.heard.get(target.source.key, (0.0, False))
            if not any(name in each.values and each.at > since for each in told):
                value = find_attribute(report, name)
                held[name] = None if value is ABSENT else value
    return held


def is_overtaken(report: Mapping[str, Any], memory: Memory) -> bool:
    """Whether a newer report of the record has been considered already."""
    moment = reported_at(report)
    return moment is not None and memory.reported_at is not None and moment < memory.reported_at


def with_report(memory: Memory, report: Mapping[str, Any], heard: Mapping[str, Heard]) -> Memory:
    """Return the memory of a record after this report: which deliveries Hull has reported, and how new the report is."""
    newest = max((each for each in (reported_at(report), memory.reported_at) if each is not None), default=None)
    return replace(memory, heard={**memory.heard, **heard}, reported_at=newest)


def differs(kind: str, wanted: Any, current: Any) -> bool:
    """Compare a value for the body of a write with the same field's value in the snapshot.

    Spellings do not count: 5 and 5.0, `{id, label}` and the id, spaces around a text, the order of a set. Of an address
    only what is about to be written counts, and no zone that is not written with its time.
    """
    if kind == "address" and type(wanted) is dict:
        before = current if type(current) is dict else {"value": current}
        return any(_text(text) != _text(before.get(part)) for part, text in wanted.items())
    if kind in ("time", "timerange") and type(wanted) is dict and "timezone_id" not in wanted and type(current) is dict:
        current = {part: value for part, value in current.items() if part != "timezone_id"}
    return bool(normal(kind, wanted) != normal(kind, current))


def digest_of(kind: str, value: Any) -> str:
    """Hash a value of a field, so that equal values have equal digests, in every process."""
    form = normal(kind, value)
    text = repr(sorted(form) if isinstance(form, frozenset) else form)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def is_empty(kind: str, current: Any) -> bool:
    return normal(kind, current) is None


def normal(kind: str, value: Any) -> Any:
    """Give a value a form in which equal values are equal; None for every kind of emptiness."""
    if value is None or value in ("", [], {}):
        return None
    try:
        return _NORMAL.get(kind, _plain)(value)
    except Rejected:
        return "unreadable", repr(value)


def _text(value: Any) -> Any:
    return value.strip() or None if type(value) is str else value


def _plain(value: Any) -> Any:
    """A text without the spaces around it, a number as text; of an unknown type a list in no order, an object by its id."""
    if type(value) is list:
        return frozenset(str(_plain(each)) for each in value) or None
    if type(value) is dict:
        return _plain(value["id"]) if "id" in value else repr(sorted(value.items()))
    if type(value) is float and value.is_integer():
        return str(int(value))
    return str(value) if type(value) in (int, float) else _text(value)


def _id(value: Any) -> Any:
    found = read_id(value)
    return None if found is None else str(found)


def _ids(value: Any) -> Any:
    return frozenset(map(str, read_ids(value) or ())) or None


def _money(value: Any) -> Any:
    amount = read_amount(value)
    return None if amount is None else (amount, value.get("currency") if type(value) is dict else None)


def _range(value: Any) -> Any:
    start, until = _of(value, "value"), _of(value, "until")
    if not start and not until:
        return None
    return *(write_day_or_time(end) if end else None for end in (start, until)), _of(value, "timezone_id")


def _clock_time(value: Any) -> Any:
    start = _of(value, "value")
    return (write_time(start), _of(value, "timezone_id")) if start else None


def _of(value: Any, part: str) -> Any:
    return value.get(part) if type(value) is dict else (value if part == "value" else None)


def _address(value: Any) -> Any:
    parts = value if type(value) is dict else {"value": value}
    return tuple(sorted((part, text) for part, raw in parts.items() if (text := _text(raw)) is not None)) or None


def _members(value: Any) -> Any:
    members = value if type(value) is list else [{"value": value, "primary": True}]
    pairs = [
        (_text(member.get("value")), member.get("primary") is True) if type(member) is dict else (_text(member), False)
        for member in members
    ]
    return tuple(pair for pair in pairs if pair[0] is not None) or None


_NORMAL: Final[Mapping[str, Callable[[Any], Any]]] = {
    "int": read_number,
    "double": read_number,
    "boolean": read_boolean,
    "visible_to": read_number,
    "date": write_day,
    "enum": _id,
    "user": _id,
    "people": _id,
    "org": _id,
    "set": _ids,
    "labels": _ids,
    "monetary": _money,
    "daterange": _range,
    "timerange": _range,
    "time": _clock_time,
    "address": _address,
    "emails": _members,
    "phones": _members,
}
"""Kind of field → the form in which its values are compared; texts are compared without the spaces around them."""
