"""Check the body of a create or an update, and turn it into record members.

`Invalid` carries the message of the 400. Members are in v2 shape and complete: labels, primaries, address parts. Rules:
https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide,
https://pipedrive.readme.io/docs/core-api-concepts-custom-fields and the request schemas of the v2 OpenAPI file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sandbox.company.fields import ADDRESS_PARTS, FIRMOGRAPHICS, Entity, Field
from sandbox.company.values import ZONES

_MAX_INTEGER = 2**53
_MAX_VARCHAR = 255
_MAX_TEXT = 65_000
_VISIBILITIES = (1, 3, 5, 7)
_MARKETING_STATUSES = ("no_consent", "unsubscribed", "subscribed", "archived")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?")


class Invalid(ValueError):
    """The body cannot be accepted; the message names the key and the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What a body may refer to in the company."""

    custom_fields: Mapping[str, Field]
    label_ids: Collection[int | str]
    users: Collection[int]
    firmographics: bool
    has_organization: Callable[[int], bool]
    has_person: Callable[[int], bool]


_Check = Callable[[Any, str, References], Any]


def read_members(entity: Entity, body: Mapping[str, Any], known: References, *, creating: bool) -> dict[str, Any]:
    """Turn a body into the members it sets. `custom_fields` holds only the codes that were sent.

    Raises: Invalid.
    """
    allowed = _allowed(entity, known, creating=creating)
    for key in body:
        if key not in allowed:
            raise Invalid(f"{key}: unknown parameter")
    members = {key: allowed[key](value, key, known) for key, value in body.items()}
    members.pop("marketing_status", None)
    if entity == "person":
        members = _with_names(members, creating=creating)
    elif creating and "name" not in members:
        raise Invalid("name: Required")
    return members


def read_moment(value: Any, key: str = "add_time", _: References | None = None) -> str:
    """Return an RFC 3339 time of whole seconds in UTC.

    Raises: Invalid, worded as the API words it for `updated_since`.
    """
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise Invalid(f"{key}: {value!r} is not a valid datetime")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise Invalid(f"{key}: {value!r} is not a valid datetime") from error
    return parsed.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _allowed(entity: Entity, known: References, *, creating: bool) -> dict[str, _Check]:
    own = _PERSON if entity == "person" else _ORGANIZATION
    allowed = {**_SHARED, **own}
    if creating:
        allowed["add_time"] = read_moment
    if entity == "organization" and known.firmographics:
        allowed |= {code: _FIRMOGRAPHIC_CHECKS[kind] for code, _, kind in FIRMOGRAPHICS}
    return allowed


def _with_names(members: dict[str, Any], *, creating: bool) -> dict[str, Any]:
    """Make `name` and its two parts agree: the first word is the first name, the rest the last."""
    first, last = members.get("first_name"), members.get("last_name")
    if "name" in members:
        head, _, tail = members["name"].strip().partition(" ")
        return {**members, "first_name": first or head, "last_name": last or tail.strip() or None}
    if first is not None and last is not None:
        if not (first or last):
            raise Invalid("name: first_name and last_name must not both be empty")
        return {**members, "name": f"{first} {last}".strip()}
    if creating or "first_name" in members or "last_name" in members:
        raise Invalid("name: Required")
    return members


def _name(value: Any, key: str, _: References) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"{key}: must be a non-empty string")
    return value


def _name_part(value: Any, key: str, _: References) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{key}: must be a string")
    return value


def _visibility(value: Any, key: str, known: References) -> int:
    if _integer(value, key, known) not in _VISIBILITIES:
        raise Invalid(f"{key}: must be one of 1, 3, 5, 7")
    return int(value)


def _labels(value: Any, key: str, known: References) -> list[int]:
    if not isinstance(value, list):
        raise Invalid(f"{key}: must be an array")
    for label in value:
        if _integer(label, key, known) not in known.label_ids:
            raise Invalid(f"{key}: label {label} was not found")
    return list(dict.fromkeys(value))


def _contacts(value: Any, key: str, _: References) -> list[dict[str, Any]]:
    """Complete e-mails or phones: the label is `work` unless given, the first is primary unless another is."""
    if not isinstance(value, list):
        raise Invalid(f"{key}: must be an array")
    completed = [_contact(item, f"{key}[{n}]") for n, item in enumerate(value)]
    primaries = sum(item["primary"] for item in completed)
    if primaries > 1:
        raise Invalid(f"{key}: only one item can be primary")
    if completed and not primaries:
        completed[0]["primary"] = True
    return completed


def _contact(item: Any, key: str) -> dict[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("value"), str):
        raise Invalid(f"{key}.value: Required")
    unknown = set(item) - {"value", "primary", "label"}
    if unknown:
        raise Invalid(f"{key}.{min(unknown)}: unknown parameter")
    primary, label = item.get("primary", False), item.get("label", "work")
    if not isinstance(primary, bool) or not isinstance(label, str):
        raise Invalid(f"{key}: primary must be a boolean and label a string")
    return {"value": item["value"], "primary": primary, "label": label}


def _marketing_status(value: Any, key: str, _: References) -> str:
    """Accept it and, like a company without the marketing add-on, keep nothing of it."""
    if value not in _MARKETING_STATUSES:
        raise Invalid(f"{key}: must be one of {', '.join(_MARKETING_STATUSES)}")
    return str(value)


def _custom_fields(value: Any, key: str, known: References) -> dict[str, Any]:
    """Check a `custom_fields` object, code by code; null clears."""
    if not isinstance(value, dict):
        raise Invalid(f"{key}: must be an object")
    checked: dict[str, Any] = {}
    for code, sent in value.items():
        field = known.custom_fields.get(code)
        if field is None:
            raise Invalid(f"{key}.{code}: unknown custom field")
        check = _CUSTOM.get(field.type, _varchar)
        checked[code] = None if sent is None else check(sent, f"{key}.{code}", known)
        _check_options(field, checked[code], f"{key}.{code}")
    return checked


def _check_options(field: Field, value: Any, key: str) -> None:
    if field.type not in {"enum", "set"} or value is None:
        return
    for option in value if isinstance(value, list) else [value]:
        if option not in field.option_ids():
            raise Invalid(f"{key}: option {option} was not found")


def _integer(value: Any, key: str, _: References) -> int:
    """Accept an integer; JSON true is a Python int, and is refused."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_INTEGER:
        raise Invalid(f"{key}: must be an integer")
    return value


