"""Whatever is sent, the answer is one of those the vendor documents: never a crash."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.company import Company
from sandbox.pipedrive.app import create_app
from tests.contract.pipedrive.conftest import NOW, Api
from tests.wsgi_adapter import session_for

COMPANY = Company(seed=2, persons=30, organizations=10, now=NOW)
CODES = [field.code for field in COMPANY.fields["person"]]
KEYS = st.sampled_from(
    [
        "name", "first_name", "last_name", "owner_id", "org_id", "add_time", "emails", "phones", "visible_to", "label_ids",
        "custom_fields", "address", "website", "industry", "marketing_status", "value", "primary", "label", "until",
        "currency", "timezone_id", "timezone_name", "field_name", "field_type", "options", "id", "subscription_url",
        "event_action", "event_object", "version", "merge_with_id", *CODES,
    ]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["enum", "set", "person", "*", "2026-01-01", "09:00", "http://x.test", "EUR"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        [
            "limit", "cursor", "ids", "owner_id", "org_id", "updated_since", "updated_until", "sort_by", "sort_direction",
            "include_fields", "custom_fields", "include_labels", "include_option_labels", "term", "fields", "exact_match",
            "organization_id", "item_types", "start", "filter_id", "deal_id",
        ]
    ),
    st.text(max_size=12) | st.integers().map(str) | st.sampled_from(["true", "asc", "id", "update_time", "e30", "name"]),
    max_size=4,
)  # fmt: skip
HOOK = {
    "id": 1, "owner_id": 1, "type": "general", "version": "2.0", "is_active": 1, "event_object": "*", "event_action": "*",
    "subscription_url": "http://x.test/", "http_auth_user": None, "http_auth_password": None,
}  # fmt: skip
QUIET = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def anyone() -> Api:
    COMPANY.listeners.clear()
    app = create_app(COMPANY, webhook_session=session_for({"http://x.test": swallow}))
    app.subscriptions.by_id[1] = {**HOOK}
    return Api(app.test_client())


def swallow(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("204 No Content", [])
    return []


@QUIET
@given(
    path=st.sampled_from(
        [
            "/api/v2/persons", "/api/v2/organizations", "/api/v2/persons/5", "/api/v2/persons/search", "/api/v2/itemSearch",
            "/api/v2/organizations/search", "/api/v2/personFields", "/v1/personFields", "/v1/organizationFields",
        ]
    ),
    parameters=PARAMETERS,
)  # fmt: skip
def test_any_question_is_answered(anyone: Api, path: str, parameters: dict[str, str]) -> None:
    answer = anyone.call("GET", path, **parameters)

    assert answer.status_code in {200, 400, 404}
    assert answer.get_json()["success"] is (answer.status_code == 200)


@QUIET
@given(
    target=st.sampled_from(
        [
            ("POST", "/api/v2/persons"), ("PATCH", "/api/v2/persons/5"), ("POST", "/api/v2/organizations"),
            ("PATCH", "/api/v2/organizations/5"), ("POST", "/api/v2/personFields"), ("POST", "/v1/webhooks"),
            ("PATCH", f"/api/v2/personFields/{CODES[-1]}"), ("POST", f"/api/v2/personFields/{CODES[-7]}/options"),
            ("PUT", "/v1/persons/7/merge"), ("PUT", "/v1/organizations/2/merge"),
        ]
    ),
    body=JSON,
)  # fmt: skip
def test_any_body_is_judged(anyone: Api, target: tuple[str, str], body: Any) -> None:
    answer = anyone.call(*target, body)

    assert answer.status_code in {200, 201, 400, 404, 415, 422}
    assert answer.get_json()["success"] is (answer.status_code < 300)


@QUIET
@given(code=st.sampled_from(CODES), value=JSON)
def test_any_custom_value_is_judged(anyone: Api, code: str, value: Any) -> None:
    answer = anyone.call("PATCH", "/api/v2/persons/3", {"custom_fields": {code: value}})

    assert answer.status_code in {200, 400}


@QUIET
@given(body=st.dictionaries(KEYS, JSON, max_size=6))
def test_any_raw_record_can_be_listed_searched_sent_and_deleted(
    anyone: Api, caplog: pytest.LogCaptureFixture, body: dict[str, Any]
) -> None:
    record_id = COMPANY.put_raw("person", body)

    answers = [
        anyone.call("GET", f"/api/v2/persons/{record_id}", include_labels="true", include_option_labels="true"),
        anyone.call("GET", "/api/v2/persons/search", term="an"),
        anyone.call("PATCH", f"/api/v2/persons/{record_id}", {"emails": [{"value": "a@b.test"}]}),
        anyone.call("DELETE", f"/api/v2/persons/{record_id}"),
    ]

    anyone.client.application.delivery.drain()  # type: ignore[attr-defined]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert caplog.records == []
