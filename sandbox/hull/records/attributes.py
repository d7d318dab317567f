"""Attribute writes: a message body of values and operations, applied to one Entity.

A value is written as it is, or as {"operation": set|setIfNull|inc|dec, "value": V} (`increment` and `decrement` are
the older spelling). Null removes the attribute. `traits_` before a name means nothing. The first value an attribute
gets in the organization fixes its type; later ones are cast, and what cannot be cast is refused, alone. Names in
`_at` or `_date` are instants. Sources: https://github.com/hull/hull-connectors
(packages/hull/src/helpers/operations.js, assets/partials/vm);
https://www.hull.io/docs/guides/advanced-usage/reserved-attributes/ (reserved names), …/getting-started/profiles/
(limits).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from sandbox.hull.records.entity import Attributes, Entity
from sandbox.hull.records.schema import Plan, Refused, Schema

MAX_ATTRIBUTES = 2_000  # per record
_ABSENT = object()
_SIGNS = {"inc": 1, "increment": 1, "dec": -1, "decrement": -1}

Changes = dict[str, tuple[Any, Any]]


def write_attributes(entity: Entity, body: Mapping[str, Any], schema: Schema, problems: list[str]) -> Changes:
    """Apply a body. Gives {name: (old, new)} of what really changed; refused attributes are named in `problems`."""
    stored, changes = entity.attributes, Changes()
    for key, given in body.items():
        plan = schema.plan(key)
        try:
            value = _operate(plan, stored, given) if type(given) is dict and "operation" in given else given
            if value is _ABSENT:
                continue
            if value is not None:
                value = plan.accept(value)
            _store(stored, plan.name, value, changes)
        except Refused as refusal:
            problems.append(f"{plan.name}: {refusal}")
    if entity.kind == "user" and not changes.keys().isdisjoint(("name", "first_name", "last_name")):
        _compose_name(stored, changes)
    return changes


def _operate(plan: Plan, stored: Attributes, given: Mapping[str, Any]) -> Any:
    """What the attribute shall be after the operation, or _ABSENT for "leave it"."""
    operation, value = given["operation"], given.get("value")
    if operation == "set":
        return value
    if operation == "setIfNull":
        return _ABSENT if stored.get(plan.name) is not None else value
    sign = _SIGNS.get(operation) if isinstance(operation, str) else None
    if sign is None:
        raise Refused(f"unknown operation {operation!r}")
    before = stored.get(plan.name, 0)
    if not (is_number(value) and is_number(before)):
        raise Refused(f"{operation} needs numbers, not {before!r} and {value!r}")
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
        if before is None and len(stored) >= MAX_ATTRIBUTES:
            raise Refused(f"a record holds no more than {MAX_ATTRIBUTES} attributes")
        stored[name] = value
    first = changes[name][0] if name in changes else before
    changes[name] = (first, value)


def _compose_name(stored: Attributes, changes: Changes) -> None:
    """Hull makes `name` of the first and last name wherever these are set."""
    parts = [str(stored[part]) for part in ("first_name", "last_name") if stored.get(part)]
    if parts:
        _store(stored, "name", " ".join(parts), changes)
