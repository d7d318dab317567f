"""Checks of custom field values, one for each type of field.

Shapes: https://pipedrive.readme.io/docs/core-api-concepts-custom-fields and the v2 migration guide.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from sandbox.company import checks
from sandbox.company.checks import Check, Context, Invalid
from sandbox.company.fields import Field
from sandbox.company.generated.values import ZONES

MAX_VARCHAR = 255
MAX_TEXT = 65_000
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")


def custom_fields(value: Any, key: str, context: Context) -> dict[str, Any]:
    """Check a `custom_fields` object, code by code; null clears."""
    if not isinstance(value, dict):
        raise Invalid(f"{key}: must be an object")
    checked: dict[str, Any] = {}
    for code, sent in value.items():
        field = context.custom_fields.get(code)
        if field is None:
            raise Invalid(f"{key}.{code}: unknown custom field")
        check = _CUSTOM.get(field.type, varchar)
        checked[code] = None if sent is None else check(sent, f"{key}.{code}", context)
        _check_options(field, checked[code], f"{key}.{code}")
    return checked


def _check_options(field: Field, value: Any, key: str) -> None:
    if field.type not in {"enum", "set"} or value is None:
        return
    for option in value if isinstance(value, list) else [value]:
        if option not in field.option_ids():
            raise Invalid(f"{key}: option {option} was not found")


def _number(value: Any, key: str, _: Context) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(f"{key}: must be a number")
    return value


def _date(value: Any, key: str, _: Context) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError) as error:
        raise Invalid(f"{key}: {value!r} is not a valid date") from error


def _clock(value: Any, key: str, _: Context) -> str:
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        raise Invalid(f"{key}: {value!r} is not a valid time")
    return value if len(value) == 8 else f"{value}:00"


def _set(value: Any, key: str, context: Context) -> list[int]:
    if not isinstance(value, list) or not value:
        raise Invalid(f"{key}: must be a non-empty array; use null to clear it")
    return [checks.integer(option, key, context) for option in value]


def _monetary(value: Any, key: str, context: Context) -> dict[str, Any]:
    sent = _object(value, key, ("value", "currency"), required=("value", "currency"))
    return {"value": _number(sent["value"], f"{key}.value", context), "currency": _currency(sent["currency"], key)}


def _currency(value: Any, key: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]{3}", value):
        raise Invalid(f"{key}.currency: must be a currency code")
    return value


def _date_range(value: Any, key: str, context: Context) -> dict[str, Any]:
    sent = _object(value, key, ("value", "until"), required=("value", "until"))
    return {part: _date(sent[part], f"{key}.{part}", context) for part in ("value", "until")}


def _time(value: Any, key: str, context: Context) -> dict[str, Any]:
    sent = _object(value, key, ("value", "timezone_id", "timezone_name"), required=("value",))
    return {"value": _clock(sent["value"], f"{key}.value", context), **_zone(sent)}


def _time_range(value: Any, key: str, context: Context) -> dict[str, Any]:
    sent = _object(value, key, ("value", "until", "timezone_id", "timezone_name"), required=("value", "until"))
    times = {part: _clock(sent[part], f"{key}.{part}", context) for part in ("value", "until")}
    return {**times, **_zone(sent)}


def _zone(sent: dict[str, Any]) -> dict[str, Any]:
    """Name the zone both ways; the user's own, Europe/London here, where neither was sent."""
    by_id = dict(ZONES)
    by_name = {name: zone_id for zone_id, name in ZONES}
    zone_id = sent.get("timezone_id") or by_name.get(sent.get("timezone_name") or "", 318)
    return {"timezone_id": zone_id, "timezone_name": sent.get("timezone_name") or by_id.get(zone_id)}


def _object(value: Any, key: str, known: tuple[str, ...], *, required: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"{key}: must be an object")
    for part in required:
        if value.get(part) is None:
            raise Invalid(f"{key}.{part}: Required")
    unknown = set(value) - set(known)
    if unknown:
        raise Invalid(f"{key}.{min(unknown)}: unknown parameter")
    return value


varchar = checks.string(MAX_VARCHAR)
_CUSTOM: dict[str, Check] = {
    "text": checks.string(MAX_TEXT),
    "double": _number,
    "int": checks.integer,
    "date": _date,
    "daterange": _date_range,
    "time": _time,
    "timerange": _time_range,
    "set": _set,
    "enum": checks.integer,
    "address": checks.address,
    "monetary": _monetary,
    "org": checks.organization,
    "people": checks.person,
    "user": checks.owner,
}
