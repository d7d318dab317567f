"""Values of Pipedrive as Hull shows them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.hull_messages import field_code
from tests.system import SyncSystem

VALUES: list[tuple[str, Any, dict[str, Any]]] = [
    ("Lead source", "Referral", {"": "Referral"}),
    ("Interests", ["Product news", "Events"], {"": ["Product news", "Events"]}),
    ("Credit limit", {"value": 1200.5, "currency": "SEK"}, {"": 1200.5, "_currency": "SEK"}),
    ("Customer since", "2026-03-01", {"": "2026-03-01"}),
    ("Contract period", {"value": "2026-03-01", "until": "2026-04-01"}, {"": "2026-03-01", "_until": "2026-04-01"}),
    ("Preferred call time", {"value": "09:30:00"}, {"": "09:30:00"}),
    ("Office hours", {"value": "09:30:00", "until": "17:00:00"}, {"": "09:30:00", "_until": "17:00:00"}),
]
"""(custom field, its value in Pipedrive with labels for option ids, suffix of the attribute → its value in Hull)"""


@pytest.mark.defect(16, "Options, money, dates and times went to Hull as ids and raw objects.")
def test_hull_gets_labels_and_plain_values(system: SyncSystem) -> None:
    options = {
        field.name: {option.label: option.id for option in field.options}
        for field in system.company.custom_fields("person")
    }
    codes = {name: field_code(system, "person", name) for name, _, _ in VALUES}
    stored = {codes[name]: _with_option_ids(value, options[name]) for name, value, _ in VALUES}
    system.change_settings(incoming_user_attributes=[{"hull": code, "service": code} for code in codes.values()])
    system.company.create_person(name="Ada", custom_fields=stored)

    system.fetch(Entity.PERSON)

    (user,) = system.users().values()
    expected = {codes[name] + suffix: value for name, _, parts in VALUES for suffix, value in parts.items()}
    assert {name: user.get(name) for name in expected} == expected


def _with_option_ids(value: Any, ids: dict[str, int]) -> Any:
    return [ids[label] for label in value] if isinstance(value, list) else ids.get(value, value) if ids else value


@pytest.mark.defect(16, "A field that was emptied in Pipedrive kept its value in Hull.")
@pytest.mark.parametrize("by_webhook", [False, True], ids=["fetch", "webhook"])
def test_a_field_that_is_emptied_in_pipedrive_is_emptied_in_hull(system: SyncSystem, by_webhook: bool) -> None:
    system.change_settings(
        incoming_user_attributes=[{"hull": "x", "service": "phones"}],
        incoming_account_attributes=[{"hull": "x", "service": "address"}],
    )
    system.company.create_person(name="Ada", phones=[{"value": "+1 555", "primary": True}])
    system.company.create_organization(name="Acme", address={"value": "1 Main St"})
    for entity in Entity:
        system.fetch(entity)
    before = [system.users()[1].get("x"), system.accounts()[1].get("x")]
    received = listen(system)

    system.company.edit_person(1, phones=[])
    system.company.edit_organization(1, address=None)
    if by_webhook:
        deliver(system, *received)
        system.work()
    else:
        for entity in Entity:
            system.fetch(entity)

    assert None not in before
    assert (system.users()[1].get("x"), system.accounts()[1].get("x")) == (None, None)
