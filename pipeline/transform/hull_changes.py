"""Reads the `changes` of a message: which attributes Hull says have changed, and whether a User was linked.

    {"is_new": false, "user": {"plan": ["free", "pro"]}, "account": {"name": [None, "Acme"]}, "segments": {…}}

An item of a list that changed is named `attribute[0]`. Whatever is missing or malformed names no change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.kinds import Entity
from pipeline.transform.hull_reports import attribute_name

_ITEM: Final = re.compile(r"\[\d+\]$")
_OF_ACCOUNT: Final = "account."


def changed_attributes(message: Mapping[str, Any], entity: Entity) -> set[str]:
    """Name the attributes that changed as a mapping names them: those of a User's Account begin with `account.`."""
    own = {plain_name(name) for name in _changed(message, entity.hull)}
    if entity is Entity.ORGANIZATION:
        return own
    return own | {plain_name(_OF_ACCOUNT + name) for name in _changed(message, "account")}


def values_before(message: Mapping[str, Any], entity: Entity, name: str) -> list[Any]:
    """List what an attribute that changed held before, as far as the changes say."""
    pairs = [pair for changed, pair in _changed(message, entity.hull).items() if attribute_name(changed) == name]
    return [pair[0] for pair in pairs if isinstance(pair, list) and len(pair) == 2]


def plain_name(name: str) -> str:
    """Give the attribute a name means: without `traits_`, and for an item of a list the list."""
    whole = _ITEM.sub("", name)
    if whole.startswith(_OF_ACCOUNT):
        return _OF_ACCOUNT + attribute_name(whole.removeprefix(_OF_ACCOUNT))
    return attribute_name(whole)


def account_linked(message: Mapping[str, Any]) -> bool:
    """Tell whether a User got another Account, or its Account got a counterpart in Pipedrive."""
    changed = _changed(message, "account")
    linked = changed.get("id")
    is_linked = isinstance(linked, list | dict | str) and bool(linked)
    return is_linked or "pipedrive/id" in {plain_name(name) for name in changed}


def _changed(message: Mapping[str, Any], of: str) -> Mapping[str, Any]:
    changes = message.get("changes")
    changed = changes.get(of) if isinstance(changes, dict) else None
    return changed if isinstance(changed, dict) else {}
