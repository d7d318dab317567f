"""Write composed values: money, ranges, times with a zone, addresses, e-mails and phones.

Parts that the settings do not map are taken from the field's current value, so that a write of one part
does not erase the others.
Source: https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide (Custom Fields; emails, phones, address)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.domain.spelling import email_spelling, plain
from pipeline.errors import Rejected
from pipeline.transform.reading.composed import read_primary
from pipeline.transform.record_shapes import ADDRESS_PARTS
from pipeline.transform.writing.simple import (
    MAX_CHARS,
    SHORT_CHARS,
    write_day,
    write_link,
    write_number,
    write_text,
    write_time,
)

Parts = Mapping[str, Any]
"""Part of a value → Hull's value, None for empty; a part that Hull does not send is missing."""


def write_money(amount: Any, parts: Parts, current: Any, default: str | None) -> dict[str, Any] | None:
    """Write an amount with its currency: the given one, else the current one, else the account's default.

    Raises: Rejected("currency_unknown") if there is none: Pipedrive would refuse the field.
    """
    number = write_number(amount)
    if number is None:
        return None
    currency = parts.get("currency") or _of(current, "currency") or default
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
    before = _of(current, "value") if type(current) is dict else current
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
    until = parts.get("until", _of(current, "until"))
    if until is None:
        raise Rejected("part_missing", "a range without an end")
    return until


def _zone(parts: Parts, current: Any) -> dict[str, Any]:
    zone = parts.get("timezone_id") or _of(current, "timezone_id")
    return {} if zone is None else {"timezone_id": write_link(zone)}


def _of(current: Any, part: str) -> Any:
    return current.get(part) if type(current) is dict else None
