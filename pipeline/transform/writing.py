"""Write the value of a Hull attribute as the value of a Pipedrive field: one writer for each kind of field.

Shape:  attribute (never None) and the field's current value → value for the body of a POST or PATCH of API v2
Raises: Rejected(reason, detail) for a value that the field cannot take; the detail never repeats the value.

Parts that the settings do not map are taken from the field's current value, so that a write of one part does not erase
the others.
Sources: https://pipedrive.readme.io/docs/core-api-concepts-custom-fields (limits and shapes of the types) and
https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide (Custom Fields; emails, phones, address)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.domain.fields import ADDRESS_PARTS, FieldSource
from pipeline.domain.texts import email_spelling, is_usable, list_readings, loose_text, plain, same_text
from pipeline.domain.times import iso_time, written_day
from pipeline.errors import Rejected
from pipeline.transform.reading import READERS, read_boolean, read_ids, read_number, read_plain, read_primary

Parts = Mapping[str, Any]
"""Part of a value → Hull's value, None for empty; a part that Hull does not send is missing."""


def write_value(source: FieldSource, value: Any, parts: Parts, current: Any, *, form: str) -> Any:
    """Return the value for a field, by the field's kind."""
    if source.type == "monetary":
        return write_money(value, parts, current, source.default_currency)
    if source.type in _COMPOSED:
        return _COMPOSED[source.type](value, parts, current)
    if source.type in ("emails", "phones"):
        return write_members(value, current, whole=form == "list")
    is_known = source.type in READERS
    if source.type in ("enum", "set", "labels") or (source.options and not is_known):
        # For an unknown type, the values show whether it takes one option or several.
        is_list = source.type in ("set", "labels") or (not is_known and list in (type(value), type(current)))
        write = write_options if is_list and source.type != "enum" else write_option
        return write(source.options, value, current, by_id=form == "id")
    return write_simple(source, value) if is_known else write_plain(value)


MAX_CHARS: Final[Mapping[str, int]] = {"text": 65_000, "notes": 10_000}
SHORT_CHARS: Final = 255
"""Longest text of every other field."""

VISIBILITIES: Final = (1, 3, 5, 7)


