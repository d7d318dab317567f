"""Read the value of one custom field in a webhook: an object with its type, or the plain value.

A value is either understood completely or it is UNREADABLE: a format without the known keys leaves the field unknown,
and a null besides other members does not mean that it is empty. Such a field is read from Pipedrive by the record's id.
Source: https://pipedrive.readme.io/docs/webhooks-v2-migration-guide (custom fields)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.domain.fields import ADDRESS_PARTS

UNREADABLE: Final = object()
"""Marks a value in an unknown format."""

_SCALARS: Final = (str, int, float, bool)


def decode_custom(kind: str | None, value: Any) -> Any:
    """Return a custom field's value in the format of API v2; None for an empty field, UNREADABLE for an unknown format.

    kind  type of the field by its definition, or by the webhook itself if no definition lists it
    """
    if value is None:
        return None
    if isinstance(value, dict):
        return _OBJECTS.get(kind or "", _decode_plain)(value)
    if kind == "set":
        return _members(value)
    if kind in _COMPOSED:  # the other part of a plain value is unknown
        return UNREADABLE if value != "" else None
    return value if isinstance(value, _SCALARS) else UNREADABLE


def decode_address(value: Any) -> Any:
    """Return an address in the format of API v2; a webhook has empty texts for missing parts."""
    if value is None or value == "":
        return None
    if not isinstance(value, dict) or not any(key in value for key in _ADDRESS_KEYS):
        return UNREADABLE
    parts = {key: None if part == "" else part for key, part in value.items() if key != "type"}
    if any(isinstance(part, dict | list) for part in parts.values()):
        return UNREADABLE
    if not any(parts.get(key) is not None for key in _ADDRESS_KEYS):
        return None if _is_empty_but_for(value, _ADDRESS_KEYS) else UNREADABLE
    return parts


def _decode_plain(value: dict[str, Any]) -> Any:
    return _one_of(value, ("value",), _SCALARS)


def _decode_id(value: dict[str, Any]) -> Any:
    return _one_of(value, ("id", "value"), (int, str))


def _decode_set(value: dict[str, Any]) -> Any:
    key = next((key for key in ("values", "value") if key in value), None)
    if key is None:
        return UNREADABLE
    if value[key] is None or value[key] == []:
        return None if _is_empty_but_for(value, (key,)) else UNREADABLE
    return _members(value[key])


def _members(value: Any) -> Any:
    if not isinstance(value, list):
        return value if isinstance(value, int | str) and not isinstance(value, bool) else UNREADABLE
    ids = [member.get("id") if isinstance(member, dict) else member for member in value]
    return (ids or None) if all(type(each) in (int, str) for each in ids) else UNREADABLE


def _decode_amount(value: dict[str, Any]) -> Any:
    amount = _one_of(value, ("value",), (int, float, str))
    if amount is None or amount is UNREADABLE:
        return amount
    currency = value.get("currency")
    return {"value": amount, "currency": currency} if isinstance(currency, str) and currency else UNREADABLE


def _decode_range(value: dict[str, Any]) -> Any:
    first = "from" if "from" in value else "value"
    if first not in value or "until" not in value:
        return UNREADABLE
    ends = value[first], value["until"]
    if all(end is None or end == "" for end in ends):
        return None if _is_empty_but_for(value, (first, "until", "timezone_id", "timezone_name")) else UNREADABLE
    if not all(end is None or isinstance(end, str) for end in ends):
        return UNREADABLE
    return {"value": ends[0], "until": ends[1]} | _zone(value)


def _decode_time(value: dict[str, Any]) -> Any:
    at = _one_of(value, ("value",), (str,))
    return at if at is None or at is UNREADABLE else {"value": at} | _zone(value)


def _zone(value: dict[str, Any]) -> dict[str, Any]:
    return {"timezone_id": value["timezone_id"]} if "timezone_id" in value else {}


def _one_of(value: dict[str, Any], keys: tuple[str, ...], types: tuple[type, ...]) -> Any:
    """Return the value under the first existing key; a null only counts if no other key has a value."""
    key = next((key for key in keys if key in value), None)
    if key is None:
        return UNREADABLE
    found = value[key]
    if found is None or found == "":
        return None if _is_empty_but_for(value, (key, *_SIDE_KEYS)) else UNREADABLE
    return found if type(found) in types else UNREADABLE


def _is_empty_but_for(value: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    return all(each in (None, "", [], {}) for key, each in value.items() if key not in keys and key != "type")


_ADDRESS_KEYS: Final = ("value", *ADDRESS_PARTS)
_SIDE_KEYS: Final = ("currency", "timezone_id", "timezone_name")
"""Members that may remain when the value is emptied."""

_COMPOSED: Final = frozenset({"monetary", "daterange", "timerange", "time", "address"})

_OBJECTS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "enum": _decode_id,
    "user": _decode_id,
    "people": _decode_id,
    "org": _decode_id,
    "set": _decode_set,
    "monetary": _decode_amount,
    "daterange": _decode_range,
    "timerange": _decode_range,
    "time": _decode_time,
    "address": decode_address,
}
"""Field type → the decoder of a webhook's object; other types have the value under `value`."""
