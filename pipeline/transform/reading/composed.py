"""Reads the values that consist of several: money, ranges, times with a zone, addresses, e-mails and phones."""

from __future__ import annotations

from typing import Any

from pipeline.domain.times import iso_day, iso_time
from pipeline.transform.reading.simple import UNTOLD, bounded, member, read_id, read_number, read_text, spelled, wrong
from pipeline.transform.record_shapes import ADDRESS_PARTS


def read_amount(raw: Any) -> int | float | None:
    inner = member(raw, "value") if type(raw) is dict else raw
    return None if inner is None else read_number(inner)


def read_part(part: str, raw: Any) -> Any:
    """Read one named part of a composed value; a value without its parts leaves them unknown."""
    if type(raw) is not dict:
        return UNTOLD
    inner = raw.get(part, None if part in ADDRESS_PARTS and not raw.keys().isdisjoint(ADDRESS_PARTS) else UNTOLD)
    return inner if inner is None or inner is UNTOLD else read_text(inner)


def read_date_of(key: str, raw: Any) -> str | None:
    return spelled(member(raw, key) if type(raw) is dict else raw, iso_day, "a date")


def read_time_of(key: str, raw: Any) -> str | None:
    return spelled(member(raw, key) if type(raw) is dict else raw, iso_time, "a time")


def read_until(raw: Any) -> Any:
    until = raw.get("until", UNTOLD) if type(raw) is dict else UNTOLD
    return until if until is UNTOLD else spelled(until, _iso_day_or_time, "a date or time")


def _iso_day_or_time(text: str) -> str | None:
    return iso_time(text) if ":" in text[:3] else iso_day(text)


def read_zone(raw: Any) -> Any:
    zone = raw.get("timezone_id", UNTOLD) if type(raw) is dict else UNTOLD
    return zone if zone is None or zone is UNTOLD else read_id(zone)


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
