"""Decide which value wins when Hull and Pipedrive differ: compare both with the values on which they last agreed.

    only Hull's changed       it is written
    only Pipedrive's changed  it stays if an incoming mapping sends it to Hull; otherwise Hull's is written again
    both changed              the field's owner decides
    neither changed           they differ in spelling only: Pipedrive normalized what was written

Hull's value is compared with Hull's earlier value, and Pipedrive's with Pipedrive's earlier value, never with each
other. So a report that is older than the last delivery to Hull undoes nothing.

Echoes: Hull reports every delivered shared attribute some time later. By then Pipedrive may have another value, and the
report looks like an edit. So a delivered value is an echo until Hull has reported another one: a later delivery, or an
edit in Hull. Clocks are compared only if the times are more than a minute apart.

Answers: Hull has the values of its own report already, or a newer edit. Pipedrive's answer to a write therefore contains
nothing new for Hull, and might undo that edit. Hull needs the answer only if it received another value in between.

Overwritten edits: we may send Hull another value while the report of an edit is in flight. The coalesced messages
contain both values, and the edit counts as if it had arrived alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.domain.records import RULES, Agreement, Delivered, FieldProblem, Memory, OutgoingWrite, Reported
from pipeline.domain.settings import Owner
from pipeline.errors import Rejected
from pipeline.transform.hull_reports import ABSENT, attribute_name, find_attribute, reported_at, reported_values
from pipeline.transform.reading import read_amount, read_boolean, read_id, read_ids, read_number
from pipeline.transform.targets import Target, digest_reported, digest_value
from pipeline.transform.writing import write_day, write_day_or_time, write_time

ROUND_S: Final = 600
"""Values that come back within this number of seconds are an update loop, not a changed decision."""
ROUNDS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictResolution:
    """What becomes of each field that differs.

    write  what is written
    left   fields that keep Pipedrive's value, with the reason; fields that differ in spelling only are not listed
    loops  keys of fields in an update loop; they are not written either
    """

    write: OutgoingWrite
    left: tuple[FieldProblem, ...]
    loops: tuple[str, ...]


def resolve_conflicts(
    write: OutgoingWrite,
    memory: Memory,
    owners: Mapping[str, Owner],
    *,
    hull_is_newer: bool,
    now_s: int,
    echoes: Collection[str] = (),
) -> ConflictResolution:
    """Decide field by field.

    owners         key of a field that is mapped in both directions → owner if both sides changed it
    hull_is_newer  whether Hull's report is newer than Pipedrive's record, for the owner `latest`
    echoes         keys of fields with a reported value that we delivered
    """
    left: dict[str, FieldProblem | None] = {}
    for key in write.kinds:
        sides = write.sides.get(key)
        if sides is not None:
            changed = _changed(sides, memory.agreed.get(key), is_echo=key in echoes)
            why = _why_left(*changed, owners.get(key), hull_is_newer=hull_is_newer)
            if why == _SPELLING and memory.rules < RULES and write.kinds[key] in CORRECTED:
                continue  # a faulty rule wrote it, and it was not changed since
            if why is not None:
                left[key] = FieldProblem(field=key, reason=why, detail=_DETAILS[why]) if why in _DETAILS else None
    remaining = write.without(set(left))
    loops = tuple(key for key in remaining.kinds if _is_in_loop(key, write.sides, memory.recent, now_s))
    return ConflictResolution(
        write=remaining.without(set(loops)),
        left=tuple(problem for problem in left.values() if problem is not None),
        loops=loops,
    )


_SPELLING: Final = "spelling"
CORRECTED: Final = frozenset({"date", "daterange", "enum", "set", "labels"})
"""Kinds of fields with a conversion that changed when RULES was raised."""
_DETAILS: Final = {
    "changed_in_pipedrive": "changed in Pipedrive, not in Hull",
    "owned_by_pipedrive": "changed on both sides; Pipedrive's value wins",
}


def _changed(sides: Agreement, agreed: Agreement | None, *, is_echo: bool) -> tuple[bool, bool]:
    """Return whether Hull and whether Pipedrive have changed a field since they agreed on it."""
    hull, pipedrive = (True, True) if agreed is None else (sides[0] != agreed[0], sides[1] != agreed[1])
    return hull and not is_echo, pipedrive


def _why_left(hull_changed: bool, pipedrive_changed: bool, owner: Owner | None, *, hull_is_newer: bool) -> str | None:
    """Return why a field that differs is not written; None if it is written."""
    if not hull_changed and not pipedrive_changed:
        return _SPELLING
    if owner is None or not pipedrive_changed:
        return None
    if not hull_changed:
        return "changed_in_pipedrive"
    return None if owner == "hull" or (owner == "latest" and hull_is_newer) else "owned_by_pipedrive"


def _is_in_loop(key: str, sides: Mapping[str, Agreement], recent: Sequence[tuple[str, str, int]], now_s: int) -> bool:
    """Return whether the same value was written and overwritten by either side ROUNDS times within ROUND_S."""
    if key not in sides:
        return False
    written = [value for name, value, at in recent if name == key and now_s - at < ROUND_S]
    return written.count(sides[key][0]) >= ROUNDS


def is_update_loop(memory: Memory, now_s: int) -> bool:
    """Return whether any field has a value that was written too often recently to write it once more."""
    written = Counter((key, value) for key, value, at in memory.recent if now_s - at < ROUND_S)
    return any(times >= ROUNDS for times in written.values())


def remember(write: OutgoingWrite, memory: Memory, answer: Mapping[str, Any], now_s: int) -> Memory:
    """Return what to store after Pipedrive's answer to a write, or if there was nothing to write.

    memory  including this report: `reported` and `reported_at`
    answer  the record as Pipedrive has it now
    """
    agreed = {
        key: sides for key, sides in memory.agreed.items() if key in write.sides
    }  # fields that were left keep theirs
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
    """Return keys of fields with another value in Pipedrive than the written one."""
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


def find_reported(
    targets: Iterable[Target],
    message: Mapping[str, Any],
    report: Mapping[str, Any],
    memory: Memory,
    deliveries: Sequence[Delivered],
) -> dict[str, Reported]:
    """Return field key → the last of our values that Hull has reported; the field is an echo if no other value followed."""
    values_of = _reported_by_name(message)
    found: dict[str, Reported] = {}
    for target in targets:
        if target.attribute is None or target.parts:
            continue
        key, name = target.source.key, attribute_name(target.attribute)
        ours = [(each.at, digest_value(each.values[name])) for each in deliveries if name in each.values]
        since = memory.reported_at or 0
        reported = memory.reported.get(key, (0.0, False))
        values = [(digest_value(value), at) for value, at in values_of.get(name, ()) if at >= since]
        for digest, at in [*values, (digest_reported(target, report), reported_at(report))]:
            reported = _report_one(reported, digest, _not_overwritten(ours, at))
        if reported != (0.0, False):
            found[key] = reported
    return found


def _reported_by_name(message: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {attribute_name(name): values for name, values in reported_values(message).items()}


def _not_overwritten(ours: Sequence[tuple[float, str]], reported_ms: int | None) -> Sequence[tuple[float, str]]:
    """Leave out deliveries that a later one replaced so long before this report that they cannot be in it."""
    if reported_ms is None:
        return ours
    done = sum(at <= reported_ms / 1000 - LATE_S for at, _ in ours)
    return ours[max(0, done - 1) :]


def _report_one(reported: Reported, digest: str, ours: Sequence[tuple[float, str]]) -> Reported:
    """Take one more reported value into account: the last of our deliveries that it may be, or none of them."""
    since, is_last = reported
    matching = [at for at, each in ours if each == digest and (at > since or (at == since and is_last))]
    return (matching[-1], True) if matching else (since, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A value that an attribute had before we delivered another one, and when Hull reported it, in milliseconds."""

    attribute: str
    value: Any
    at: int


