"""The lists a dashboard or connector offers to choose from: attributes with their types, and events.

Source: https://github.com/hull/hull-connectors (packages/hull/src/types/schema.js,
packages/hull-client/src/utils/properties.js)
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sandbox.hull.records.entity import Kind
from sandbox.hull.state import HullState
from sandbox.hull.web.reports import BUILT_IN, report_key

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
    plans = state.schemas[kind].plans.values()
    known = {report_key(kind, plan.name): plan.type for plan in plans if plan.type is not None}
    return known | _IDENTITY_TYPES[kind] | _TIMES
