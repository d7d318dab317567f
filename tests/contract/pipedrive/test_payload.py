"""Webhook payloads: who changed a record and who may see it, in version 2.0; and the shape of version 1.0."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from sandbox.company import Company, Event
from sandbox.company.model import editing_as
from sandbox.pipedrive.payload import legacy_payload, payload, permitted_users
from tests.contract.pipedrive.conftest import Clock, code
from tests.deliveries import SUBSCRIPTION

TRACE = UUID("43cb94f3-bbbd-406c-ae19-ddeec349d896")


@pytest.fixture
def events(company: Company) -> list[Event]:
    events: list[Event] = []
    company.listeners.append(events.append)
    return events


def test_a_bulk_edit_names_its_user_and_is_marked(company: Company, events: list[Event]) -> None:
    with editing_as(user_id=company.users[2].id, bulk=True, correlation=TRACE):
        company.edit_person(1, name="One")
        company.edit_person(2, name="Two")
    company.edit_person(3, name="Three")

    first, second, after = (payload(company, event, SUBSCRIPTION)["meta"] for event in events)
    for meta in (first, second):
        assert (meta["user_id"], meta["is_bulk_edit"]) == (str(company.users[2].id), True)
        assert meta["correlation_id"] == str(TRACE)
    assert first["id"] != second["id"]
    assert (after["user_id"], after["is_bulk_edit"]) == (str(company.users[0].id), False)
    assert after["correlation_id"] != str(TRACE)


def test_a_record_visible_to_its_owner_is_sent_to_the_owner_and_the_admins(
    company: Company, events: list[Event]
) -> None:
    admins = {user.id for user in company.users if user.admin}
    clerk = next(user.id for user in company.users if not user.admin)

    company.edit_person(1, visible_to=1, owner_id=clerk)
    company.delete_person(1)
    company.edit_person(2, visible_to=3)
    company.edit_person(2, name="Seen")

    changed, deleted, open_to_all = events[0], events[1], events[-1]
    assert set(permitted_users(company, changed)) == set(permitted_users(company, deleted)) == {*admins, clerk}
    assert permitted_users(company, open_to_all) == [user.id for user in company.users]
    assert payload(company, open_to_all, SUBSCRIPTION)["meta"]["permitted_user_ids"] == [
        str(user.id) for user in company.users
    ]


def test_version_1_has_both_sides_whole_and_ids_as_numbers(company: Company, events: list[Event], clock: Clock) -> None:
    person = company.create_person(name="Jane Doe", emails=[{"value": "jane@acme.test"}], label_ids=[])
    clock.now += 1.5
    with editing_as(user_id=company.users[1].id, bulk=True):
        company.edit_person(person["id"], name="Jane Roe")

    old = legacy_payload(company, events[-1], SUBSCRIPTION, attempt=3)

    assert (old["event"], old["retry"], old["v"]) == ("updated.person", 2, 1)
    assert (old["previous"]["name"], old["current"]["name"]) == ("Jane Doe", "Jane Roe")
    assert old["previous"].keys() == old["current"].keys()
    assert old["current"]["email"][0]["value"] == "jane@acme.test"
    assert old["current"]["update_time"] == "2026-03-01 12:00:01"
    assert (old["current"]["visible_to"], old["current"]["label"]) == ("3", None)
    meta = old["meta"]
    assert (meta["id"], meta["user_id"], meta["is_bulk_update"]) == (person["id"], company.users[1].id, True)
    assert meta["permitted_user_ids"] == [user.id for user in company.users]
    assert (meta["timestamp"], meta["timestamp_micro"]) == (int(clock.now), int(clock.now * 1_000_000))


def test_version_1_has_one_side_of_a_creation_or_deletion(company: Company, events: list[Event]) -> None:
    company.delete_person(company.create_person(name="Jane")["id"])

    added, deleted = (legacy_payload(company, event, SUBSCRIPTION) for event in events)

    assert (added["event"], added["previous"], added["current"]["name"]) == ("added.person", None, "Jane")
    assert (deleted["event"], deleted["current"], deleted["previous"]["name"]) == ("deleted.person", None, "Jane")


def test_version_1_has_a_key_for_each_part_of_a_custom_value(company: Company, events: list[Event]) -> None:
    codes = {
        name: code(company, "person", name) for name in ("Credit limit", "Interests", "Contract period", "Job title")
    }
    options = next(field for field in company.custom_fields("person") if field.name == "Interests").options
    values: dict[str, Any] = {
        codes["Credit limit"]: {"value": 200, "currency": "EUR"},
        codes["Interests"]: [options[0].id, options[1].id],
        codes["Contract period"]: {"value": "2023-01-01", "until": "2023-02-01"},
        codes["Job title"]: "Captain",
    }

    company.create_person(name="Jane", custom_fields=values)
    current = legacy_payload(company, events[0], SUBSCRIPTION)["current"]

    assert (current[codes["Credit limit"]], current[f"{codes['Credit limit']}_currency"]) == (200, "EUR")
    assert current[codes["Interests"]] == f"{options[0].id},{options[1].id}"
    assert current[codes["Contract period"]] == "2023-01-01"
    assert current[f"{codes['Contract period']}_until"] == "2023-02-01"
    assert current[codes["Job title"]] == "Captain"
    assert current[f"{code(company, 'person', 'Preferred call time')}_timezone_id"] is None