def find_overwritten_edits(
    targets: Iterable[Target], message: Mapping[str, Any], deliveries: Sequence[Delivered], memory: Memory
) -> dict[str, Edit]:
    """Return field key → the last value that Hull's users or other sources set before our delivery."""
    found: dict[str, Edit] = {}
    values_of = _reported_by_name(message)
    for target in targets:
        name = attribute_name(target.attribute or "")
        ours = {digest_value(each.values[name]) for each in deliveries if name in each.values}
        agreed = memory.agreed.get(target.source.key, ("", ""))[0]
        for value, at in values_of.get(name, ()):
            if digest_value(value) not in {*ours, agreed} and at >= (memory.reported_at or 0):
                found[target.source.key] = Edit(attribute=name, value=value, at=at)
    return found


def values_held_by_hull(
    targets: Iterable[Target], report: Mapping[str, Any], deliveries: Sequence[Delivered], memory: Memory
) -> dict[str, Any]:
    """Return attribute → Hull's value, for attributes without a delivery that Hull has not reported yet."""
    held: dict[str, Any] = {}
    for target in targets:
        if target.attribute is not None and not target.parts:
            name, (since, _) = attribute_name(target.attribute), memory.reported.get(target.source.key, (0.0, False))
            if not any(name in each.values and each.at > since for each in deliveries):
                value = find_attribute(report, name)
                held[name] = None if value is ABSENT else value
    return held


