"""Attributes: a message body of values and operations applied to one record, and records found by the value of an attribute.

A value is written as it is, or as {"operation": set|setIfNull|inc|dec, "value": V} (`increment` and `decrement` are the
older spelling). Null removes the attribute. `traits_` before a name means nothing. The first value an attribute gets in the
organization fixes its type, and a list has the type of its items; later values are cast, and what cannot be cast is refused,
alone. Names in `_at` or `_date` are instants. Sources: https://github.com/hull/hull-connectors
(packages/hull/src/helpers/operations.js, assets/partials/vm);
https://www.hull.io/docs/guides/advanced-usage/reserved-attributes/ and …/getting-started/profiles/ (limits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

import orjson

from sandbox.hull.identity import Attributes, Directory, HullRecord, Kind, registrable_domain

Changes = dict[str, tuple[Any, Any]]
_MAX_ATTRIBUTES = 2_000  # per record
_MAX_VALUE_BYTES = 2_048
#: seconds beyond this are milliseconds (the year 5138 in seconds, 1973 in milliseconds)
_MILLISECONDS_FROM = 100_000_000_000
_COMPUTED = frozenset(
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
_RESERVED_TYPES = {"accepts_marketing": "boolean", "approved": "boolean"} | dict.fromkeys(
    ("name", "first_name", "last_name", "phone", "address", "description", "image", "picture"), "string"
)
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
_SIGNS = {"inc": 1, "increment": 1, "dec": -1, "decrement": -1}
_ABSENT = object()


class AttributeRefused(ValueError):
    """This value is not written; the rest of the message is."""


def write_attributes(entity: HullRecord, body: Mapping[str, Any], schema: Schema, problems: list[str]) -> Changes:
    """Apply a body. Return {name: (old, new)} of what changed; refused attributes are named in `problems`."""
    stored, changes = entity.attributes, Changes()
    for key, given in body.items():
        attribute = schema.attribute(key)
        try:
            value = _operate(attribute, stored, given) if type(given) is dict and "operation" in given else given
            if value is _ABSENT:
                continue
            if value is not None:
                value = attribute.accept(value)
            _store(stored, attribute.name, value, changes)
        except AttributeRefused as refusal:
            problems.append(f"{attribute.name}: {refusal}")
    if entity.kind == "user" and not changes.keys().isdisjoint(("name", "first_name", "last_name")):
        _compose_name(stored, changes)
    return changes


def _operate(attribute: AttributeType, stored: Attributes, given: Mapping[str, Any]) -> Any:
    """Return the value after the operation, or _ABSENT to leave it."""
    operation, value = given["operation"], given.get("value")
    if operation == "set":
        return value
    if operation == "setIfNull":
        return _ABSENT if stored.get(attribute.name) is not None else value
    sign = _SIGNS.get(operation) if isinstance(operation, str) else None
    if sign is None:
        raise AttributeRefused(f"unknown operation {operation!r}")
    before = stored.get(attribute.name, 0)
    if not (is_number(value) and is_number(before)):
        raise AttributeRefused(f"{operation} needs numbers, not {before!r} and {value!r}")
    return before + sign * value


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _store(stored: Attributes, name: str, value: Any, changes: Changes) -> None:
    before = stored.get(name)
    if before == value:
        return
    if value is None:
        del stored[name]
    else:
        if before is None and len(stored) >= _MAX_ATTRIBUTES:
            raise AttributeRefused(f"a record holds no more than {_MAX_ATTRIBUTES} attributes")
        stored[name] = value
    first = changes[name][0] if name in changes else before
    changes[name] = (first, value)


def _compose_name(stored: Attributes, changes: Changes) -> None:
    """Hull makes `name` of the first and last name wherever these are set."""
    parts = [str(stored[part]) for part in ("first_name", "last_name") if stored.get(part)]
    if parts:
        _store(stored, "name", " ".join(parts), changes)


class Schema:
    """All attribute names seen so far, of Users or of Accounts."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.attributes: dict[str, AttributeType] = {}
        self._by_key: dict[str, AttributeType] = {}

    def attribute(self, key: str) -> AttributeType:
        """`traits_plan` and `plan` are one attribute."""
        found = self._by_key.get(key)
        return found if found is not None else self._learn(key)

    def _learn(self, key: str) -> AttributeType:
        name = key.removeprefix("traits_")
        attribute = self.attributes.get(name)
        if attribute is None:
            attribute = self.attributes[name] = AttributeType(name, self.kind)
        self._by_key[key] = attribute
        return attribute


