"""Writing: what is accepted, what is refused, what an update leaves alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sandbox.company import Company
from sandbox.pipedrive.app import create_app
from tests.contract.pipedrive.conftest import Api, Clock, code

PERSONS = "/api/v2/persons"
ORGANIZATIONS = "/api/v2/organizations"

VALUES: dict[str, tuple[Any, Any]] = {
    "Job title": ("Captain", "Captain"),
    "Remarks": ("x" * 65_000, "x" * 65_000),
    "Lead score": (1.5, 1.5),
    "Direct line": ("+372 5", "+372 5"),
    "Customer since": ("2026-01-02", "2026-01-02"),
    "Contract period": ({"value": "2026-01-02", "until": "2026-02-02"}, {"value": "2026-01-02", "until": "2026-02-02"}),
    "Preferred call time": (
        {"value": "09:00"},
        {"value": "09:00:00", "timezone_id": 318, "timezone_name": "Europe/London"},
    ),
    "Office hours": (
        {"value": "09:00:00", "until": "17:00:00", "timezone_name": "Europe/Tallinn"},
        {"value": "09:00:00", "until": "17:00:00", "timezone_id": 310, "timezone_name": "Europe/Tallinn"},
    ),
    "Credit limit": ({"value": 0, "currency": "EUR"}, {"value": 0, "currency": "EUR"}),
    "Previous employer": (2, 2),
    "Referred by": (3, 3),
}


def test_a_created_person_is_complete(api: Api, company: Company, clock: Clock) -> None:
    created = api.ok("POST", PERSONS, {"name": "Jane van Dyke", "emails": [{"value": "jane@acme.test"}]})

    assert (created["first_name"], created["last_name"]) == ("Jane", "van Dyke")
    assert created["emails"] == [{"value": "jane@acme.test", "primary": True, "label": "work"}]
    assert created["owner_id"] == company.users[0].id
    assert (created["add_time"], created["update_time"]) == ("2026-03-01T12:00:00Z", None)
    assert created["custom_fields"] == dict.fromkeys((f.code for f in company.custom_fields("person")), None)
    assert api.ok("GET", f"{PERSONS}/{created['id']}") == created


def test_two_name_parts_make_a_name(api: Api) -> None:
    created = api.ok("POST", PERSONS, {"first_name": "Jane", "last_name": ""})

    assert (created["name"], created["first_name"]) == ("Jane", "Jane")


@pytest.mark.parametrize("name", VALUES)
def test_custom_values_of_every_type_are_kept(api: Api, company: Company, name: str) -> None:
    sent, kept = VALUES[name]

    written = api.ok("PATCH", f"{PERSONS}/1", {"custom_fields": {code(company, "person", name): sent}})

    assert written["custom_fields"][code(company, "person", name)] == kept


def test_an_update_changes_only_what_was_sent(api: Api, company: Company, clock: Clock) -> None:
    title, score = code(company, "person", "Job title"), code(company, "person", "Lead score")
    api.ok("PATCH", f"{PERSONS}/1", {"custom_fields": {title: "Captain", score: 5}})
    before = api.ok("GET", f"{PERSONS}/1")
    clock.now += 61.7

    after = api.ok("PATCH", f"{PERSONS}/1", {"custom_fields": {score: None}, "emails": [{"value": "new@x.test"}]})

    assert after["custom_fields"] == {**before["custom_fields"], score: None}
    assert after["emails"] == [{"value": "new@x.test", "primary": True, "label": "work"}]
    assert after["update_time"] == "2026-03-01T12:01:01Z"
    unchanged = set(before) - {"custom_fields", "emails", "update_time"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}


def test_an_update_that_changes_nothing_leaves_the_time_alone(api: Api, company: Company, clock: Clock) -> None:
    before = api.ok("GET", f"{PERSONS}/1")
    clock.now += 60

    assert api.ok("PATCH", f"{PERSONS}/1", {"name": before["name"]}) == before
    company.behaviour.idle_update_bumps = True
    assert api.ok("PATCH", f"{PERSONS}/1", {"name": before["name"]})["update_time"] > before["update_time"]


def test_an_address_of_one_part_wipes_the_others(api: Api) -> None:
    api.ok("PATCH", f"{ORGANIZATIONS}/1", {"address": {"value": "Tallinn, Estonia", "country": "Estonia"}})

    after = api.ok("PATCH", f"{ORGANIZATIONS}/1", {"address": {"value": "Tartu"}})

    assert after["address"]["value"] == "Tartu"
    assert {part for name, part in after["address"].items() if name != "value"} == {None}


def test_a_second_delete_finds_nothing(api: Api) -> None:
    assert api.ok("DELETE", f"{PERSONS}/2") == {"id": 2}

    assert api.call("DELETE", f"{PERSONS}/2").status_code == 404
    assert api.call("PATCH", f"{PERSONS}/2", {"name": "x"}).status_code == 404
    assert api.call("GET", f"{PERSONS}/2").status_code == 404
    assert api.call("GET", f"{PERSONS}/{10**30}").status_code == 404


def test_ids_are_never_used_again(api: Api) -> None:
    created = api.ok("POST", PERSONS, {"name": "Short Lived"})
    api.ok("DELETE", f"{PERSONS}/{created['id']}")

    assert api.ok("POST", PERSONS, {"name": "Next"})["id"] == created["id"] + 1


def test_many_writers_at_once_lose_nothing(company: Company) -> None:
    app = create_app(company)
    before = company.count("person")

    def create(n: int) -> int:
        return int(Api(app.test_client()).ok("POST", PERSONS, {"name": f"Writer {n}"})["id"])

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(create, range(80)))

    assert len(set(made)) == 80
    assert company.count("person") == before + 80
    assert len(app.ledger.mutations) == 80


def test_deleting_an_organization_unlinks_its_persons(api: Api, clock: Clock) -> None:
    person = next(p for p in api.walk(PERSONS, limit=500) if p["org_id"])
    clock.now += 60

    api.ok("DELETE", f"{ORGANIZATIONS}/{person['org_id']}")

    after = api.ok("GET", f"{PERSONS}/{person['id']}")
    assert after == {**person, "org_id": None, "update_time": "2026-03-01T12:01:00Z"}


def test_duplicates_are_allowed(api: Api) -> None:
    body = {"name": "Jane Doe", "emails": [{"value": "jane@acme.test"}]}

    assert api.ok("POST", PERSONS, body)["id"] != api.ok("POST", PERSONS, body)["id"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"first_name": "Only"}, "name"),
        ({"first_name": "", "last_name": ""}, "name"),
        ({"name": "x", "email": "a@b.c"}, "email"),
        ({"name": "x", "notes": "contact sync is off"}, "notes"),
        ({"name": "x", "emails": "a@b.c"}, "emails"),
        ({"name": "x", "emails": [{"label": "work"}]}, "emails[0].value"),
        ({"name": "x", "emails": [{"value": "a", "primary": True}, {"value": "b", "primary": True}]}, "emails"),
        ({"name": "x", "phones": [{"value": "1", "kind": "fax"}]}, "phones[0].kind"),
        ({"name": "x", "org_id": 999_999}, "org_id"),
        ({"name": "x", "org_id": "1"}, "org_id"),
        ({"name": "x", "org_id": 10**30}, "org_id"),
        ({"name": "x", "owner_id": 1}, "owner_id"),
        ({"name": "x", "visible_to": "3"}, "visible_to"),
        ({"name": "x", "label_ids": [99]}, "label_ids"),
        ({"name": "x", "add_time": "yesterday"}, "add_time"),
        ({"name": "x", "is_deleted": True}, "is_deleted"),
        ({"name": "x", "marketing_status": "perhaps"}, "marketing_status"),
        ({"name": "x", "custom_fields": {"0" * 40: 1}}, "custom_fields." + "0" * 40),
    ],
)
def test_a_body_that_is_wrong_is_refused_by_name(api: Api, company: Company, body: Any, named: str) -> None:
    before = company.count("person")

    status, error = api.error("POST", PERSONS, body)

    assert status == 400
    assert error.startswith(f"Validation failed: {named}: ")
    assert company.count("person") == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Interests", []),
        ("Interests", [999]),
        ("Interests", "Events"),
        ("Lead source", 999),
        ("Lead source", "Inbound"),
        ("Lead score", "5"),
        ("Lead score", True),
        ("Job title", "x" * 256),
        ("Job title", 5),
        ("Remarks", "x" * 65_001),
        ("Customer since", "01.02.2026"),
        ("Contract period", {"value": "2026-01-01"}),
        ("Preferred call time", "09:00"),
        ("Preferred call time", {"value": "25:00"}),
        ("Credit limit", {"value": 5}),
        ("Credit limit", {"value": "5", "currency": "EUR"}),
        ("Delivery address", {"country": "Estonia"}),
        ("Previous employer", 999_999),
        ("Referred by", "1"),
        ("Account manager", 5),
    ],
)
def test_a_custom_value_of_the_wrong_shape_is_refused(api: Api, company: Company, name: str, value: Any) -> None:
    field = code(company, "person", name)

    status, error = api.error("PATCH", f"{PERSONS}/1", {"custom_fields": {field: value}})

    assert status == 400
    assert f"custom_fields.{field}" in error


def test_the_time_of_adding_is_set_only_on_create(api: Api) -> None:
    created = api.ok("POST", PERSONS, {"name": "Old Hand", "add_time": "2020-01-01T02:00:00+02:00"})

    assert created["add_time"] == "2020-01-01T00:00:00Z"
    assert api.call("PATCH", f"{PERSONS}/{created['id']}", {"add_time": "2020-01-01T00:00:00Z"}).status_code == 400


def test_an_organization_needs_a_name(api: Api) -> None:
    assert api.error("POST", ORGANIZATIONS, {"website": "x.test"}) == (400, "Validation failed: name: Required")


def test_only_json_is_taken(api: Api) -> None:
    form = api.client.post(PERSONS, data={"name": "x"}, headers=api.headers)
    broken = api.client.post(PERSONS, data="{", content_type="application/json", headers=api.headers)

    assert (form.status_code, broken.status_code) == (415, 400)


def test_a_company_without_the_website_field_refuses_it(clock: Clock) -> None:
    company = Company(persons=0, organizations=20, firmographics=False, clock=clock)
    api = Api(create_app(company).test_client())

    assert api.error("POST", ORGANIZATIONS, {"name": "x", "website": "x.test"})[0] == 400
    assert all("website" not in organization for organization in api.walk(ORGANIZATIONS))
    assert "website" not in {field["field_code"] for field in api.ok("GET", "/api/v2/organizationFields", limit=500)}
    domains = code(company, "organization", "Domains")
    assert sum(o["custom_fields"][domains] is not None for o in api.walk(ORGANIZATIONS)) > 10
