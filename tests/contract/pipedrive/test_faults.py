"""Misbehaviour on demand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox import serve
from sandbox.pipedrive import start
from sandbox.pipedrive.access import API_TOKEN
from sandbox.pipedrive.app import PipedriveApp
from tests.contract.pipedrive.conftest import Api
from tests.wsgi_adapter import session_for

PERSONS = "/api/v2/persons"


def statuses(api: Api, number: int, path: str = PERSONS) -> list[int]:
    return [api.call("GET", path).status_code for _ in range(number)]


def test_a_rule_spoils_the_requests_it_names(api: Api, app: PipedriveApp) -> None:
    app.faults.add(r"/persons$", "status", status=503, skip=1, count=2)

    assert statuses(api, 5) == [200, 503, 503, 200, 200]
    assert statuses(api, 1, "/api/v2/organizations") == [200]


def test_a_rule_may_never_end_or_name_a_method(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons", "status", method="POST", status=500, count=None)

    assert statuses(api, 1) == [200]
    assert [api.call("POST", PERSONS, {"name": "x"}).status_code for _ in range(3)] == [500] * 3


def test_a_late_fault_loses_the_answer_and_not_the_change(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons", "status", method="POST", status=502, late=True)
    before = app.company.count("person")

    assert api.call("POST", PERSONS, {"name": "Twice"}).status_code == 502
    assert app.company.count("person") == before + 1
    assert [mutation.method for mutation in app.ledger.mutations] == ["POST"]


def test_an_early_fault_prevents_the_change(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons", "status", method="POST", status=502)
    before = app.company.count("person")

    assert api.call("POST", PERSONS, {"name": "Never"}).status_code == 502
    assert (app.company.count("person"), app.ledger.mutations) == (before, [])


@pytest.mark.parametrize("status", [403, 503])
def test_html(api: Api, app: PipedriveApp, status: int) -> None:
    app.faults.add("persons", "html", status=status)

    answer = api.call("GET", PERSONS)

    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert answer.get_data().startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize("kind", ["truncated", "not_json"])
def test_json_that_is_none(api: Api, app: PipedriveApp, kind: Any) -> None:
    app.faults.add("persons", kind)

    answer = api.call("GET", PERSONS)

    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.get_data())


def test_a_list_may_never_end(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons$", "repeat_page")

    first = api.call("GET", PERSONS, limit=10).get_json()
    second = api.call("GET", PERSONS, limit=10, cursor=first["additional_data"]["next_cursor"]).get_json()
    third = api.call("GET", PERSONS, limit=10, cursor=second["additional_data"]["next_cursor"]).get_json()

    markers = {page["additional_data"]["next_cursor"] for page in (first, second, third)}
    assert len(markers) == 1
    assert None not in markers
    assert second["data"] == third["data"] != first["data"]


def test_a_burst_refusal_has_the_time_of_the_next_call(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons", "429_burst", headers={"retry-after": "2"})

    answer = api.call("GET", PERSONS)

    assert answer.status_code == 429
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answer.headers["x-ratelimit-reset"] == "2"
    assert answer.headers["retry-after"] == "2"
    assert app.ledger.tokens.total() == 0


def test_a_refusal_for_the_day_leaves_room_in_the_window(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons", "429_daily")

    answer = api.call("GET", PERSONS)

    assert answer.status_code == 429
    assert int(answer.headers["x-ratelimit-remaining"]) > 0
    assert app.ledger.tokens.total() == 0


def test_a_slow_answer_waits_before_the_view_or_after_it(api: Api, app: PipedriveApp) -> None:
    waits: list[tuple[float, int]] = []
    app.faults.sleep = lambda seconds: waits.append((seconds, app.company.count("person")))
    app.faults.add("persons", "slow", method="POST", seconds=3)
    app.faults.add("persons", "slow", method="POST", seconds=7, late=True)
    before = app.company.count("person")

    assert [api.call("POST", PERSONS, {"name": "Slow"}).status_code for _ in range(2)] == [200, 200]

    assert waits == [(3, before), (7, before + 2)]


def test_a_body_may_drip(api: Api, app: PipedriveApp) -> None:
    waits: list[float] = []
    app.faults.sleep = waits.append
    whole = api.call("GET", f"{PERSONS}/1").get_data()
    app.faults.add("persons", "drip", seconds=0.5)

    assert api.call("GET", f"{PERSONS}/1").get_data() == whole
    assert waits == [0.5] * len(whole)


def test_the_connection_may_break_after_the_change(app: PipedriveApp) -> None:
    app.faults.add("persons", "cut", method="POST")
    before = app.company.count("person")
    session = session_for({"http://pipedrive.test": app.wsgi_app})

    with pytest.raises(requests.exceptions.RequestException):
        session.post(f"http://pipedrive.test{PERSONS}", json={"name": "Half"}, headers={"x-api-token": API_TOKEN})

    assert app.company.count("person") == before + 1


def test_a_served_connection_breaks_too() -> None:
    running = serve.start(start.FACTORY, {"persons": 50, "organizations": 1})
    try:
        serve.wait_until_ready(running)
        with requests.Session() as session:
            session.headers["x-api-token"] = API_TOKEN
            session.post(f"{running.url}/__sandbox__/faults", json=[{"path": "persons", "kind": "cut"}], timeout=10)
            with pytest.raises(requests.exceptions.RequestException):
                session.get(f"{running.url}{PERSONS}", timeout=10)
            assert session.get(f"{running.url}{PERSONS}", timeout=10).status_code == 200
    finally:
        running.stop()


def test_an_answer_may_have_no_body(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons", "empty")
    app.faults.add("persons", "empty", status=204)

    for status in (200, 204):
        answer = api.call("GET", PERSONS)
        assert (answer.status_code, answer.get_data()) == (status, b"")


@pytest.mark.parametrize(
    ("rule", "begins"),
    [
        ({"put": "\ufeff"}, b"\xef\xbb\xbf{"),
        ({"find": r"\{", "put": '{"success":false,'}, b'{"success":false,"success":true'),
        ({"find": '"id":1,', "put": '"id":NaN,'}, b'{"success":true,"data":{"id":NaN,'),
        ({"find": '"id":1,', "put": f'"id":1{"0" * 400},'}, b'{"success":true,"data":{"id":1000'),
    ],
)
def test_an_answer_may_be_rewritten(api: Api, app: PipedriveApp, rule: dict[str, str], begins: bytes) -> None:
    app.faults.add("persons", "rewrite", **rule)

    assert api.call("GET", f"{PERSONS}/1").get_data().startswith(begins)


def test_an_answer_may_be_called_what_it_is_not(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons", "rewrite", headers={"content-type": "text/plain; charset=latin-1"})

    answer = api.call("GET", f"{PERSONS}/1")

    assert (answer.mimetype, answer.get_data()[:15]) == ("text/plain", b'{"success":true')


def test_a_small_answer_may_unpack_to_a_large_one(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons", "gzip_bomb", size=5_000_001)

    answer = api.call("GET", PERSONS)

    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.get_data()) < 10_000
    assert len(gzip.decompress(answer.get_data())) == 5_000_001


def test_a_rule_may_look_at_the_query(api: Api, app: PipedriveApp) -> None:
    app.faults.add("persons$", "status", query="cursor=", status=400)
    marker = api.call("GET", PERSONS, limit=10).get_json()["additional_data"]["next_cursor"]

    assert api.call("GET", PERSONS, limit=10, cursor=marker).status_code == 400
    assert api.call("GET", PERSONS, limit=10, cursor=marker).status_code == 200


def test_rules_come_over_the_wire_and_go(api: Api) -> None:
    rules = [{"path": "persons", "kind": "status", "status": 418, "count": None}]

    assert api.call("POST", "/__sandbox__/faults", rules).status_code == 200
    assert statuses(api, 2) == [418, 418]
    api.call("POST", "/__sandbox__/faults", [])
    assert statuses(api, 1) == [200]


@pytest.mark.parametrize(
    "rules",
    [
        [{"path": "x", "kind": "quake"}],
        [{"path": "x", "kind": "html", "colour": 1}],
        [{"path": "x", "kind": "rewrite", "find": "("}],
        [5],
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(api: Api, rules: list[Any]) -> None:
    assert api.call("POST", "/__sandbox__/faults", rules).status_code == 400


def test_rules_come_from_a_file(api: Api, app: PipedriveApp, tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps([{"path": "persons", "kind": "html"}]))

    app.faults.load(file)

    assert statuses(api, 2) == [403, 200]


def test_the_sandbox_controls_are_never_spoilt(api: Api, app: PipedriveApp) -> None:
    app.faults.add(".*", "status", count=None)

    assert statuses(api, 1, "/__sandbox__/stats") == [200]
