"""Read the messages of Hull: reports of a User or an Account, what changed, their segments; and combine messages.

A report is one flat object, for a User with its Account below `account`.

Two messages about one record are combined, so that many notifications become one change without losing data. The newest
report counts, with its segments. Of `changes` the union counts: the oldest old value and the newest new one; a value that
was set back has not changed, and a segment that was entered and left has not changed either. What requires sending the
record, an export or a link to an Account, stays required. Every intermediate value of an attribute is kept, with the time
of its report: it may be an edit, and its replacement our own delivery.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.kinds import Entity, parse_record_id
from pipeline.domain.times import epoch_milliseconds
from pipeline.errors import Rejected

ABSENT: Final = object()
"""Marks an attribute that is missing in the report, which differs from None."""


ID_ATTRIBUTE: Final = "pipedrive/id"


def attribute_name(hull: str) -> str:
    """Return the name under which Hull stores an attribute: its lists prefix it with `traits_`, its records need not."""
    return hull.removeprefix("traits_") or hull


def find_attribute(report: Mapping[str, Any], path: str) -> Any:
    """Find the value of an attribute, `name` or `account.name`; ABSENT when the report does not have it."""
    if path.startswith("account."):
        account = report.get("account")
        return find_attribute(account, path.removeprefix("account.")) if isinstance(account, dict) else ABSENT
    name = attribute_name(path)
    return report.get(name, report.get(f"traits_{name}", ABSENT))


def is_blank(value: Any) -> bool:
    """Return whether an attribute has no value: missing, None, an empty list, or only spaces."""
    return value is ABSENT or value is None or value == [] or (isinstance(value, str) and not value.strip())


_PREFIX: Final = "pipedrive:"


def hull_id_of(report: Mapping[str, Any]) -> str:
    """Return the id Hull gave the record.

    Raises: Rejected("no_hull_id").
    """
    hull_id = report.get("id")
    if not isinstance(hull_id, str) or not hull_id.strip() or len(hull_id) > 255 or not hull_id.isprintable():
        raise Rejected("no_hull_id", "the report carries no id")
    return hull_id


def pipedrive_ids_of(report: Mapping[str, Any]) -> tuple[int, ...]:
    """Return every Pipedrive id in the report, the attribute `pipedrive/id` first.

    More than one means that Hull merged records which are still two in Pipedrive.
    """
    first = parse_record_id(find_attribute(report, "pipedrive/id"))
    return tuple(dict.fromkeys([*(() if first is None else (first,)), *anonymous_pipedrive_ids(report)]))


def anonymous_pipedrive_ids(report: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the Pipedrive ids among the report's anonymous ids: each belongs to one User or Account of Hull alone."""
    names = report.get("anonymous_ids")
    ours = [
        name.removeprefix(_PREFIX)
        for name in [*(names if isinstance(names, list) else ()), report.get("anonymous_id")]
        if isinstance(name, str) and name.startswith(_PREFIX)
    ]
    return tuple(dict.fromkeys(number for number in map(parse_record_id, ours) if number is not None))


def pipedrive_id_of(report: Mapping[str, Any]) -> int | None:
    """Return the id of the record's counterpart in Pipedrive, or None if Hull does not know it."""
    return next(iter(pipedrive_ids_of(report)), None)


def reported_at(report: Mapping[str, Any]) -> int | None:
    """Return when Hull last wrote the report, by its clock, in milliseconds since the epoch; None if it is missing."""
    moments = (epoch_milliseconds(report.get(name)) for name in ("indexed_at", "updated_at"))
    return next((moment for moment in moments if moment is not None), None)


_ITEM: Final = re.compile(r"\[\d+\]$")
_OF_ACCOUNT: Final = "account."


