"""Combine two messages about one record, so that many notifications become one change without losing data.

The newest report counts, with its segments. Of `changes` the union counts: the oldest old value and the newest new one;
a value that was set back has not changed, and a segment that was entered and left has not changed either. What requires
sending the record, an export or a link to an Account, stays required.

Every intermediate value of an attribute is kept, with the time of its report: it may be an edit, and its
replacement our own delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.times import epoch_milliseconds
from pipeline.transform.hull_reports import find_attribute, reported_at
from pipeline.transform.outgoing_filter import ids_in

_WRITTEN_AT: Final = ("indexed_at", "updated_at")
"""Attributes of a report with its time, the better one first."""
SAID: Final = "values_said"
"""Key in a combined message for all values that an attribute changed to. Never sent by Hull itself."""
_KEPT_VALUES: Final = 5
"""How many values of one attribute are kept."""
_OF_ACCOUNT: Final = ("account", "account_segments", "account_segment_ids")
_LINK: Final = "id"
"""Key under `changes.account`: the User was linked to an Account, whatever followed."""


def fold_messages(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Make one message of two about the same record, given in the order in which they were received."""
    older, newer = _by_age(earlier, later)
    inherited = () if "account" in newer else [name for name in _OF_ACCOUNT if name in older]
    folded = {name: older[name] for name in inherited} | newer
    folded["is_export"] = older.get("is_export") is True or newer.get("is_export") is True
    if "changes" in older or "changes" in newer:
        folded["changes"] = _fold_changes(_object(older.get("changes")), _object(newer.get("changes")))
        before, after = values_said(older), values_said(newer)
        folded[SAID] = {
            name: [*before.get(name, ()), *after.get(name, ())][-_KEPT_VALUES:] for name in {**before, **after}
        }
    return folded


def values_said(message: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Attribute → [value, when it was reported] of the values it changed to in all combined messages, oldest first."""
    if SAID in message:
        return _object(message[SAID])
    at = reported_at(_report(message))
    pairs = {} if at is None else _own_changes(message)
    return {name: [[pair[1], at]] for name, pair in pairs.items() if isinstance(pair, list) and len(pair) == 2}


def _own_changes(message: Mapping[str, Any]) -> dict[str, Any]:
    """What changed of the User of a message, or of its Account where it is about no User."""
    kind = "user" if isinstance(message.get("user"), dict) else "account"
    return _object(_object(message.get("changes")).get(kind))


def _by_age(earlier: dict[str, Any], later: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put the one with the older report first; without times, the one that was received first."""
    first, second = _report(earlier), _report(later)
    for name in _WRITTEN_AT:
        one, other = (epoch_milliseconds(find_attribute(report, name)) for report in (first, second))
        if one is not None and other is not None:
            return (earlier, later) if one <= other else (later, earlier)
    return earlier, later


def _report(message: Mapping[str, Any]) -> Mapping[str, Any]:
    user = message.get("user")
    return user if isinstance(user, dict) else _object(message.get("account"))


def _fold_changes(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    folded = {**older, **newer}
    if "is_new" in folded:
        folded["is_new"] = older.get("is_new") is True or newer.get("is_new") is True
    for name, keep in (("user", None), ("account", _LINK)):
        if name in folded:
            folded[name] = _fold_attributes(_object(older.get(name)), _object(newer.get(name)), keep)
    for name in ("segments", "account_segments"):
        if name in folded:
            folded[name] = _fold_moves(_object(older.get(name)), _object(newer.get(name)))
    return folded


def _fold_attributes(older: dict[str, Any], newer: dict[str, Any], keep: str | None) -> dict[str, Any]:
    """Combine [old value, new value] by attribute; one that was set back is dropped, unless it is the one to `keep`."""
    folded = {}
    for name in {**older, **newer}:
        said = [changed[name] for changed in (older, newer) if name in changed]
        pairs = [each for each in said if isinstance(each, list) and len(each) == 2]
        if len(pairs) < 2:
            folded[name] = (pairs or said)[-1]
        elif name == keep or not _same(pairs[0][0], pairs[1][1]):
            folded[name] = [pairs[0][0], pairs[1][1]]
    return folded


def _fold_moves(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, list[Any]]:
    """Net what was entered and left, segment by segment."""
    before, after = _moves(older), _moves(newer)
    net = {
        segment_id: after.get(segment_id, before.get(segment_id))
        for segment_id in {**before, **after}
        if segment_id not in before or segment_id not in after or before[segment_id][0] == after[segment_id][0]
    }
    return {way: [move[1] for move in net.values() if move and move[0] == way] for way in ("entered", "left")}


def _moves(moves: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Segment id → which way the record went and the segment as given."""
    found: dict[str, tuple[str, Any]] = {}
    for way in ("left", "entered"):
        listed = moves.get(way)
        for segment in listed if isinstance(listed, list) else ():
            found.update(dict.fromkeys(ids_in([segment]), (way, segment)))
    return found


def _same(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except RecursionError:  # nested too deeply to be compared: taken for a change
        return False


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
