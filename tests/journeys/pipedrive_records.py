"""Records of Pipedrive for the journeys, and what Hull must show of them."""

from __future__ import annotations

import json
from typing import Any

from pipeline.domain.kinds import Entity
from tests.system import SyncSystem

PAGE = 50
"""Records of a page in tests, see `tests/conftest.py`."""

LONG_AGO = "2026-01-01T00:00:00Z"


def create_records(system: SyncSystem, persons: int = 120, organizations: int = 40) -> None:
    """Create numbered Persons with an e-mail each. Four of five belong to an Organization."""
    for number in range(1, organizations + 1):
        system.company.create_organization(name=f"Org {number}", website=f"https://www.org{number}.test.example.com")
    for number in range(1, persons + 1):
        system.company.create_person(
            name=f"Person {number}",
            emails=[{"value": f"p{number}@example.com", "primary": True}],
            org_id=number % organizations + 1 if organizations and number % 5 else None,
        )


def age_records(system: SyncSystem, entity: Entity = Entity.PERSON) -> None:
    """Make all records old: no catch-up walk reads them, and an edit has a later time."""
    for body in list(system.company.export(entity.value)):
        record = json.loads(body)
        record["update_time"] = record["add_time"] = LONG_AGO
        system.company.load(entity.value, record)


def hull_names(system: SyncSystem) -> dict[int, Any]:
    """Return Pipedrive id → name in Hull."""
    return {pipedrive_id: user["pipedrive/name"] for pipedrive_id, user in system.users().items()}


def pipedrive_names(system: SyncSystem, entity: Entity = Entity.PERSON) -> dict[int, Any]:
    """Return Pipedrive id → name in Pipedrive."""
    records = map(json.loads, system.company.export(entity.value))
    return {record["id"]: record["name"] for record in records}


OMITTED = object()


def raw_person(**members: Any) -> dict[str, Any]:
    """Return a Person as API v2 does, with these members replaced, or left out if OMITTED."""
    whole = {
        "id": 10,
        "name": "Odd",
        "first_name": "Odd",
        "last_name": None,
        "add_time": LONG_AGO,
        "update_time": LONG_AGO,
        "emails": [{"value": "odd@example.com", "primary": True, "label": "work"}],
        "phones": [],
        "owner_id": 1,
        "org_id": None,
        "visible_to": 3,
        "label_ids": [],
        "picture_id": None,
        "is_deleted": False,
        "custom_fields": {},
    }
    changed = whole | members
    return {name: value for name, value in changed.items() if value is not OMITTED}
