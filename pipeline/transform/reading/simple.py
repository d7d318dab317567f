"""Read simple values: texts, numbers, ids, moments.

Every reader takes a value that is not None and raises Rejected(reason, detail) for an invalid one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from pipeline.domain.times import iso_moment
from pipeline.errors import Rejected
from pipeline.transform.texts import HULL_VALUE_BYTES, hull_text

_WRITTEN_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL as JSON writes it, and not a backslash followed by the same letters."""


def read_text(raw: Any) -> str | None:
    if type(raw) is str:
        # The common case first: short, plain, not empty.
        if raw.isascii() and 0 < len(raw) <= HULL_VALUE_BYTES and "\0" not in raw:
            return raw
        return hull_text(raw)
    raise wrong("text", raw)


def read_number(raw: Any) -> int | float | None:
    """Read a number; whole ones come out as int, so that 5 and 5.0 are one value."""
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
    """Refuse a field that the definitions do not list: they are older than the record."""
    raise Rejected("field_missing", "the field definitions at hand do not list this field")


UNTOLD: Final = object()
"""Returned for a part that the value does not contain: the attribute stays as it is, like an absent field."""


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


def wrong(wanted: str, raw: Any) -> Rejected:
    return Rejected("wrong_type", f"{type(raw).__name__} where {wanted} belongs")
