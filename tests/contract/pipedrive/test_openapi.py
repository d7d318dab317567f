"""Every endpoint answers as in the vendor's OpenAPI files."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.company import Company
from tests.contract.pipedrive import spec
from tests.contract.pipedrive.conftest import Api, code

CONTACT_SYNC = {"postal_address", "notes", "im", "birthday", "job_title"}
BOTH = pytest.mark.parametrize("entity", ["person", "organization"])


def judge(api: Api, version: int, method: str, path: str, url: str, body: Any = None, **parameters: Any) -> Any:
    answer = api.call(method.upper(), url, body, **parameters)

    assert spec.problems(version, method, path, answer.status_code, answer.get_json()) == []
    return answer.get_json().get("data")


@BOTH
def test_lists_and_records_have_the_declared_shape(api: Api, entity: str) -> None:
    base = f"/{entity}s"

    page = judge(api, 2, "get", base, f"/api/v2{base}", limit=500)
    one = judge(api, 2, "get", f"{base}/{{id}}", f"/api/v2{base}/{page[0]['id']}")

    assert one == page[0]
    assert set(one) >= spec.record_members(base) - CONTACT_SYNC


@BOTH
def test_every_optional_member_has_the_declared_shape(api: Api, company: Company, entity: str) -> None:
    base = f"/{entity}s"
    optional = ",".join(field.code for field in company.fields[entity] if field.optional)  # type: ignore[index]

    page = judge(
        api,
        2,
        "get",
        base,
        f"/api/v2{base}",
        include_fields=optional,
        include_labels="true",
        include_option_labels="true",
    )

    assert set(optional.split(",")) < set(page[0])


@BOTH
def test_writes_answer_with_the_declared_shape(api: Api, entity: str) -> None:
    base, name = f"/{entity}s", {"name": "Ada Lindqvist"}

    created = judge(api, 2, "post", base, f"/api/v2{base}", name)
    judge(api, 2, "patch", f"{base}/{{id}}", f"/api/v2{base}/{created['id']}", {"name": "Ada L"})
    deleted = judge(api, 2, "delete", f"{base}/{{id}}", f"/api/v2{base}/{created['id']}")

    assert deleted == {"id": created["id"]}


@BOTH
def test_search_answers_with_the_declared_shape(api: Api, entity: str) -> None:
    base = f"/{entity}s/search"

    found = judge(api, 2, "get", base, f"/api/v2{base}", term="an")

    assert found["items"]


def test_item_search_answers_with_the_declared_shape(api: Api) -> None:
    found = judge(api, 2, "get", "/itemSearch", "/api/v2/itemSearch", term="an", limit=100)

    assert {item["item"]["type"] for item in found["items"]} == {"person", "organization"}


@BOTH
def test_fields_have_the_declared_shape(api: Api, company: Company, entity: str) -> None:
    base, settings = f"/{entity}Fields", "ui_visibility,important_fields,required_fields"

    fields = judge(api, 2, "get", base, f"/api/v2{base}", limit=500, include_fields=settings)
    judge(api, 2, "get", f"{base}/{{field_code}}", f"/api/v2{base}/{fields[-1]['field_code']}")
    judge(api, 1, "get", base, f"/v1{base}")

    assert len(fields) == len(company.fields[entity])  # type: ignore[index]


@BOTH
def test_managing_fields_answers_with_the_declared_shape(api: Api, entity: str) -> None:
    base = f"/{entity}Fields"
    one, options = f"{base}/{{field_code}}", f"{base}/{{field_code}}/options"

    made = judge(
        api, 2, "post", base, f"/api/v2{base}", {"field_name": "N", "field_type": "enum", "options": [{"label": "a"}]}
    )
    url = f"/api/v2{base}/{made['field_code']}"
    added = judge(api, 2, "post", options, f"{url}/options", [{"label": "b"}])
    judge(api, 2, "patch", options, f"{url}/options", [{"id": added[0]["id"], "label": "c"}])
    judge(api, 2, "delete", options, f"{url}/options", [{"id": added[0]["id"]}])
    judge(api, 2, "patch", one, url, {"field_name": "M"})
    judge(api, 2, "delete", one, url)

    assert api.call("GET", url).status_code == 404


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
def test_v1_answers_with_the_declared_shape_under_both_prefixes(api: Api, prefix: str) -> None:
    body = {"subscription_url": "http://127.0.0.1:1/x", "event_action": "*", "event_object": "person", "name": "n"}

    me = judge(api, 1, "get", "/users/me", f"{prefix}/users/me")
    made = judge(api, 1, "post", "/webhooks", f"{prefix}/webhooks", body)
    listed = judge(api, 1, "get", "/webhooks", f"{prefix}/webhooks")
    judge(api, 1, "delete", "/webhooks/{id}", f"{prefix}/webhooks/{made['id']}")
    judge(api, 1, "delete", "/webhooks/{id}", f"{prefix}/webhooks/{made['id']}")  # the 404

    assert listed == [made]
    assert me["access"][0]["admin"] is True


def test_the_declared_error_bodies_are_given(api: Api) -> None:
    stranger = Api(api.client, headers={})

    judge(stranger, 1, "get", "/users/me", "/v1/users/me")
    judge(stranger, 1, "get", "/webhooks", "/v1/webhooks")
    judge(api, 1, "post", "/webhooks", "/v1/webhooks", {"name": "n"})


def test_every_declared_list_parameter_is_understood(api: Api, company: Company) -> None:
    given = {
        "filter_id": 3, "ids": "1,2", "owner_id": company.users[0].id, "org_id": 4, "deal_id": 5,
        "updated_since": "2025-01-01T00:00:00Z", "updated_until": "2026-01-01T00:00:00+02:00", "sort_by": "add_time",
        "sort_direction": "desc", "include_fields": "notes_count", "custom_fields": code(company, "person", "Lead score"),
        "include_option_labels": "true", "include_labels": "true", "limit": 10,
    }  # fmt: skip

    judge(api, 2, "get", "/persons", "/api/v2/persons", **given)

    assert spec.parameters("/persons") == set(given) | {"cursor"}


def test_calls_cost_as_the_vendor_documents(api: Api, company: Company) -> None:
    cost = spec.token_cost
    expected = [
        ("GET", "/api/v2/persons", cost(2, "get", "/persons")),
        ("GET", "/api/v2/persons/1", cost(2, "get", "/persons/{id}")),
        ("POST", "/api/v2/persons", cost(2, "post", "/persons")),
        ("PATCH", "/api/v2/persons/1", cost(2, "patch", "/persons/{id}")),
        ("DELETE", "/api/v2/persons/1", cost(2, "delete", "/persons/{id}")),
        ("GET", "/api/v2/persons/search", cost(2, "get", "/persons/search")),
        ("GET", "/api/v2/personFields", cost(2, "get", "/personFields")),
        ("GET", "/v1/personFields", cost(1, "get", "/personFields")),
        ("GET", "/v1/users/me", cost(1, "get", "/users/me")),
        ("GET", "/v1/webhooks", cost(1, "get", "/webhooks")),
        ("POST", "/v1/webhooks", cost(1, "post", "/webhooks")),
        ("DELETE", "/v1/webhooks/1", cost(1, "delete", "/webhooks/{id}")),
    ]

    spent = []
    for method, path, _ in expected:
        before = api.client.get("/__sandbox__/stats").get_json()["tokens_total"]
        api.call(method, path, {} if method in {"POST", "PATCH"} else None)
        spent.append((method, path, api.client.get("/__sandbox__/stats").get_json()["tokens_total"] - before))

    assert spent == expected
