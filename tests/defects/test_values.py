"""Values, both ways: what was emptied, and what the two sides spell differently."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.told_by_hull import account, code, know_everything, organization, person, say, user, writes
from tests.world import World

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


def wire(world: World, name: str, value: Any) -> Any:
    """The value as Pipedrive holds it: options by their ids."""
    options = next(field.options for field in world.company.custom_fields("person") if field.name == name)
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
def test_hull_gets_labels_and_plain_values(world: World, name: str, value: Any, attributes: dict[str, Any]) -> None:
    field = code(world, "person", name)
    world.change_settings(incoming_user_attributes=[{"hull": "x", "service": field}])
    world.company.create_person(name="Ann", custom_fields={field: wire(world, name, value)})

    world.fetch(Entity.PERSON)

    assert {each: world.users()[1].get(each) for each in attributes} == attributes


@pytest.mark.defect(16, "The same attributes were written to Pipedrive as they were, whatever their fields take.")
@SPELLED
def test_pipedrive_gets_what_its_fields_take(world: World, name: str, value: Any, attributes: dict[str, Any]) -> None:
    field = code(world, "person", name)
    world.change_settings(outgoing_user_attributes=rows(field, attributes))
    ann = world.company.create_person(name="Ann")["id"]
    know_everything(world)

    say(world, user(world.users()[ann]["id"], **attributes))

    held, wanted = person(world, ann)["custom_fields"][field], wire(world, name, value)
    assert held == wanted or {each: held[each] for each in wanted} == wanted  # Pipedrive adds the zone to a time


EMPTIED = [("person", "users", "phones", []), ("organization", "accounts", "address", None)]
"""(entity, how Hull's records are read, field, what empties it)"""


@pytest.mark.defect(16, "A field that was emptied in Pipedrive kept its value in Hull.")
@pytest.mark.parametrize("by_webhook", [False, True], ids=["fetch", "webhook"])
@pytest.mark.parametrize(("kind", "read", "field", "nothing"), EMPTIED, ids=["user", "account"])
def test_what_is_emptied_in_pipedrive_is_emptied_in_hull(
    world: World, kind: Any, read: str, field: str, nothing: Any, by_webhook: bool
) -> None:
    world.change_settings(**{f"incoming_{Entity(kind).hull}_attributes": [{"hull": "x", "service": field}]})
    value = {"phones": [{"value": "+1 555", "primary": True}], "address": {"value": "1 Main St"}}[field]
    world.company.create(kind, {"name": "Ann", field: value})
    know_everything(world)
    before, said = getattr(world, read)()[1]["x"], listen(world)

    world.company.edit(kind, 1, {field: nothing})
    if by_webhook:
        deliver(world, *said)
        world.work()
    else:
        world.fetch(Entity(kind))

    assert (before is not None, getattr(world, read)()[1].get("x")) == (True, None)


@pytest.mark.defect(16, "An attribute that was emptied in Hull kept its value in Pipedrive.")
def test_what_is_emptied_in_hull_is_emptied_in_pipedrive(world: World) -> None:
    number, notes = code(world, "person", "Customer number"), code(world, "organization", "Support notes")
    world.change_settings(
        outgoing_user_attributes=[{"hull": "number", "service": number}],
        outgoing_account_attributes=[{"hull": "notes", "service": notes}],
    )
    world.company.create_person(name="Ann", custom_fields={number: "C-1"})
    world.company.create_organization(name="Acme", custom_fields={notes: "Calls at night"})
    know_everything(world)

    say(world, user(world.users()[1]["id"], number="C-1"))
    say(world, account(world.accounts()[1]["id"], notes="Calls at night"))
    say(world, user(world.users()[1]["id"], number=None))
    say(world, account(world.accounts()[1]["id"], notes=None))

    assert person(world, 1)["custom_fields"][number] is None
    assert organization(world, 1)["custom_fields"][notes] is None
    assert [method for method, _, _ in writes(world)] == ["PATCH", "PATCH"]
