"""Search: whole values and parts of them, by kind of text, and its delay."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.company import Company
from tests.contract.pipedrive.conftest import Api, Clock, code

SEARCH = "/api/v2/persons/search"


def found(api: Api, path: str = SEARCH, **parameters: Any) -> list[int]:
    return [item["item"]["id"] for item in api.ok("GET", path, **parameters)["items"]]


@pytest.fixture
def jane(company: Company) -> dict[str, Any]:
    return company.create_person(
        name="Jané Übel",
        emails=[{"value": "first@x.test"}, {"value": "Jane.Uebel@Acme.test", "primary": True}],
        phones=[{"value": "+372 0000 1234"}],
        org_id=next(o for o in range(1, 60) if company.body("organization", o)),
        custom_fields={code(company, "person", "Job title"): "Chief Gardener"},
    )


@pytest.mark.parametrize(
    ("parameters", "hit"),
    [
        ({"term": "jane.uebel@acme.test", "fields": "email", "exact_match": "true"}, True),
        ({"term": "jane.uebel@acme.tes", "fields": "email", "exact_match": "true"}, False),
        ({"term": "uebel@acme", "fields": "email"}, True),
        ({"term": "uebel@acme", "fields": "name,phone"}, False),
        ({"term": "JANÉ ÜBEL", "exact_match": "true"}, True),
        ({"term": "0000 1234", "fields": "phone"}, True),
        ({"term": "gardener"}, True),
        ({"term": "gardener", "fields": "custom_fields"}, True),
        ({"term": "gardener", "fields": "name"}, False),
        ({"term": "%@acme"}, False),
    ],
)
def test_a_term_is_found_in_its_field(api: Api, jane: dict[str, Any], parameters: dict[str, Any], hit: bool) -> None:
    assert found(api, **parameters) == ([jane["id"]] if hit else [])


def test_an_item_is_plain(api: Api, company: Company, jane: dict[str, Any]) -> None:
    [hit] = api.ok("GET", SEARCH, term="Jané Übel", exact_match="true")["items"]

    item = hit["item"]
    assert item["emails"] == ["first@x.test", "Jane.Uebel@Acme.test"]
    assert item["primary_email"] == "Jane.Uebel@Acme.test"
    assert item["phones"] == ["+372 0000 1234"]
    assert item["organization"]["id"] == jane["org_id"]
    assert item["owner"] == {"id": company.users[0].id}


def test_members_of_one_organization(api: Api, jane: dict[str, Any]) -> None:
    assert found(api, term="Jané", organization_id=jane["org_id"]) == [jane["id"]]
    assert found(api, term="Jané", organization_id=jane["org_id"] + 1) == []


def test_generated_records_are_found_by_their_address(api: Api) -> None:
    persons = api.walk("/api/v2/persons", limit=500)
    known = next(p for p in persons if len(p["emails"]) == 1 and p["emails"][0]["label"] == "work")
    value = known["emails"][0]["value"]

    assert known["id"] in found(api, term=value.upper(), fields="email", exact_match="true")


def test_pages_of_results_hold_each_once(api: Api) -> None:
    whole = found(api, term="an", limit=500)

    walked: list[int] = []
    marker: dict[str, Any] = {}
    while True:
        page = api.call("GET", SEARCH, term="an", limit=9, **marker).get_json()
        walked += [item["item"]["id"] for item in page["data"]["items"]]
        if page["additional_data"]["next_cursor"] is None:
            break
        marker = {"cursor": page["additional_data"]["next_cursor"]}

    assert walked == whole
    assert len(whole) > 20


def test_pages_over_both_entities_hold_each_once(api: Api) -> None:
    path, walked, marker = "/api/v2/itemSearch", [], {}
    while True:
        page = api.call("GET", path, term="an", limit=3, **marker).get_json()
        walked += [(item["item"]["type"], item["item"]["id"]) for item in page["data"]["items"]]
        if page["additional_data"]["next_cursor"] is None:
            break
        marker = {"cursor": page["additional_data"]["next_cursor"]}

    both = {("person", n) for n in found(api, term="an", limit=500)}
    both |= {("organization", n) for n in found(api, "/api/v2/organizations/search", term="an", limit=500)}
    assert len(walked) == len(set(walked))
    assert set(walked) == both


def test_the_index_may_trail_behind(api: Api, company: Company, clock: Clock) -> None:
    company.behaviour.search_delay_s = 5
    assert found(api, term="zyx") == []
    company.create_person(name="Zyx")

    assert found(api, term="zyx") == []
    clock.now += 5
    assert len(found(api, term="zyx")) == 1


def test_changed_and_deleted_records_follow(api: Api, company: Company, jane: dict[str, Any]) -> None:
    assert found(api, term="Jané Übel")
    company.edit_person(jane["id"], name="Other Name")
    assert found(api, term="Jané Übel") == []
    assert found(api, term="Other Name") == [jane["id"]]
    company.delete_person(jane["id"])
    assert found(api, term="Other Name") == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"term": "a"}, "term"),
        ({}, "term"),
        ({"term": "an", "fields": "address"}, "fields"),
        ({"term": "an", "limit": 501}, "limit"),
        ({"term": "an", "cursor": "e30"}, "cursor"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(api: Api, parameters: dict[str, Any], named: str) -> None:
    status, error = api.error("GET", SEARCH, **parameters)

    assert (status, error.split(":")[1].strip()) == (400, named)


def test_one_letter_is_enough_for_a_whole_value(api: Api) -> None:
    assert api.call("GET", SEARCH, term="a", exact_match="true").status_code == 200