def write_text(value: Any, max_chars: int) -> str | None:
    """Return a text without surrounding spaces; numbers and booleans as text; None for an empty one."""
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
    """Return a value for a field of an unknown type: unchanged, a text without surrounding spaces."""
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
    """Return an option: a number is an id first, a text is a label first, in its exact spelling before others.

    Raises: Rejected("option_ambiguous") for a label of several options if the current option is not one of them.
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


def write_money(amount: Any, parts: Parts, current: Any, default: str | None) -> dict[str, Any] | None:
    """Return an amount with its currency: the given one, else the current one, else the account's default.

    Raises: Rejected("currency_unknown") without any of them: Pipedrive would refuse the field.
    """
    number = write_number(amount)
    if number is None:
        return None
    currency = parts.get("currency") or _part_of(current, "currency") or default
    if currency is None:
        raise Rejected("currency_unknown", "an amount without a currency, and the account's default is not known")
    if type(currency) is not str or len(currency.strip()) != 3:
        raise Rejected("wrong_type", "a currency is three letters")
    return {"value": number, "currency": currency.strip().upper()}


def write_day_range(start: Any, parts: Parts, current: Any) -> dict[str, Any]:
    return {"value": write_day(start), "until": write_day(_until(parts, current))}


def write_time_range(start: Any, parts: Parts, current: Any) -> dict[str, Any]:
    return {"value": write_time(start), "until": write_time(_until(parts, current))} | _zone(parts, current)


def write_clock_time(start: Any, parts: Parts, current: Any) -> dict[str, Any]:
    return {"value": write_time(start)} | _zone(parts, current)


def write_address(value: Any, parts: Parts, current: Any) -> dict[str, Any] | None:
    """Write an address: a new text with the mapped parts only, an unchanged text with its current parts as well."""
    text = None if value is None else write_text(value, MAX_CHARS["text"])
    given = {part: None if one is None else write_text(one, SHORT_CHARS) for part, one in parts.items()}
    before = _part_of(current, "value") if type(current) is dict else current
    if text is None:
        text = before or ", ".join(str(given[part]) for part in ADDRESS_PARTS if given.get(part))
    if not text:
        return None
    stays = type(current) is dict and type(before) is str and before.strip() == text.strip()
    kept = {part: current[part] for part in ADDRESS_PARTS if current.get(part)} if stays else {}
    kept.pop("formatted_address", None)  # Pipedrive makes it itself
    given.pop("formatted_address", None)
    return {"value": text, **kept, **given}


def write_members(value: Any, current: Any, *, whole: bool) -> Any:
    """Write e-mails or phones: the value becomes primary and the others stay, or the whole list is replaced.

    The current list is returned unchanged if it is equal.
    """
    members = _members(current)
    if whole:
        return _write_whole(value if type(value) is list else [value], current, members)
    primary = _written(value[0] if type(value) is list and value else value)
    if primary is None or _same(primary, _primary_of(current)):
        return current
    rest = [member for member in members if not _same(_text(member), primary)]
    known = next((member for member in members if _same(_text(member), primary)), {"value": primary})
    return [_member(known, is_primary=True), *(_member(member, is_primary=False) for member in rest)]


def holds_member(current: Any, text: str) -> bool:
    """Return whether a list of e-mails or phones has this one, primary or not."""
    return any(_same(_text(member), text) for member in _members(current))


def _write_whole(values: list[Any], current: Any, members: list[dict[str, Any]]) -> Any:
    texts = [_written(value) for value in values if value is not None]
    by_spelling: dict[str, str] = {}
    for text in texts:
        if text is not None:
            by_spelling.setdefault(_spelling(text), text)
    wanted = list(by_spelling.values())
    if [_spelling(text) for text in wanted] == [_spelling(_text(member)) for member in members]:
        return current
    primary = _primary_of(current)
    first = next((text for text in wanted if _same(text, primary)), next(iter(wanted), None))
    known = {_spelling(_text(member)): member for member in members}
    return [_member(known.get(_spelling(text), {"value": text}), is_primary=text == first) for text in wanted]


def _members(current: Any) -> list[dict[str, Any]]:
    return [member for member in current if _text(member)] if type(current) is list else []


def _primary_of(current: Any) -> str | None:
    try:
        found = None if current is None else read_primary(current)
    except Rejected:
        return None
    return None if found is None else found.strip()


def _member(member: Mapping[str, Any], *, is_primary: bool) -> dict[str, Any]:
    label = member.get("label")
    written = {"value": _text(member), "primary": is_primary}
    return written | {"label": label} if type(label) is str and label else written


def _text(member: Any) -> str:
    value = member.get("value") if isinstance(member, dict) else None
    return value.strip() if type(value) is str else ""


def _same(one: str | None, other: str | None) -> bool:
    """Return whether two e-mails, or two phones, are equal, ignoring the spelling as for identifiers."""
    if one is None or other is None:
        return False
    return one == other or _spelling(one) == _spelling(other)


def _spelling(text: str) -> str:
    return email_spelling(text).casefold()


def _written(value: Any) -> str | None:
    """Return the value as written: without the invisible characters that `plain` removes, because Pipedrive would keep them."""
    text = write_text(value, SHORT_CHARS)
    return None if text is None else plain(text) or None


def _until(parts: Parts, current: Any) -> Any:
    until = parts.get("until", _part_of(current, "until"))
    if until is None:
        raise Rejected("part_missing", "a range without an end")
    return until


def _zone(parts: Parts, current: Any) -> dict[str, Any]:
    zone = parts.get("timezone_id") or _part_of(current, "timezone_id")
    return {} if zone is None else {"timezone_id": write_link(zone)}


def _part_of(current: Any, part: str) -> Any:
    return current.get(part) if type(current) is dict else None


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
"""Kind of field → its writer; other kinds are texts."""


_COMPOSED: Final[Mapping[str, Callable[[Any, Parts, Any], Any]]] = {
    "daterange": write_day_range,
    "timerange": write_time_range,
    "time": write_clock_time,
    "address": write_address,
}
