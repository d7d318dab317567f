"""Payloads of version 1.0, which a subscriber may still ask for and a stray one may still have."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.company import Company, Event
from sandbox.company.model import editing_as
from sandbox.pipedrive.payload import legacy_payload
from tests.contract.pipedrive.conftest import Clock, code
from tests.deliveries import SUBSCRIPTION


@pytest.fixture
def told(company: Company) -> list[Event]:
    events: list[Event] = []
    company.listeners.append(events.append)
    return events


def test_both_sides_are_whole_and_ids_are_numbers(company: Company, told: list[Event], clock: Clock) -> None:
    person = company.create_person(name="Jane Doe", emails=[{"value": "jane@acme.test"}], label_ids=[])
    clock.now += 1.5
    with editing_as(user_id=company.users[1].id, bulk=True):
        company.edit_person(person["id"], name="Jane Roe")

    payload = legacy_payload(company, told[-1], SUBSCRIPTION, attempt=3)

    assert (payload["event"], payload["retry"], payload["v"]) == ("updated.person", 2, 1)
    assert (payload["previous"]["name"], payload["current"]["name"]) == ("Jane Doe", "Jane Roe")
    assert payload["previous"].keys() == payload["current"].keys()
    assert payload["current"]["email"][0]["value"] == "jane@acme.test"
    assert payload["current"]["update_time"] == "2026-03-01 12:00:01"
    assert (payload["current"]["visible_to"], payload["current"]["label"]) == ("3", None)
    meta = payload["meta"]
    assert (meta["id"], meta["user_id"], meta["is_bulk_update"]) == (person["id"], company.users[1].id, True)
    assert meta["permitted_user_ids"] == [user.id for user in company.users]
    assert (meta["timestamp"], meta["timestamp_micro"]) == (int(clock.now), int(clock.now * 1_000_000))


def test_creation_and_deletion_have_one_side_each(company: Company, told: list[Event]) -> None:
    company.delete_person(company.create_person(name="Jane")["id"])

    added, deleted = (legacy_payload(company, event, SUBSCRIPTION) for event in told)

    assert (added["event"], added["previous"], added["current"]["name"]) == ("added.person", None, "Jane")
    assert (deleted["event"], deleted["current"], deleted["previous"]["name"]) == ("deleted.person", None, "Jane")


def test_custom_values_are_spread_flat(company: Company, told: list[Event]) -> None:
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
    current = legacy_payload(company, told[0], SUBSCRIPTION)["current"]

    assert (current[codes["Credit limit"]], current[f"{codes['Credit limit']}_currency"]) == (200, "EUR")
    assert current[codes["Interests"]] == f"{options[0].id},{options[1].id}"
    assert current[codes["Contract period"]] == "2023-01-01"
    assert current[f"{codes['Contract period']}_until"] == "2023-02-01"
    assert current[codes["Job title"]] == "Captain"
    assert current[f"{code(company, 'person', 'Preferred call time')}_timezone_id"] is None
