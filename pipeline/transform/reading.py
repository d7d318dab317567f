"""Read the value of a Pipedrive field as the value of a Hull attribute: one reader for each kind of field.

Shape:  value of API v2 (never None) → text, number, boolean, list of texts, or None if the field is empty in Pipedrive
Raises: Rejected(reason, detail) for a value that its field cannot have; the detail never repeats the value.
Source: https://pipedrive.readme.io/docs/core-api-concepts-custom-fields and the migration guide's "Custom Fields"
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import orjson

from pipeline.domain.fields import ADDRESS_PARTS, UNKNOWN, FieldSource
from pipeline.domain.texts import HULL_VALUE_BYTES, hull_text
from pipeline.domain.times import iso_day, iso_moment, iso_time
from pipeline.errors import Rejected

Reader = Callable[[Any], Any]
"""Value of a field, not None → value of an attribute."""


def reader_for(source: FieldSource, form: str) -> Reader:
    """Return how one field is read. `form` is that of the AttributeMapping: default, id or list."""
    if source.part is not None:
        return _PARTS[source.part] if source.part in _PARTS else partial(read_part, source.part)
    if source.type == "enum":
        return read_id if form == "id" else enum_reader(source.options)
    if source.type in ("set", "labels"):
        return read_ids if form == "id" else set_reader(source.options)
    if source.type in ("emails", "phones") and form == "list":
        return read_list
    if source.type not in READERS and source.options:
        return read_plain_ids if form == "id" else options_reader(source.options)
    return READERS.get(source.type, read_plain)


NOT_SENT: Final = object()
"""Returned for a part that the value does not contain: the attribute stays unchanged, like an absent field."""


def read_text(raw: Any) -> str | None:
    if type(raw) is str:
        # The common case first: short, plain, not empty.
        if raw.isascii() and 0 < len(raw) <= HULL_VALUE_BYTES and "\0" not in raw:
            return raw
        return hull_text(raw)
    raise wrong("text", raw)


def read_number(raw: Any) -> int | float | None:
    """Read a number; whole numbers become int, so that 5 and 5.0 are equal."""
    if type(raw) is str:
        return _number_of_text(raw)
    if type(raw) is int:
        if -(2**63) <= raw < 2**63:
            return raw
        raise Rejected("wrong_type", "a number of more than 64 bits")
    if type(raw) is float:
        if not math.isfinite(raw):
            raise Rejected("wrong_type", "not a finite number")
        return int(raw) if raw.is_integer() and abs(raw) < 2**53 else raw
    raise wrong("a number", raw)


def _number_of_text(raw: str) -> int | float | None:
    text = raw.strip()
    if not text:
        return None
    if len(text) > 40:
        raise Rejected("wrong_type", "a text where a number belongs")
    for kind in (int, float):
        try:
            return read_number(kind(text))
        except ValueError:
            continue
    raise Rejected("wrong_type", "a text where a number belongs")


def read_boolean(raw: Any) -> bool:
    if type(raw) is bool:
        return raw
    if type(raw) is int and raw in (0, 1):
        return raw == 1
    raise wrong("true or false", raw)


def read_negated(raw: Any) -> bool:
    return not read_boolean(raw)


def read_id(raw: Any) -> int | str | None:
    """Read the id of something: plain, in digits, or inside `{id}` or the older `{value}`."""
    if type(raw) is int:
        return read_number(raw)  # type: ignore[return-value]
    if type(raw) is dict:
        inner = member(raw, "id" if "id" in raw else "value")
        if type(inner) is dict:
            raise wrong("an id", inner)
        return None if inner is None else read_id(inner)
    if type(raw) is str:
        return int(raw) if raw.isascii() and raw.isdigit() and len(raw) <= 18 else hull_text(raw)
    raise wrong("an id", raw)


def read_moment(raw: Any) -> str | None:
    return spelled(raw, iso_moment, "a moment")


def read_plain(raw: Any) -> Any:
    """Read a value of an unknown kind: unchanged, if it is small and storable."""
    if type(raw) is str:
        return read_text(raw)
    if type(raw) is bool:
        return raw
    return read_number(raw) if type(raw) in (int, float) else bounded(raw)


def read_unknown(_raw: Any) -> None:
    """Reject a field that the definitions do not list, because they are older than the record."""
    raise Rejected("field_missing", "the field definitions at hand do not list this field")


def read_amount(raw: Any) -> int | float | None:
    inner = member(raw, "value") if type(raw) is dict else raw
    return None if inner is None else read_number(inner)


def read_part(part: str, raw: Any) -> Any:
    """Read one named part of a composed value; a value without its parts leaves them unknown."""
    if type(raw) is not dict:
        return NOT_SENT
    inner = raw.get(part, None if part in ADDRESS_PARTS and not raw.keys().isdisjoint(ADDRESS_PARTS) else NOT_SENT)
    return inner if inner is None or inner is NOT_SENT else read_text(inner)


def read_date_of(key: str, raw: Any) -> str | None:
    return spelled(member(raw, key) if type(raw) is dict else raw, iso_day, "a date")


def read_time_of(key: str, raw: Any) -> str | None:
    return spelled(member(raw, key) if type(raw) is dict else raw, iso_time, "a time")


def read_until(raw: Any) -> Any:
    until = raw.get("until", NOT_SENT) if type(raw) is dict else NOT_SENT
    return until if until is NOT_SENT else spelled(until, _iso_day_or_time, "a date or time")


def _iso_day_or_time(text: str) -> str | None:
    return iso_time(text) if ":" in text[:3] else iso_day(text)


def read_zone(raw: Any) -> Any:
    zone = raw.get("timezone_id", NOT_SENT) if type(raw) is dict else NOT_SENT
    return zone if zone is None or zone is NOT_SENT else read_id(zone)


def read_address(raw: Any) -> str | None:
    if type(raw) is dict:
        if "formatted_address" not in raw:
            member(raw, "value")
        raw = raw.get("value") or raw.get("formatted_address")
        if raw is None:
            return None
    return read_text(raw)


def read_primary(raw: Any) -> str | None:
    """Read the one value marked primary, else the first that is not empty."""
    if type(raw) is str:
        return read_text(raw)
    if type(raw) is not list:
        raise wrong("a list of values", raw)
    first: Any = None
    for item in raw:
        value = member(item, "value") if type(item) is dict else item
        if value is None or value == "":
            continue
        if type(item) is dict and item.get("primary") is True:
            return read_text(value)
        if first is None:
            first = value
    return None if first is None else read_text(first)


def read_list(raw: Any) -> list[str] | None:
    """Read every value of a list of e-mails or phones, in Pipedrive's order."""
    if type(raw) is str:
        raw = [raw]
    if type(raw) is not list:
        raise wrong("a list of values", raw)
    values = [member(item, "value") if type(item) is dict else item for item in raw]
    texts = [read_text(value) for value in values if value is not None]
    return bounded([text for text in texts if text is not None])  # type: ignore[no-any-return]