def _owner(value: Any, key: str, known: References) -> int:
    """Accept the id of a user of the company."""
    if _integer(value, key, known) not in known.users:
        raise Invalid(f"{key}: user {value} was not found")
    return int(value)


def _organization(value: Any, key: str, known: References) -> int | None:
    """Accept the id of a live Organization, or null."""
    if value is not None and not known.has_organization(_integer(value, key, known)):
        raise Invalid(f"{key}: organization {value} was not found")
    return None if value is None else int(value)


def _person(value: Any, key: str, known: References) -> int:
    """Accept the id of a live Person."""
    if not known.has_person(_integer(value, key, known)):
        raise Invalid(f"{key}: person {value} was not found")
    return int(value)


def _address(value: Any, key: str, _: References) -> dict[str, Any] | None:
    """Complete an address: what is not sent becomes null, also on update."""
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("value"), str):
        raise Invalid(f"{key}.value: Required")
    for part, text in value.items():
        if part not in ADDRESS_PARTS or not (text is None or isinstance(text, str)):
            raise Invalid(f"{key}.{part}: must be a known address part and a string")
    return {part: value.get(part) for part in ADDRESS_PARTS}


def _string(limit: int) -> _Check:
    """Make a check for strings of at most `limit` characters."""

    def check(value: Any, key: str, _: References) -> str:
        if not isinstance(value, str):
            raise Invalid(f"{key}: must be a string")
        if len(value) > limit:
            raise Invalid(f"{key}: must be at most {limit} characters long")
        return value

    return check


def _nullable(check: _Check) -> _Check:
    """Make a check that also accepts null."""

    def checked(value: Any, key: str, known: References) -> Any:
        return None if value is None else check(value, key, known)

    return checked


def _number(value: Any, key: str, _: References) -> float | int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(f"{key}: must be a number")
    return value


def _date(value: Any, key: str, _: References) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError) as error:
        raise Invalid(f"{key}: {value!r} is not a valid date") from error


def _clock(value: Any, key: str, _: References) -> str:
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        raise Invalid(f"{key}: {value!r} is not a valid time")
    return value if len(value) == 8 else f"{value}:00"


def _set(value: Any, key: str, known: References) -> list[int]:
    if not isinstance(value, list) or not value:
        raise Invalid(f"{key}: must be a non-empty array; use null to clear it")
    return [_integer(option, key, known) for option in value]


def _monetary(value: Any, key: str, known: References) -> dict[str, Any]:
    sent = _object(value, key, ("value", "currency"), required=("value", "currency"))
    return {"value": _number(sent["value"], f"{key}.value", known), "currency": _currency(sent["currency"], key)}


def _currency(value: Any, key: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]{3}", value):
        raise Invalid(f"{key}.currency: must be a currency code")
    return value


def _date_range(value: Any, key: str, known: References) -> dict[str, Any]:
    sent = _object(value, key, ("value", "until"), required=("value", "until"))
    return {part: _date(sent[part], f"{key}.{part}", known) for part in ("value", "until")}


def _time(value: Any, key: str, known: References) -> dict[str, Any]:
    sent = _object(value, key, ("value", "timezone_id", "timezone_name"), required=("value",))
    return {"value": _clock(sent["value"], f"{key}.value", known), **_zone(sent)}


def _time_range(value: Any, key: str, known: References) -> dict[str, Any]:
    sent = _object(value, key, ("value", "until", "timezone_id", "timezone_name"), required=("value", "until"))
    times = {part: _clock(sent[part], f"{key}.{part}", known) for part in ("value", "until")}
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


_varchar = _string(_MAX_VARCHAR)
_CUSTOM: dict[str, _Check] = {
    "text": _string(_MAX_TEXT),
    "double": _number,
    "int": _integer,
    "date": _date,
    "daterange": _date_range,
    "time": _time,
    "timerange": _time_range,
    "set": _set,
    "enum": _integer,
    "address": _address,
    "monetary": _monetary,
    "org": _organization,
    "people": _person,
    "user": _owner,
}
_SHARED: dict[str, _Check] = {
    "name": _name,
    "owner_id": _owner,
    "visible_to": _visibility,
    "label_ids": _labels,
    "custom_fields": _custom_fields,
}
_PERSON: dict[str, _Check] = {
    "first_name": _name_part,
    "last_name": _name_part,
    "org_id": _organization,
    "emails": _contacts,
    "phones": _contacts,
    "marketing_status": _marketing_status,
}
_ORGANIZATION: dict[str, _Check] = {"address": _address}
_FIRMOGRAPHIC_CHECKS: dict[str, _Check] = {
    "varchar": _nullable(_varchar),
    "enum": _nullable(_integer),
    "double": _nullable(_integer),
    "int": _nullable(_integer),
}
