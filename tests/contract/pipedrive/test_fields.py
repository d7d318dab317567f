"""Field definitions, in both forms, and as recorded from a real company."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.company import Company
from sandbox.company.load import load_fields
from sandbox.pipedrive.app import create_app
from tests.contract.pipedrive.conftest import NOW, Api, code
from tests.data import PERSON_FIELDS

V2, V1 = "/api/v2/personFields", "/v1/personFields"


@pytest.fixture
def recorded() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(PERSON_FIELDS.read_text())["data"]
    return rows


def test_pages_of_fields_hold_each_once(api: Api, company: Company) -> None:
    walked = api.walk(V2, limit=7)

    assert sorted(field["field_code"] for field in walked) == sorted(field.code for field in company.fields["person"])


def test_object_fields_name_their_parts(api: Api, company: Company) -> None:
    field = api.ok("GET", f"{V2}/{code(company, 'person', 'Credit limit')}")

    assert [part["field_code"] for part in field["subfields"]] == ["value", "currency"]
    assert field["options"] is None


def test_choices_have_integer_ids_and_labels(api: Api, company: Company) -> None:
    field = api.ok("GET", f"{V2}/{code(company, 'person', 'Lead source')}")

    assert [option["label"] for option in field["options"]][:2] == ["Inbound", "Outbound"]
    assert all(isinstance(option["id"], int) for option in field["options"])


def test_optional_members_are_marked(api: Api) -> None:
    fields = {field["field_code"]: field for field in api.walk(V2, limit=500)}

    assert fields["notes_count"]["is_optional_response_field"] is True
    assert fields["name"]["is_optional_response_field"] is False


@pytest.mark.parametrize("path", [V1, "/api/v1/personFields"])
def test_the_older_form_has_what_older_clients_read(api: Api, company: Company, path: str) -> None:
    answer = api.call("GET", path, limit=10).get_json()

    assert all({"key", "field_type", "json_column_flag"} <= set(row) for row in answer["data"])
    paging = {"start": 0, "limit": 10, "more_items_in_collection": True}
    assert answer["additional_data"] == {**paging, "pagination": {**paging, "next_start": 10}}
    rows = api.ok("GET", path, limit=500)
    currency = next(row for row in rows if row["key"] == f"{code(company, 'person', 'Credit limit')}_currency")
    assert (currency["is_subfield"], currency["id"]) == (True, None)


def test_the_older_pages_end(api: Api) -> None:
    first = api.call("GET", V1, limit=40).get_json()
    second = api.call("GET", V1, limit=500, start=40).get_json()

    assert second["additional_data"]["pagination"]["more_items_in_collection"] is False
    assert first["data"] + second["data"] == api.ok("GET", V1, limit=500)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"field_type": "double"}, "field_name"),
        ({"field_name": "x" * 256, "field_type": "double"}, "field_name"),
        ({"field_name": "x", "field_type": "boolean"}, "field_type"),
        ({"field_name": "x", "field_type": "enum"}, "options"),
        ({"field_name": "x", "field_type": "double", "options": [{"label": "a"}]}, "options"),
        ({"field_name": "x", "field_type": "set", "options": [{"name": "a"}]}, "options"),
        ({"field_name": "x", "field_type": "double", "size": 1}, "size"),
    ],
)
def test_a_field_that_cannot_be_made_is_refused(api: Api, body: dict[str, Any], named: str) -> None:
    status, error = api.error("POST", V2, body)

    assert (status, error.split(":")[1].strip()) == (400, named)


def test_options_change_all_or_none(api: Api, company: Company) -> None:
    url = f"{V2}/{code(company, 'person', 'Lead source')}"
    before = api.ok("GET", url)["options"]
    first = before[0]["id"]

    assert api.error("PATCH", f"{url}/options", [{"id": first, "label": "a"}, {"id": 1, "label": "b"}])[0] == 400
    assert api.error("DELETE", f"{url}/options", [{"id": first}, {"id": 1}])[0] == 400
    assert api.ok("GET", url)["options"] == before
    api.ok("PATCH", f"{url}/options", [{"id": first, "label": "Renamed"}])
    assert api.ok("GET", url)["options"][0]["label"] == "Renamed"


def test_only_custom_fields_can_be_deleted(api: Api) -> None:
    assert api.error("DELETE", f"{V2}/name")[0] == 403
    assert api.error("DELETE", f"{V2}/nothing")[0] == 404


def test_recorded_definitions_come_back_unchanged(recorded: list[dict[str, Any]]) -> None:
    company = Company(persons=20, organizations=5, now=NOW)
    load_fields(company, PERSON_FIELDS)
    api = Api(create_app(company).test_client())

    assert api.ok("GET", V1, limit=500) == recorded
    modern = {field["field_code"]: field for field in api.walk(V2, limit=500)}
    assert {row["key"] for row in recorded} - {"label"} == set(modern) - {"label_ids"}
    custom = [row["key"] for row in recorded if len(row["key"]) == 40]
    persons = api.walk("/api/v2/persons", limit=500)
    assert all(list(person["custom_fields"]) == custom for person in persons)
    assert any(person["custom_fields"][custom[0]] for person in persons)
