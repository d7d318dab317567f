"""Tokens, the burst limit and its headers, the ledger."""

from __future__ import annotations

import pytest

from sandbox.company import Company
from sandbox.pipedrive.access import API_TOKEN
from sandbox.pipedrive.app import PipedriveApp, create_app
from tests.contract.pipedrive.conftest import Api, Clock

PERSONS = "/api/v2/persons"


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        ({}, 401, "unauthorized access"),
        ({"x-api-token": "wrong"}, 401, "unauthorized access"),
        ({"Authorization": f"Bearer {API_TOKEN}"}, 401, "Invalid token: access_token is invalid"),
        ({"Authorization": "Basic eDp5"}, 400, "Invalid request: malformed authorization header"),
        ({"Authorization": "Bearer "}, 400, "Invalid request: malformed authorization header"),
    ],
)
def test_a_stranger_is_turned_away(api: Api, headers: dict[str, str], status: int, error: str) -> None:
    assert Api(api.client, headers).error("GET", PERSONS) == (status, error)


def test_known_tokens_are_accepted(company: Company) -> None:
    client = create_app(company, access_tokens=frozenset({"v1u:one"})).test_client()

    assert client.get(PERSONS, headers={"Authorization": "Bearer v1u:one"}).status_code == 200
    assert client.get(f"{PERSONS}?api_token={API_TOKEN}").status_code == 200


def test_the_token_in_the_query_can_be_switched_off(company: Company) -> None:
    client = create_app(company, token_in_query=False).test_client()

    assert client.get(f"{PERSONS}?api_token={API_TOKEN}").status_code == 401


def test_the_burst_window_rolls(company: Company) -> None:
    clock = Clock(100.0)
    api = Api(create_app(company, burst_limit=3, monotonic=clock).test_client())

    seen = []
    for wait in (0.0, 0.5, 0.5, 0.1, 0.95, 0.0):
        clock.now += wait
        answer = api.call("GET", f"{PERSONS}/1")
        seen.append((answer.status_code, answer.headers["x-ratelimit-remaining"]))

    # 100.0, 100.5, 101.0 pass; 101.1 is refused; at 102.05 the first has left the window, and one more passes.
    assert seen == [(200, "2"), (200, "1"), (200, "0"), (429, "0"), (200, "0"), (429, "0")]
    assert answer.headers["x-ratelimit-limit"] == "3"
    assert answer.headers["x-ratelimit-reset"] == "1"
    assert answer.get_json()["error"] == "request over limit"
    assert "retry-after" not in answer.headers


def test_a_refused_request_may_carry_retry_after(company: Company) -> None:
    app = create_app(company, burst_limit=1, monotonic=Clock(0.0))
    app.retry_after_header = True
    api = Api(app.test_client())

    api.ok("GET", f"{PERSONS}/1")

    assert api.call("GET", f"{PERSONS}/1").headers["retry-after"] == "2"


def test_search_has_a_window_of_its_own(company: Company) -> None:
    api = Api(create_app(company, burst_limit=20, monotonic=Clock(0.0)).test_client())

    statuses = [api.call("GET", f"{PERSONS}/search", term="zz").status_code for _ in range(11)]

    assert statuses == [200] * 10 + [429]
    assert api.call("GET", PERSONS).status_code == 200


def test_each_token_has_its_own_window(company: Company) -> None:
    app = create_app(company, burst_limit=1, monotonic=Clock(0.0), access_tokens=frozenset({"a"}))
    api, other = Api(app.test_client()), Api(app.test_client(), {"Authorization": "Bearer a"})

    assert [api.call("GET", PERSONS).status_code for _ in range(2)] == [200, 429]
    answer = other.call("GET", PERSONS)
    assert answer.status_code == 200
    assert "x-daily-requests-left" not in answer.headers  # told to the API token only
    assert "x-daily-requests-left" in api.call("GET", PERSONS).headers


def test_every_answer_has_the_window(api: Api) -> None:
    for path in (PERSONS, f"{PERSONS}/999999", "/api/v2/nowhere"):
        assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= {
            name.lower()
            for name in api.call("GET", path).headers.keys()  # noqa: SIM118 (a multidict)
        }


def test_v2_lives_under_one_prefix_and_speaks_json_of_errors(api: Api) -> None:
    assert api.error("GET", "/v2/persons")[0] == 404
    assert api.error("PUT", f"{PERSONS}/1")[0] == 405


def test_the_ledger_keeps_mutations_in_order(api: Api, app: PipedriveApp) -> None:
    created = api.ok("POST", PERSONS, {"name": "Jane"})
    api.ok("PATCH", f"{PERSONS}/{created['id']}", {"name": "Joan"})
    api.error("PATCH", f"{PERSONS}/{created['id']}", {"shoe_size": 44})
    api.ok("DELETE", f"{PERSONS}/{created['id']}")
    api.ok("GET", PERSONS)

    kept = api.client.get("/__sandbox__/ledger").get_json()["mutations"]

    assert [(m["method"], m["entity_id"], m["status"]) for m in kept] == [
        ("POST", created["id"], 200),
        ("PATCH", created["id"], 200),
        ("DELETE", created["id"], 200),
    ]
    assert kept[0]["body"] == '{"name": "Jane"}'
    assert [m["number"] for m in api.client.get("/__sandbox__/ledger?after=2").get_json()["mutations"]] == [3]
    assert app.ledger.requests == {"create": 1, "update": 2, "delete": 1, "list": 1}
    assert app.ledger.tokens.total() == 5 + 2 * 5 + 3 + 10