class AttributeType:
    """One attribute name. The first value sets `type`."""

    __slots__ = ("accept", "name", "type")

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.type: str | None = _RESERVED_TYPES.get(name)
        self.accept: Callable[[Any], Any] = self._cast
        if name in _COMPUTED:
            self.accept = _refuse_computed
        elif name.endswith(("_at", "_date")):
            self.type = "date"
        elif name == "domain" and kind == "user":
            self.type, self.accept = "string", _user_domain

    def _cast(self, value: Any) -> Any:
        """Bring a value (never None) to the attribute's type, or fix that type."""
        if type(value) is str and self.type == "string" and len(value) <= _MAX_VALUE_BYTES // 4:
            return value
        if self.type is None:
            self.type = _type_of(value)
        if self.type is not None and self.type != "json":
            cast = _CASTS[self.type]
            value = [cast(item) for item in value if item is not None] if isinstance(value, list) else cast(value)
        if isinstance(value, str | list | dict) and len(orjson.dumps(value)) > _MAX_VALUE_BYTES:
            raise AttributeRefused(f"longer than {_MAX_VALUE_BYTES} bytes")
        return value


def _type_of(value: Any) -> str | None:
    if isinstance(value, list):
        return next((_type_of(item) for item in value if item is not None), None)
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "json"


def _to_date(value: Any) -> str:
    """Unix seconds, Unix milliseconds or ISO 8601 → "YYYY-MM-DDTHH:MM:SSZ". Without a zone it is UTC."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            moment = datetime.fromisoformat(value.strip())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        elif isinstance(value, bool):
            raise AttributeRefused(f"{value!r} is not a date")
        else:
            seconds = float(value)
            moment = datetime.fromtimestamp(seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds, UTC)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise AttributeRefused(f"{value!r} is not a date") from error
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _to_string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise AttributeRefused(f"{value!r} is not a string")


def _to_number(value: Any) -> int | float:
    try:
        if isinstance(value, str):
            return float(value) if "." in value or "e" in value.lower() else int(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
    except ValueError as error:
        raise AttributeRefused(f"{value!r} is not a number") from error
    raise AttributeRefused(f"{value!r} is not a number")


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    truth = _TRUTH.get(str(value).lower()) if isinstance(value, str | int) else None
    if truth is None:
        raise AttributeRefused(f"{value!r} is not a boolean")
    return truth


def _user_domain(value: Any) -> str:
    domain = registrable_domain(value) if isinstance(value, str) else None
    if domain is None:
        raise AttributeRefused(f"{value!r} is not a domain")
    return domain


def _refuse_computed(value: Any) -> Any:
    raise AttributeRefused(f"computed by Hull, {value!r} is not written")


_CASTS: dict[str, Callable[[Any], Any]] = {
    "string": _to_string,
    "number": _to_number,
    "boolean": _to_boolean,
    "date": _to_date,
}


class AttributeLookup:
    """attribute name → comparable value → ids of the records holding it."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._indexes: dict[str, dict[str, set[str]]] = {}

    def holders(self, name: str, value: Any) -> set[str]:
        """Return the ids of the records with this value in the attribute or in its list."""
        if name not in self._indexes:
            self._indexes[name] = self._build(name)
        return self._indexes[name].get(comparable(value), set())

    def numbers(self, name: str) -> Iterator[tuple[float, set[str]]]:
        """Yield (number, ids of the records with that number) from the index, in no order."""
        self.holders(name, None)
        for value, hull_ids in self._indexes[name].items():
            if value.removeprefix("-").replace(".", "", 1).isdecimal():
                yield float(value), hull_ids

    def note(self, entity: HullRecord, changes: Changes) -> None:
        for name, index in self._indexes.items():
            if name in changes:
                old, new = changes[name]
                _take(index, entity.id, old)
                _put(index, entity.id, new)

    def forget(self, entity: HullRecord) -> None:
        for name, index in self._indexes.items():
            _take(index, entity.id, entity.attributes.get(name))

    def _build(self, name: str) -> dict[str, set[str]]:
        index: dict[str, set[str]] = {}
        for entity in self._directory:
            _put(index, entity.id, entity.attributes.get(name))
        return index


def comparable(value: Any) -> str:
    """12, 12.0 and "12" are one search term, as they are to Hull's search index."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _items(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def _put(index: dict[str, set[str]], hull_id: str, value: Any) -> None:
    for item in _items(value):
        index.setdefault(comparable(item), set()).add(hull_id)


def _take(index: dict[str, set[str]], hull_id: str, value: Any) -> None:
    for item in _items(value):
        index.get(comparable(item), set()).discard(hull_id)
