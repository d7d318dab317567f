"""What is known of every attribute name: its type, and how a value becomes one of that type.

Hull fixes an attribute's type with the first value written in the organization. A list has the type of what it holds.
Source: https://www.hull.io/docs/guides/advanced-usage/reserved-attributes/ and …/getting-started/profiles/
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from sandbox.hull.records.domains import registrable_domain
from sandbox.hull.records.entity import Kind

MAX_VALUE_BYTES = 2_048
#: seconds beyond this are milliseconds (the year 5138 in seconds, 1973 in milliseconds)
MILLISECONDS_FROM = 100_000_000_000
COMPUTED = frozenset(
    {"id", "anonymous_id", "anonymous_ids", "segment_ids", "account", "account_id", "updated_at", "indexed_at", "uids"}
    | {"contact_email"}
)
IDENTIFYING: dict[Kind, frozenset[str]] = {
    "user": frozenset(("email", "external_id")),
    "account": frozenset(("domain", "external_id")),
}
IDENTIFYING_KEYS: dict[Kind, frozenset[str]] = {
    kind: names | {f"traits_{name}" for name in names} for kind, names in IDENTIFYING.items()
}
RESERVED_TYPES = {"accepts_marketing": "boolean", "approved": "boolean"} | dict.fromkeys(
    ("name", "first_name", "last_name", "phone", "address", "description", "image", "picture"), "string"
)
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


class Refused(ValueError):
    """This value is not written; the rest of the message is."""


class Plan:
    """One attribute name. `type` is None until a first value fixes it."""

    __slots__ = ("accept", "name", "type")

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.type: str | None = RESERVED_TYPES.get(name)
        self.accept: Callable[[Any], Any] = self._cast
        if name in COMPUTED:
            self.accept = _refuse_computed
        elif name.endswith(("_at", "_date")):
            self.type = "date"
        elif name == "domain" and kind == "user":
            self.type, self.accept = "string", _user_domain

    def _cast(self, value: Any) -> Any:
        """Bring a value (never None) to the attribute's type, or fix that type."""
        if type(value) is str and self.type == "string" and len(value) <= MAX_VALUE_BYTES // 4:
            return value
        if self.type is None:
            self.type = _type_of(value)
        if self.type is not None and self.type != "json":
            cast = _CASTS[self.type]
            value = [cast(item) for item in value if item is not None] if isinstance(value, list) else cast(value)
        if isinstance(value, str | list | dict) and len(orjson.dumps(value)) > MAX_VALUE_BYTES:
            raise Refused(f"longer than {MAX_VALUE_BYTES} bytes")
        return value


class Schema:
    """All attribute names met so far for Users or for Accounts."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.plans: dict[str, Plan] = {}
        self._by_key: dict[str, Plan] = {}

    def plan(self, key: str) -> Plan:
        """`traits_plan` and `plan` are one attribute."""
        found = self._by_key.get(key)
        return found if found is not None else self._learn(key)

    def _learn(self, key: str) -> Plan:
        name = key.removeprefix("traits_")
        plan = self.plans.get(name)
        if plan is None:
            plan = self.plans[name] = Plan(name, self.kind)
        self._by_key[key] = plan
        return plan


def _type_of(value: Any) -> str | None:
    if isinstance(value, list):
        return next((_type_of(item) for item in value if item is not None), None)
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "json"


def to_date(value: Any) -> str:
    """Unix seconds, Unix milliseconds or ISO 8601 → "YYYY-MM-DDTHH:MM:SSZ". Without a zone it is UTC."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            moment = datetime.fromisoformat(value.strip())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        elif isinstance(value, bool):
            raise Refused(f"{value!r} is no date")
        else:
            seconds = float(value)
            moment = datetime.fromtimestamp(seconds / 1000 if seconds >= MILLISECONDS_FROM else seconds, UTC)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise Refused(f"{value!r} is no date") from error
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _to_string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise Refused(f"{value!r} is no string")


def _to_number(value: Any) -> int | float:
    try:
        if isinstance(value, str):
            return float(value) if "." in value or "e" in value.lower() else int(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    except ValueError as error:
        raise Refused(f"{value!r} is no number") from error
    raise Refused(f"{value!r} is no number")


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    truth = _TRUTH.get(str(value).lower()) if isinstance(value, str | int) else None
    if truth is None:
        raise Refused(f"{value!r} is no boolean")
    return truth


def _user_domain(value: Any) -> str:
    domain = registrable_domain(value) if isinstance(value, str) else None
    if domain is None:
        raise Refused(f"{value!r} is no domain")
    return domain


def _refuse_computed(value: Any) -> Any:
    raise Refused(f"computed by Hull, {value!r} is not written")


_CASTS: dict[str, Callable[[Any], Any]] = {
    "string": _to_string,
    "number": _to_number,
    "boolean": _to_boolean,
    "date": to_date,
}
