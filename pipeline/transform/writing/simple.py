"""Turns the value of a Hull attribute into what Pipedrive's API v2 takes for a field, one writer per kind of field.

Shape:  attribute (never None) and the field's current value → value for the body of a POST or PATCH
Raises: Rejected(reason, detail) for a value the field cannot take; the detail never repeats the value.
Source: https://pipedrive.readme.io/docs/core-api-concepts-custom-fields (limits and shapes of the types)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.domain.times import iso_time, written_day
from pipeline.errors import Rejected
from pipeline.transform.field_definitions import FieldSource
from pipeline.transform.reading.options import read_ids
from pipeline.transform.reading.simple import read_boolean, read_number, read_plain
from pipeline.transform.texts import is_usable, list_readings, loose_text, same_text

MAX_CHARS: Final[Mapping[str, int]] = {"text": 65_000, "notes": 10_000}
SHORT_CHARS: Final = 255
"""Longest text of every other field."""

VISIBILITIES: Final = (1, 3, 5, 7)


def write_text(value: Any, max_chars: int) -> str | None:
    """Write a text without the spaces around it; numbers and booleans as text. None when nothing is left."""
    if type(value) is bool:
        text = "true" if value else "false"
    elif type(value) in (int, float):
        text = str(read_number(value))
    elif type(value) is str:
        text = value.strip()
    else:
        raise _wrong("text", value)
    if not is_usable(text):
        raise Rejected("unusable_text", "a NUL character or half a surrogate pair")
    if len(text) > max_chars:
        raise Rejected("too_long", f"{len(text)} characters, Pipedrive takes {max_chars}")
    return text or None


def write_simple(source: FieldSource, value: Any) -> Any:
    """Write a simple value."""
    if source.type in _SIMPLE:
        return _SIMPLE[source.type](value)
    limit = MAX_CHARS.get(source.key, MAX_CHARS.get(source.type, SHORT_CHARS))
    return write_text(value, limit)


def write_plain(value: Any) -> Any:
    """Write a value for a field of a type this project knows nothing of: as it is, a text without the spaces around it."""
    return write_text(value, MAX_CHARS["text"]) if type(value) is str else read_plain(value)


def write_number(value: Any) -> int | float | None:
    if type(value) is bool:
        raise _wrong("a number", value)
    return read_number(value)


def write_whole_number(value: Any) -> int | None:
    number = write_number(value)
    if isinstance(number, float):
        raise Rejected("wrong_type", "a fraction where a whole number belongs")
    return number


def write_boolean(value: Any) -> bool:
    if type(value) is str and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return read_boolean(value)


def write_link(value: Any) -> int | None:
    """Write the id of a user, a Person or an Organization of Pipedrive."""
    number = write_whole_number(value)
    if number is not None and number <= 0:
        raise Rejected("wrong_type", "an id is a positive number")
    return number


def write_visibility(value: Any) -> int | None:
    number = write_whole_number(value)
    if number is not None and number not in VISIBILITIES:
        raise Rejected("wrong_type", "visibility is one of 1, 3, 5, 7")
    return number


def write_day(value: Any) -> str:
    """Write a calendar day; of a moment, the day that is written in it, whatever its zone."""
    return _spelled(value, written_day, "a date")


def write_time(value: Any) -> str:
    return _spelled(value, iso_time, "a time of day")


def write_day_or_time(value: Any) -> str:
    return write_time(value) if type(value) is str and ":" in value[:3] else write_day(value)


def write_option(options: Mapping[int | str, str], value: Any, current: Any, *, by_id: bool) -> int | str | None:
    """Write an option by its label or its id; the current option stays when its label is the wanted one."""
    if type(value) is str and not value.strip():
        return None
    found = _find_option(options, value, _ids_of(current), by_id=by_id)
    if found is None:
        raise Rejected("option_unknown", "the field's definition lists no such option")
    return found


def write_options(options: Mapping[int | str, str], value: Any, current: Any, *, by_id: bool) -> list[int | str] | None:
    """Write a list of options; a text is one label, or several with commas between them if every part is one."""
    current_ids = _ids_of(current)
    if type(value) is str and "," in value and _find_option(options, value, current_ids, by_id=by_id) is None:
        return _split_options(options, value, current_ids, by_id=by_id)
    ids = [
        write_option(options, member, current_ids, by_id=by_id)
        for member in (value if type(value) is list else [value])
        if member is not None
    ]
    return list(dict.fromkeys(found for found in ids if found is not None)) or None


def _split_options(
    options: Mapping[int | str, str], text: str, current_ids: list[int | str], *, by_id: bool
) -> list[int | str] | None:
    most_commas = max((label.count(",") for label in options.values()), default=0)

    def find(part: str) -> int | str | None:
        return _find_option(options, part, current_ids, by_id=by_id)

    readings: list[list[int | str]] = list_readings(text, find, most_commas)
    if not readings:
        raise Rejected("option_unknown", "the field's definition lists no such option")
    if len(readings) > 1:
        raise Rejected("option_ambiguous", "the text can be read as more than one list of options")
    return list(dict.fromkeys(readings[0])) or None


def _find_option(
    options: Mapping[int | str, str], value: Any, current_ids: list[int | str], *, by_id: bool
) -> int | str | None:
    """Return an option: a number is an id first, a text a label first, in its exact spelling before any other one.

    Raises: Rejected("option_ambiguous") for a label of several options, none of which is the current one.
    """
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) not in (int, str):
        raise _wrong("an option", value)
    text = same_text(str(value))
    by_key = [key for key in options if str(key) == text]
    by_label = [key for key, label in options.items() if same_text(label) == text]
    for found in (by_key, by_label) if by_id or type(value) is int else (by_label, by_key):
        if found:
            return _choose(found, current_ids)
    loose = loose_text(text)
    loosely = [key for key, label in options.items() if loose_text(label) == loose]
    return _choose(loosely, current_ids) if loosely else None


def _choose(found: list[int | str], current_ids: list[int | str]) -> int | str:
    held = [key for key in found if key in current_ids]
    if held or len(found) == 1:
        return (held or found)[0]
    raise Rejected("option_ambiguous", "several options have this label")


def _ids_of(current: Any) -> list[int | str]:
    if current is None:
        return []
    try:
        return read_ids(current) or []
    except Rejected:
        return []


def _spelled(value: Any, spell: Callable[[str], str | None], wanted: str) -> str:
    text = spell(value.strip()) if type(value) is str else None
    if text is None:
        raise _wrong(wanted, value)
    return text


def _wrong(wanted: str, value: Any) -> Rejected:
    return Rejected("wrong_type", f"{type(value).__name__} that is not {wanted}")


_SIMPLE: Final[Mapping[str, Callable[[Any], Any]]] = {
    "int": write_whole_number,
    "double": write_number,
    "boolean": write_boolean,
    "date": write_day,
    "user": write_link,
    "people": write_link,
    "org": write_link,
    "visible_to": write_visibility,
}
"""Kind of field → how an attribute becomes its value, where that is not a text."""