def enum_reader(options: Mapping[int | str, str]) -> Callable[[Any], Any]:
    labels = _by_any_id(options)

    def read_enum(raw: Any) -> str | None:
        if type(raw) is int or type(raw) is str:
            label = labels.get(raw)
            if label is not None:
                return label
            if raw == "":
                return None
        return _given_label(raw, labels)

    return read_enum


def set_reader(options: Mapping[int | str, str]) -> Callable[[Any], Any]:
    """Return a reader for a set, in the order of its definition: fetches and webhooks need not have the same order."""
    labels = _by_any_id(options)
    positions = {label: position for position, label in enumerate(options.values())}
    longest = max((len(label.encode(errors="replace")) for label in positions), default=0)
    surely_short = (HULL_VALUE_BYTES - 2) // (2 * longest + 3)

    def place(label: str) -> tuple[int, str]:
        return positions.get(label, len(positions)), label

    def read_set(raw: Any) -> list[str] | None:
        if type(raw) is not list:
            raw = _items(raw)
        found = {_given_label(item, labels) for item in raw}
        ordered = list(found) if len(found) < 2 else sorted(found, key=place)
        return ordered or None if len(ordered) <= surely_short else bounded(ordered)

    return read_set


def options_reader(options: Mapping[int | str, str]) -> Callable[[Any], Any]:
    """Return a reader for a field of an unknown type with options: one option, or a list of them."""
    read_one, read_several = enum_reader(options), set_reader(options)
    return lambda raw: read_several(raw) if type(raw) is list else read_one(raw)