def changed_attributes(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Return the attributes that changed, as a mapping names them: those of a User's Account begin with `account.`."""
    own = {plain_name(name) for name in _changed(message, entity.hull)}
    if entity is Entity.ORGANIZATION:
        return own
    return own | {plain_name(_OF_ACCOUNT + name) for name in _changed(message, "account")}


def values_before(message: Mapping[str, Any], entity: Entity, name: str) -> list[Any]:
    """Return the earlier values of a changed attribute, as far as the changes have them."""
    pairs = [pair for changed, pair in _changed(message, entity.hull).items() if attribute_name(changed) == name]
    return [pair[0] for pair in pairs if isinstance(pair, list) and len(pair) == 2]


def plain_name(name: str) -> str:
    """Return the attribute that a name means: without `traits_`, and for an item of a list the list."""
    whole = _ITEM.sub("", name)
    if whole.startswith(_OF_ACCOUNT):
        return _OF_ACCOUNT + attribute_name(whole.removeprefix(_OF_ACCOUNT))
    return attribute_name(whole)


def account_linked(message: Mapping[str, Any]) -> bool:
    """Return whether a User got another Account, or its Account got a counterpart in Pipedrive."""
    changed = _changed(message, "account")
    linked = changed.get("id")
    is_linked = isinstance(linked, list | dict | str) and bool(linked)
    return is_linked or "pipedrive/id" in {plain_name(name) for name in changed}


def segment_ids(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Return the record's segments in the message: their list, or if that is missing their ids."""
    name = segments_name(entity)
    listed = message.get(name)
    return ids_in(listed if isinstance(listed, list) else message.get(f"{name.removesuffix('s')}_ids"))


def entered_ids(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Return the segments that the record has just entered, by the message."""
    changes = message.get("changes")
    moves = changes.get(segments_name(entity)) if isinstance(changes, dict) else None
    return ids_in(moves.get("entered") if isinstance(moves, dict) else None)


def segments_name(entity: Entity) -> str:
    """Return the key of the record's own segments in a message and in its changes."""
    return "segments" if entity is Entity.PERSON else "account_segments"


def ids_in(segments: Any) -> set[str]:
    """Return the ids of segments, given as objects or as ids; other items are ignored."""
    if not isinstance(segments, list):
        return set()
    ids = (segment.get("id") if isinstance(segment, dict) else segment for segment in segments)
    return {each for each in ids if isinstance(each, str) and each}


def _changed(message: Mapping[str, Any], of: str) -> Mapping[str, Any]:
    changes = message.get("changes")
    changed = changes.get(of) if isinstance(changes, dict) else None
    return changed if isinstance(changed, dict) else {}


_WRITTEN_AT: Final = ("indexed_at", "updated_at")
"""Attributes of a report with its time, the better one first."""
REPORTED_VALUES: Final = "reported_values"
"""Key in a combined message for all values that an attribute changed to. Never sent by Hull itself."""
_KEPT_VALUES: Final = 5
"""How many values of one attribute are kept."""
_ACCOUNT_KEYS: Final = ("account", "account_segments", "account_segment_ids")
_LINK: Final = "id"
"""Key under `changes.account`: the User was linked to an Account, whatever followed."""


def combine_messages(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Return one message for two about the same record, in the order of their receipt."""
    older, newer = _by_age(earlier, later)
    kept = () if "account" in newer else [name for name in _ACCOUNT_KEYS if name in older]
    combined = {name: older[name] for name in kept} | newer
    combined["is_export"] = older.get("is_export") is True or newer.get("is_export") is True
    if "changes" in older or "changes" in newer:
        combined["changes"] = _coalesce_changes(_object(older.get("changes")), _object(newer.get("changes")))
        before, after = reported_values(older), reported_values(newer)
        combined[REPORTED_VALUES] = {
            name: [*before.get(name, ()), *after.get(name, ())][-_KEPT_VALUES:] for name in {**before, **after}
        }
    return combined


def _coalesce_changes(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    combined = {**older, **newer}
    if "is_new" in combined:
        combined["is_new"] = older.get("is_new") is True or newer.get("is_new") is True
    for name, keep in (("user", None), ("account", _LINK)):
        if name in combined:
            combined[name] = _coalesce_attributes(_object(older.get(name)), _object(newer.get(name)), keep)
    for name in ("segments", "account_segments"):
        if name in combined:
            combined[name] = _coalesce_moves(_object(older.get(name)), _object(newer.get(name)))
    return combined


def _coalesce_attributes(older: dict[str, Any], newer: dict[str, Any], keep: str | None) -> dict[str, Any]:
    """Combine [old value, new value] by attribute; one that was set back is dropped, unless it is the one to `keep`."""
    combined = {}
    for name in {**older, **newer}:
        changes = [changed[name] for changed in (older, newer) if name in changed]
        pairs = [each for each in changes if isinstance(each, list) and len(each) == 2]
        if len(pairs) < 2:
            combined[name] = (pairs or changes)[-1]
        elif name == keep or not _same(pairs[0][0], pairs[1][1]):
            combined[name] = [pairs[0][0], pairs[1][1]]
    return combined


def _coalesce_moves(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the net moves, segment by segment."""
    before, after = _moves(older), _moves(newer)
    net = {
        segment_id: after.get(segment_id, before.get(segment_id))
        for segment_id in {**before, **after}
        if segment_id not in before or segment_id not in after or before[segment_id][0] == after[segment_id][0]
    }
    return {way: [move[1] for move in net.values() if move and move[0] == way] for way in ("entered", "left")}


def _moves(moves: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Return segment id → (`entered` or `left`, the segment as given)."""
    found: dict[str, tuple[str, Any]] = {}
    for way in ("left", "entered"):
        listed = moves.get(way)
        for segment in listed if isinstance(listed, list) else ():
            found.update(dict.fromkeys(ids_in([segment]), (way, segment)))
    return found


def reported_values(message: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return attribute → [value, time of the report] of the values it changed to in all combined messages, oldest first."""
    if REPORTED_VALUES in message:
        return _object(message[REPORTED_VALUES])
    at = reported_at(_report(message))
    pairs = {} if at is None else _own_changes(message)
    return {name: [[pair[1], at]] for name, pair in pairs.items() if isinstance(pair, list) and len(pair) == 2}


def _own_changes(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changed of the message's User, or of its Account if it has no User."""
    kind = "user" if isinstance(message.get("user"), dict) else "account"
    return _object(_object(message.get("changes")).get(kind))


def _by_age(earlier: dict[str, Any], later: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the message with the older report first; without times, the one that was received first."""
    first, second = _report(earlier), _report(later)
    for name in _WRITTEN_AT:
        one, other = (epoch_milliseconds(find_attribute(report, name)) for report in (first, second))
        if one is not None and other is not None:
            return (earlier, later) if one <= other else (later, earlier)
    return earlier, later


def _report(message: Mapping[str, Any]) -> Mapping[str, Any]:
    user = message.get("user")
    return user if isinstance(user, dict) else _object(message.get("account"))


def _same(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except RecursionError:  # nested too deeply to compare: treat it as a change
        return False


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
