"""Users and Accounts as Hull shows them, and the lists of attributes and events that a dashboard or connector offers to
choose from.

Ungrouped custom attributes of a User have the prefix `traits_`; grouped and built-in ones, and all of an Account's, do not.
Source: https://github.com/hull/hull-connectors (packages/hull/src/utils/trim-traits-prefix-from-user-message.js,
types/schema.js; packages/hull-client/src/utils/properties.js)
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sandbox.hull.identity import NATURAL_CLAIM, HullRecord, Kind, registrable_domain
from sandbox.hull.state import HullSegment, HullState, iso

Report = dict[str, Any]
BUILT_IN = frozenset((
    "name", "first_name", "last_name", "created_at", "domain", "phone", "address", "description", "image",
    "picture", "accepts_marketing", "approved", "last_known_ip", "last_seen_at", "last_contacted_at",
    "first_seen_at",
))  # fmt: skip
_IDENTITY_TYPES: dict[Kind, dict[str, str]] = {
    "user": {
        "id": "string",
        "email": "string",
        "external_id": "string",
        "anonymous_ids": "string",
        "segment_ids": "string",
    },
    "account": {
        "id": "string",
        "domain": "string",
        "external_id": "string",
        "anonymous_ids": "string",
        "segment_ids": "string",
    },
}
_TIMES = {"created_at": "date", "updated_at": "date"}


def user_report(state: HullState, user: HullRecord) -> Report:
    """Return the report of a User with its Account under `account`, or {} without one."""
    attributes = {report_key("user", name): value for name, value in user.attributes.items()}
    account = state.account_of(user)
    embedded = {} if account is None else account_report(state, account)
    return {**_identity(state, user), "domain": _user_domain(user), **attributes, "account": embedded}


def account_report(state: HullState, account: HullRecord) -> Report:
    return {**_identity(state, account), **account.attributes}


def report_of(state: HullState, entity: HullRecord) -> Report:
    return user_report(state, entity) if entity.kind == "user" else account_report(state, entity)


def plain_record(state: HullState, entity: HullRecord) -> Report:
    """The complete record without prefixes, the Account as `account_id`: for comparing, not for connectors."""
    record = {**_identity(state, entity), **entity.attributes}
    return {**record, "account_id": entity.account_id} if entity.kind == "user" else record


def segment_object(segment: HullSegment) -> dict[str, Any]:
    return {
        "id": segment.id,
        "name": segment.name,
        "type": f"{segment.kind}s_segment",
        "created_at": iso(segment.created_at),
        "updated_at": iso(segment.updated_at),
        "stats": {f"{segment.kind}s": len(segment.members)},
    }


def report_key(kind: Kind, name: str) -> str:
    custom = kind == "user" and "/" not in name and name not in BUILT_IN
    return f"traits_{name}" if custom else name


def _identity(state: HullState, entity: HullRecord) -> Report:
    return {
        "id": entity.id,
        NATURAL_CLAIM[entity.kind]: entity.natural,
        "external_id": entity.external_id,
        "anonymous_ids": list(entity.anonymous_ids),
        "segment_ids": [segment.id for segment in state.segments.holding(entity.kind, entity.id)],
        "created_at": iso(entity.created_at),
        "updated_at": iso(entity.updated_at),
        "indexed_at": iso(entity.updated_at),
    }


def _user_domain(user: HullRecord) -> str | None:
    """Filled from the e-mail; a written attribute of that name replaces it."""
    return registrable_domain(user.natural.rpartition("@")[2]) if user.natural else None


def schema_of(state: HullState, kind: Kind) -> list[dict[str, Any]]:
    """[{"key", "type", "configurable", "visible", "track_changes"}], sorted by key."""
    return [
        {"key": key, "type": type_, "configurable": True, "visible": True, "track_changes": False}
        for key, type_ in sorted(_types(state, kind).items())
    ]


def attribute_tree(state: HullState, kind: Kind) -> dict[str, Any]:
    """Built-in attributes, then custom ones, then a branch per group ("pipedrive")."""
    top: list[dict[str, str]] = []
    custom: list[dict[str, Any]] = []
    groups: dict[str, list[dict[str, str]]] = {}
    for key, type_ in sorted(_types(state, kind).items()):
        group, slash, name = key.partition("/")
        if slash:
            groups.setdefault(group, []).append({"id": key, "text": name, "type": type_})
        else:
            leaf = {"id": key, "text": key.removeprefix("traits_"), "type": type_}
            (top if key in BUILT_IN | _IDENTITY_TYPES[kind].keys() | _TIMES.keys() else custom).append(leaf)
    branches = [{"text": group, "children": children} for group, children in groups.items()]
    title = "User" if kind == "user" else "Account"
    return {
        "version": "new",
        "tree": [{"text": title, "children": top}, {"text": "Traits", "children": [*custom, *branches]}],
    }


def event_list(state: HullState) -> list[dict[str, Any]]:
    emitted: Counter[str] = Counter()
    properties: dict[str, set[str]] = {}
    for user in state.users:
        for event in (user.events or {}).values():
            name = str(event["event"])
            emitted[name] += 1
            properties.setdefault(name, set()).update(event.get("properties") or {})
    return [
        {"name": name, "properties": sorted(properties[name]), "emitted": emitted[name]} for name in sorted(emitted)
    ]


def _types(state: HullState, kind: Kind) -> dict[str, str]:
    attributes = state.schemas[kind].attributes.values()
    known = {report_key(kind, attribute.name): attribute.type for attribute in attributes if attribute.type is not None}
    return known | _IDENTITY_TYPES[kind] | _TIMES