def is_stale(report: Mapping[str, Any], memory: Memory) -> bool:
    """Return whether a newer report of the record was processed already."""
    moment = reported_at(report)
    return moment is not None and memory.reported_at is not None and moment < memory.reported_at


def with_report(memory: Memory, report: Mapping[str, Any], reported: Mapping[str, Reported]) -> Memory:
    """Return the memory of a record after this report: which deliveries Hull has reported, and the report's time."""
    newest = max((each for each in (reported_at(report), memory.reported_at) if each is not None), default=None)
    return replace(memory, reported={**memory.reported, **reported}, reported_at=newest)


def differs(kind: str, wanted: Any, current: Any) -> bool:
    """Return whether a value for the body of a write differs from the same field's value in the snapshot.

    Different spellings are equal: 5 and 5.0, `{id, label}` and the id, spaces around a text, the order of a set. Of an
    address only the parts to be written are compared. A time zone is compared only if it is written with the time.
    """
    if kind == "address" and type(wanted) is dict:
        before = current if type(current) is dict else {"value": current}
        return any(_text(text) != _text(before.get(part)) for part, text in wanted.items())
    if kind in ("time", "timerange") and type(wanted) is dict and "timezone_id" not in wanted and type(current) is dict:
        current = {part: value for part, value in current.items() if part != "timezone_id"}
    return bool(normal(kind, wanted) != normal(kind, current))


def digest_of(kind: str, value: Any) -> str:
    """Return a digest that is the same for equal values of a field, in every process."""
    form = normal(kind, value)
    text = repr(sorted(form) if isinstance(form, frozenset) else form)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def is_empty(kind: str, current: Any) -> bool:
    return normal(kind, current) is None


def normal(kind: str, value: Any) -> Any:
    """Return a form of the value that is the same for equal values; None for every kind of empty value."""
    if value is None or value in ("", [], {}):
        return None
    try:
        return _NORMAL.get(kind, _plain)(value)
    except Rejected:
        return "unreadable", repr(value)


def _text(value: Any) -> Any:
    return value.strip() or None if type(value) is str else value


def _plain(value: Any) -> Any:
    """Return a text without surrounding spaces, a number as text, a list as a set, an object by its id."""
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
"""Kind of field → the form of its values that is compared; texts are compared without surrounding spaces."""
