"""Decide the name of a record in Pipedrive, for which a whole name and its two parts are one value.

A write has `name`, or both `first_name` and `last_name`, one of which may be empty; Pipedrive sets the others.
Source: https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide (Persons API)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected
from pipeline.transform.hull_reports import find_attribute

_MAX_CHARS: Final = 255


def settle_names(names: Mapping[str, Any], snapshot: Mapping[str, Any] | None) -> dict[str, Any]:
    """Choose between a whole name and its parts.

    Shape:  wanted values of `name, first_name, last_name`; snapshot → what to write of them, {} for no change
    Both parts win over the whole name, which has less information; one part alone loses against it.
    Raises: Rejected("name_missing") if a name would be emptied.
    """
    current = snapshot or {}
    parts = [key for key in ("first_name", "last_name") if key in names]
    if len(parts) == 2 or (parts and "name" not in names):
        wanted = {key: (names[key] if key in names else current.get(key)) or "" for key in ("first_name", "last_name")}
        if any(wanted.values()):
            same = all((current.get(key) or "").strip() == value for key, value in wanted.items())
            return {} if same and snapshot is not None else wanted
    if "name" not in names and not parts:
        return {}
    name = names.get("name")
    if not name:
        raise Rejected("name_missing", "a record of Pipedrive cannot be without a name")
    return {"name": name}


def name_for_create(entity: Entity, report: Mapping[str, Any]) -> str:
    """Return a name for a new record without a mapped name.

    Raises: Rejected("name_missing").
    """
    first_and_last = " ".join(filter(None, (_text(report, "first_name"), _text(report, "last_name"))))
    named = {
        Entity.PERSON: (_text(report, "name"), first_and_last, _text(report, "email"), _text(report, "external_id")),
        Entity.ORGANIZATION: (_text(report, "name"), _text(report, "domain"), _text(report, "external_id")),
    }[entity]
    name = next((one for one in named if one), None)
    if name is None:
        raise Rejected("name_missing", "the record has no name, e-mail, domain or external id")
    return name[:_MAX_CHARS]


def _text(report: Mapping[str, Any], attribute: str) -> str:
    value = find_attribute(report, attribute)
    return value.strip() if isinstance(value, str) else ""
