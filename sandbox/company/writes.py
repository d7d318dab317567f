"""Judge what a client wants to write, and turn it into record members.

In: the JSON body of a create or an update. Out: the members it sets, in v2 shape, complete (labels, primaries, address parts).
Rules: https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide and the request schemas of the v2 OpenAPI file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.company import checks
from sandbox.company.checks import Check, Context, Invalid
from sandbox.company.custom_values import custom_fields, varchar
from sandbox.company.fields import FIRMOGRAPHICS, Entity

VISIBILITIES = (1, 3, 5, 7)
MARKETING_STATUSES = ("no_consent", "unsubscribed", "subscribed", "archived")


def judge(entity: Entity, body: Mapping[str, Any], context: Context, *, creating: bool) -> dict[str, Any]:
    """Turn a body into the members it sets. `custom_fields` holds only the codes that were sent.

    Raises: Invalid.
    """
    allowed = _allowed(entity, context, creating=creating)
    for key in body:
        if key not in allowed:
            raise Invalid(f"{key}: unknown parameter")
    members = {key: allowed[key](value, key, context) for key, value in body.items()}
    members.pop("marketing_status", None)
    if entity == "person":
        members = _with_names(members, creating=creating)
    elif creating and "name" not in members:
        raise Invalid("name: Required")
    return members


def _allowed(entity: Entity, context: Context, *, creating: bool) -> dict[str, Check]:
    own = _PERSON if entity == "person" else _ORGANIZATION
    allowed = {**_SHARED, **own}
    if creating:
        allowed["add_time"] = checks.moment
    if entity == "organization" and context.firmographics:
        allowed |= {code: _FIRMOGRAPHIC_CHECKS[kind] for code, _, kind in FIRMOGRAPHICS}
    return allowed


def _with_names(members: dict[str, Any], *, creating: bool) -> dict[str, Any]:
    """Keep `name` and its two parts in step: the first word is the first name, the rest the last."""
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


def _name(value: Any, key: str, _: Context) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"{key}: must be a non-empty string")
    return value


def _name_part(value: Any, key: str, _: Context) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{key}: must be a string")
    return value


def _visibility(value: Any, key: str, context: Context) -> int:
    if checks.integer(value, key, context) not in VISIBILITIES:
        raise Invalid(f"{key}: must be one of 1, 3, 5, 7")
    return int(value)


def _labels(value: Any, key: str, context: Context) -> list[int]:
    if not isinstance(value, list):
        raise Invalid(f"{key}: must be an array")
    for label in value:
        if checks.integer(label, key, context) not in context.label_ids:
            raise Invalid(f"{key}: label {label} was not found")
    return list(dict.fromkeys(value))


def _contacts(value: Any, key: str, _: Context) -> list[dict[str, Any]]:
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


def _marketing_status(value: Any, key: str, _: Context) -> str:
    """Accept it and, like a company without the marketing add-on, keep nothing of it."""
    if value not in MARKETING_STATUSES:
        raise Invalid(f"{key}: must be one of {', '.join(MARKETING_STATUSES)}")
    return str(value)


_SHARED: dict[str, Check] = {
    "name": _name,
    "owner_id": checks.owner,
    "visible_to": _visibility,
    "label_ids": _labels,
    "custom_fields": custom_fields,
}
_PERSON: dict[str, Check] = {
    "first_name": _name_part,
    "last_name": _name_part,
    "org_id": checks.organization,
    "emails": _contacts,
    "phones": _contacts,
    "marketing_status": _marketing_status,
}
_ORGANIZATION: dict[str, Check] = {"address": checks.address}
_FIRMOGRAPHIC_CHECKS: dict[str, Check] = {
    "varchar": checks.nullable(varchar),
    "enum": checks.nullable(checks.integer),
    "double": checks.nullable(checks.integer),
    "int": checks.nullable(checks.integer),
}
