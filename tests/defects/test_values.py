"""Values, both ways: what was emptied, and what the two sides spell differently."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.hull_messages import (
    account,
    fetch_everything,
    field_code,
    organization,
    person,
    send_messages,
    user,
    writes,
)
from tests.system import SyncSystem

SPELLINGS: list[tuple[str, Any, dict[str, Any]]] = [
    ("Lead source", {"label": "Referral"}, {"x": "Referral"}),
    ("Interests", {"labels": ["Product news", "Events"]}, {"x": ["Product news", "Events"]}),
    ("Credit limit", {"value": 1200.5, "currency": "SEK"}, {"x": 1200.5, "x_currency": "SEK"}),
    ("Customer since", "2026-03-01", {"x": "2026-03-01"}),
    ("Contract period", {"value": "2026-03-01", "until": "2026-04-01"}, {"x": "2026-03-01", "x_until": "2026-04-01"}),
    ("Preferred call time", {"value": "09:30:00"}, {"x": "09:30:00"}),
    ("Office hours", {"value": "09:30:00", "until": "17:00:00"}, {"x": "09:30:00", "x_until": "17:00:00"}),
]
"""(custom field, its value in Pipedrive with labels for option ids, the same as attributes in Hull)"""
SPELLED = pytest.mark.parametrize(("name", "value", "attributes"), SPELLINGS, ids=[row[0] for row in SPELLINGS])


def wire(system: SyncSystem, name: str, value: Any) -> Any:
    """The value as Pipedrive holds it: options by their ids."""
    options = next(field.options for field in system.company.custom_fields("person") if field.name == name)
    ids = {option.label: option.id for option in options}
    if isinstance(value, dict) and "label" in value:
        return ids[value["label"]]
    if isinstance(value, dict) and "labels" in value:
        return [ids[label] for label in value["labels"]]
    return value


def rows(field: str, attributes: dict[str, Any]) -> list[dict[str, str]]:
    """The mapping of a field and its parts."""
    return [{"hull": name, "service": field + name.removeprefix("x")} for name in attributes]


@pytest.mark.defect(16, "Options, money, dates and times went to Hull as ids and raw objects.")
@SPELLED
def test_hull_gets_labels_and_plain_values(
    system: SyncSystem, name: str, value: Any, attributes: dict[str, Any]
) -> None:
    field = field_code(system, "person", name)
    system.change_settings(incoming_user_attributes=[{"hull": "x", "service": field}])
    system.company.create_person(name="Ann", custom_fields={field: wire(system, name, value)})

    system.fetch(Entity.PERSON)

    assert {each: system.users()[1].get(each) for each in attributes} == attributes


@pytest.mark.defect(16, "The same attributes were written to Pipedrive as they were, whatever their fields take.")
@SPELLED
def test_pipedrive_gets_what_its_fields_take(
    system: SyncSystem, name: str, value: Any, attributes: dict[str, Any]
) -> None:
    field = field_code(system, "person", name)
    system.change_settings(outgoing_user_attributes=rows(field, attributes))
    ann = system.company.create_person(name="Ann")["id"]
    fetch_everything(system)

    send_messages(system, user(system.users()[ann]["id"], **attributes))

    held, wanted = person(system, ann)["custom_fields"][field], wire(system, name, value)
    assert held == wanted or {each: held[each] for each in wanted} == wanted  # Pipedrive adds the zone to a time


EMPTIED = [("person", "users", "phones", []), ("organization", "accounts", "address", None)]
"""(entity, how Hull's records are read, field, what empties it)"""


@pytest.mark.defect(16, "A field that was emptied in Pipedrive kept its value in Hull.")
@pytest.mark.parametrize("by_webhook", [False, True], ids=["fetch", "webhook"])
@pytest.mark.parametrize(("kind", "read", "field", "nothing"), EMPTIED, ids=["user", "account"])
def test_what_is_emptied_in_pipedrive_is_emptied_in_hull(
    system: SyncSystem, kind: Any, read: str, field: str, nothing: Any, by_webhook: bool
) -> None:
    system.change_settings(**{f"incoming_{Entity(kind).hull}_attributes": [{"hull": "x", "service": field}]})
    value = {"phones": [{"value": "+1 555", "primary": True}], "address": {"value": "1 Main St"}}[field]
    system.company.create(kind, {"name": "Ann", field: value})
    fetch_everything(system)
    before, said = getattr(system, read)()[1]["x"], listen(system)

    system.company.edit(kind, 1, {field: nothing})
    if by_webhook:
        deliver(system, *said)
        system.work()
    else:
        system.fetch(Entity(kind))

    assert (before is not None, getattr(system, read)()[1].get("x")) == (True, None)


@pytest.mark.defect(16, "An attribute that was emptied in Hull kept its value in Pipedrive.")
def test_what_is_emptied_in_hull_is_emptied_in_pipedrive(system: SyncSystem) -> None:
    number, notes = field_code(system, "person", "Customer number"), field_code(system, "organization", "Support notes")
    system.change_settings(
        outgoing_user_attributes=[{"hull": "number", "service": number}],
        outgoing_account_attributes=[{"hull": "notes", "service": notes}],
    )
    system.company.create_person(name="Ann", custom_fields={number: "C-1"})
    system.company.create_organization(name="Acme", custom_fields={notes: "Calls at night"})
    fetch_everything(system)

    send_messages(system, user(system.users()[1]["id"], number="C-1"))
    send_messages(system, account(system.accounts()[1]["id"], notes="Calls at night"))
    send_messages(system, user(system.users()[1]["id"], number=None))
    send_messages(system, account(system.accounts()[1]["id"], notes=None))

    assert person(system, 1)["custom_fields"][number] is None
    assert organization(system, 1)["custom_fields"][notes] is None
    assert [method for method, _, _ in writes(system)] == ["PATCH", "PATCH"]
