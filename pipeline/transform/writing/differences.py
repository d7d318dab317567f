"""Decide whether a value to be written differs from the last snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.errors import Rejected
from pipeline.transform.reading.composed import read_amount
from pipeline.transform.reading.options import read_ids
from pipeline.transform.reading.simple import read_boolean, read_id, read_number
from pipeline.transform.writing.simple import write_day, write_day_or_time, write_time


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