def read_plain_ids(raw: Any) -> Any:
    """Read one option or a list of them, by ids."""
    return read_ids(raw) if type(raw) is list else read_id(raw)


def read_ids(raw: Any) -> list[int | str] | None:
    ids = {found for found in map(read_id, _items(raw)) if found is not None}
    return bounded(sorted(ids, key=lambda found: (type(found) is str, found)))  # type: ignore[no-any-return]


def _by_any_id(options: Mapping[int | str, str]) -> dict[int | str, str]:
    """Return the labels by number and by digits: in a few places the same id is a text."""
    labels: dict[int | str, str] = dict(options)
    for key, label in options.items():
        digits = str(key)
        labels.setdefault(digits, label)
        if digits.isascii() and digits.isdigit():
            labels.setdefault(int(digits), label)
    return labels


def _given_label(raw: Any, labels: Mapping[int | str, str]) -> str:
    """Find the label of an option given as id or as `{id, label}`; the definition's label wins over the given one."""
    if type(raw) is int and raw in labels:
        return labels[raw]
    given: Any = None
    if type(raw) is dict:
        raw, given = raw.get("id"), raw.get("label")
    if type(raw) not in (int, str):
        raise wrong("an option", raw)
    label = labels.get(raw)
    if label is None and type(given) is str:
        label = hull_text(given)
    if label is None:
        raise Rejected("option_unknown", "the field's definition lists no such option")
    return label


def _items(raw: Any) -> Iterable[Any]:
    """Return the members of a set, given as a list, as one member, or as ids in one text such as `1,2`."""
    if type(raw) is list:
        return raw
    if type(raw) is str:
        return [part.strip() for part in raw.split(",") if part.strip()]
    if type(raw) is int or type(raw) is dict:
        return [raw]
    raise wrong("a list", raw)


_WRITTEN_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL as JSON writes it, and not a backslash followed by the same letters."""


def bounded(value: Any) -> Any:
    """Return a list or an object that Hull can store; None for an empty one."""
    try:
        written = orjson.dumps(value)
    except (TypeError, ValueError):  # half a surrogate pair, a number beyond 64 bits, or too deep a nesting
        raise Rejected("wrong_type", "a value that cannot be written as JSON") from None
    if len(written) > HULL_VALUE_BYTES:
        raise Rejected("too_long", f"{len(written)} bytes, Hull takes {HULL_VALUE_BYTES}")
    if _WRITTEN_NUL.search(written):
        raise Rejected("unusable_text", "a NUL character")
    return value or None


def member(raw: dict[str, Any], key: str) -> Any:
    """Return a member of an object. Raises Rejected if it is missing: an unknown format is not an empty field."""
    if key not in raw:
        raise Rejected("wrong_type", f"an object without {key!r}")
    return raw[key]


def spelled(raw: Any, spell: Callable[[str], str | None], wanted: str) -> str | None:
    if raw is None or raw == "":
        return None
    if type(raw) is not str:
        raise wrong(wanted, raw)
    text = spell(raw)
    if text is None:
        raise Rejected("wrong_type", f"a text that is not {wanted}")
    return text


def wrong(wanted: str, raw: Any) -> Rejected:
    return Rejected("wrong_type", f"{type(raw).__name__} where {wanted} belongs")


READERS: Final[Mapping[str, Reader]] = {
    "varchar": read_text,
    "varchar_auto": read_text,
    "text": read_text,
    "phone": read_text,
    "int": read_number,
    "double": read_number,
    "boolean": read_boolean,
    "negated": read_negated,
    "monetary": read_amount,
    "date": partial(read_date_of, "value"),
    "daterange": partial(read_date_of, "value"),
    "time": partial(read_time_of, "value"),
    "timerange": partial(read_time_of, "value"),
    "moment": read_moment,
    "address": read_address,
    "user": read_id,
    "people": read_id,
    "org": read_id,
    "deal": read_id,
    "lead": read_id,
    "activity": read_id,
    "project": read_id,
    "stage": read_id,
    "picture": read_id,
    "visible_to": read_number,
    UNKNOWN: read_unknown,
    "emails": read_primary,
    "phones": read_primary,
}
"""Kind of field → its default reader; other kinds are passed unchanged."""


_PARTS: Final[Mapping[str, Reader]] = {"until": read_until, "timezone_id": read_zone}
