"""Lists: order, markers, windows, filters, and what happens when records move under a reader's feet."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from sandbox.company import Company
from sandbox.pipedrive.app import PipedriveApp
from tests.contract.pipedrive.conftest import NOW, Api, Clock, code

PERSONS = "/api/v2/persons"


def ids(records: list[dict[str, Any]]) -> list[int]:
    return [record["id"] for record in records]


def key(record: dict[str, Any], sort_by: str) -> tuple[Any, int]:
    return record[sort_by], record["id"]


@pytest.mark.parametrize("sort_by", ["id", "update_time", "add_time"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_pages_hold_every_live_record_once_and_in_order(
    api: Api, company: Company, sort_by: str, direction: str
) -> None:
    walked = api.walk(PERSONS, limit=37, sort_by=sort_by, sort_direction=direction)

    keys = [key(record, sort_by) for record in walked]
    assert keys == sorted(keys, reverse=direction == "desc")
    assert len(set(ids(walked))) == company.count("person") == len(walked)


def test_records_of_one_second_are_all_seen(api: Api, company: Company) -> None:
    for person_id in range(1, 41):
        company.edit_person(person_id, name="Same Second")

    walked = api.walk(PERSONS, limit=7, sort_by="update_time", sort_direction="desc")

    edited = [record["id"] for record in walked if record["name"] == "Same Second"]
    assert edited == sorted(edited, reverse=True)
    assert len(walked) == len(set(ids(walked))) == company.count("person")


def test_the_marker_is_a_readable_keyset_position(api: Api) -> None:
    page = api.call("GET", PERSONS, limit=5).get_json()

    marker = page["additional_data"]["next_cursor"]
    assert "=" not in marker
    last = page["data"][-1]["id"]
    decoded = json.loads(base64.urlsafe_b64decode(marker + "=" * (-len(marker) % 4)))
    assert decoded == {"field": "id", "fieldValue": last, "sortDirection": "asc", "id": last}


def test_a_record_edited_behind_the_reader_comes_again_and_none_is_lost(
    api: Api, company: Company, clock: Clock
) -> None:
    first = api.call("GET", PERSONS, limit=50, sort_by="update_time").get_json()
    clock.now += 60
    company.edit_person(first["data"][0]["id"], name="Moved Ahead")

    rest = api.walk(PERSONS, limit=50, sort_by="update_time", cursor=first["additional_data"]["next_cursor"])

    assert rest[-1]["name"] == "Moved Ahead"
    assert set(ids(first["data"])) | set(ids(rest)) == set(ids(api.walk(PERSONS, limit=500)))


def test_a_record_created_during_a_walk_by_id_is_met(api: Api, company: Company) -> None:
    first = api.call("GET", PERSONS, limit=50).get_json()
    created = company.create_person(name="Late Comer")

    rest = api.walk(PERSONS, limit=50, cursor=first["additional_data"]["next_cursor"])

    assert rest[-1]["id"] == created["id"]


def test_half_open_windows_tile(api: Api, company: Company) -> None:
    start = NOW - timedelta(days=731)
    cuts = [start + timedelta(days=61 * n) for n in range(13)]
    middle: datetime = datetime.fromisoformat(api.ok("GET", f"{PERSONS}/1")["update_time"])
    cuts = sorted([*cuts, middle])

    windows = [
        api.walk(PERSONS, limit=500, updated_since=since.isoformat(), updated_until=until.isoformat())
        for since, until in pairwise(cuts)
    ]

    walked = [record_id for window in windows for record_id in ids(window)]
    assert sorted(walked) == ids(api.walk(PERSONS, limit=500))
    assert 1 in ids(windows[cuts.index(middle)])
    assert all(len(window) < company.count("person") for window in windows)


def test_offsets_and_the_epoch_are_understood(api: Api, company: Company) -> None:
    assert len(api.walk(PERSONS, updated_since="1970-01-01T00:00:00+00:00", limit=500)) == company.count("person")
    assert api.walk(PERSONS, updated_since="2026-03-01T14:00:00+02:00") == []


def test_filters_by_owner_organization_and_ids(api: Api, company: Company) -> None:
    everyone = api.walk(PERSONS, limit=500)
    owner, organization = company.users[1].id, next(p["org_id"] for p in everyone if p["org_id"])

    assert ids(api.walk(PERSONS, owner_id=owner)) == [p["id"] for p in everyone if p["owner_id"] == owner]
    assert ids(api.walk(PERSONS, org_id=organization)) == [p["id"] for p in everyone if p["org_id"] == organization]
    assert ids(api.walk(PERSONS, ids="9,3,999999,3")) == [3, 9]
    assert len(api.walk(PERSONS, filter_id=1, ids="3", limit=500)) == len(everyone)


def test_deleted_records_are_neither_listed_nor_found(api: Api, company: Company) -> None:
    listed = set(ids(api.walk(PERSONS, limit=500)))
    gone = min(set(range(1, 301)) - listed)

    assert api.call("GET", f"{PERSONS}/{gone}").status_code == 404
    company.behaviour.list_deleted = True
    assert api.ok("GET", f"{PERSONS}/{gone}")["is_deleted"] is True
    assert gone in ids(api.walk(PERSONS, limit=500))


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"limit": 501}, "limit"),
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"cursor": "%%%"}, "cursor"),
        ({"cursor": "bm90IGpzb24"}, "cursor"),
        ({"cursor": "W10"}, "cursor"),
        ({"cursor": "e30"}, "cursor"),
        ({"sort_by": "name"}, "sort_by"),
        ({"sort_direction": "up"}, "sort_direction"),
        ({"updated_since": "2026-01-01T00:00:00.500Z"}, "updated_since"),
        ({"updated_since": "2026-13-01T00:00:00Z"}, "updated_since"),
        ({"updated_since": "yesterday"}, "updated_since"),
        ({"updated_until": "2026-01-01"}, "updated_until"),
        ({"ids": ",".join(map(str, range(101)))}, "ids"),
        ({"ids": "1,x"}, "ids"),
        ({"owner_id": "x"}, "owner_id"),
        ({"include_fields": "shoe_size"}, "include_fields"),
        ({"custom_fields": ",".join("abcdefghijklmnop")}, "custom_fields"),
        ({"include_labels": "maybe"}, "include_labels"),
    ],
)
def test_a_parameter_that_cannot_be_read_is_named(api: Api, parameters: dict[str, Any], named: str) -> None:
    answer = api.call("GET", PERSONS, **parameters)

    assert answer.status_code == 400
    assert answer.get_json()["code"] == "ERR_SCHEMA_VALIDATION_FAILED"
    assert answer.get_json()["error"].startswith(f"Validation failed: {named}: ")


def test_a_marker_belongs_to_its_sort_order(api: Api) -> None:
    marker = api.call("GET", PERSONS, limit=2).get_json()["additional_data"]["next_cursor"]

    assert api.call("GET", PERSONS, cursor=marker, sort_by="update_time").status_code == 400


def test_unknown_parameters_are_ignored(api: Api) -> None:
    assert api.call("GET", PERSONS, shoe_size=44).status_code == 200


def test_chosen_custom_fields_and_spelt_out_options(api: Api, company: Company) -> None:
    interests, source = code(company, "person", "Interests"), code(company, "person", "Lead source")
    labels = {option.id: option.label for field in company.fields["person"] for option in field.options}
    plain = {p["id"]: p for p in api.walk(PERSONS, limit=500)}

    spelt = api.walk(PERSONS, limit=500, custom_fields=f"{interests},{source}", include_option_labels="true")

    assert all(set(person["custom_fields"]) == {interests, source} for person in spelt)
    for person in spelt:
        held = plain[person["id"]]["custom_fields"]
        chosen, one = held[interests], held[source]
        expected = chosen and [{"id": option, "label": labels[option]} for option in chosen]
        assert person["custom_fields"][interests] == expected
        assert person["custom_fields"][source] == (one and {"id": one, "label": labels[one]})


def test_labels_are_spelt_out(api: Api) -> None:
    labelled = next(p for p in api.walk(PERSONS, limit=500, include_labels="true") if p["label_ids"])

    assert [label["id"] for label in labelled["labels"]] == labelled["label_ids"]
    assert {label["label"] for label in labelled["labels"]} <= {"Customer", "Hot lead", "Warm lead", "Cold lead"}


def test_a_page_of_plain_records_is_the_export(api: Api, app: PipedriveApp) -> None:
    exported = app.test_client().get("/__sandbox__/export?entity=person").get_data().splitlines()

    assert [json.loads(line) for line in exported] == api.walk(PERSONS, limit=500)
