"""The day's tokens, the gateway's page for those who hammer on, and a clock that runs."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.company import Company
from sandbox.company.model import RunningClock
from sandbox.pipedrive.app import PipedriveApp, create_app
from sandbox.pipedrive.start import make_app
from tests.contract.pipedrive.conftest import Api, Clock

PERSON = "/api/v2/persons/1"  # costs one token
PERSONS = "/api/v2/persons"  # costs ten
NOON_TO_MIDNIGHT_S = 12 * 3600


def statuses(api: Api, number: int, path: str = PERSON) -> list[int]:
    return [api.call("GET", path).status_code for _ in range(number)]


def test_a_call_the_day_has_not_left_is_refused(api: Api, app: PipedriveApp) -> None:
    app.budget.limit = 12

    assert statuses(api, 1, PERSONS) == [200]
    assert statuses(api, 1, PERSONS) == [429]
    assert statuses(api, 3) == [200, 200, 429]
    assert app.budget.spent == app.ledger.tokens.total() == 12


def test_a_spent_day_differs_from_a_full_window(company: Company) -> None:
    app = create_app(company, burst_limit=1, monotonic=Clock(0.0))
    app.budget.limit = 0
    api = Api(app.test_client())

    spent_day = api.call("GET", PERSON)
    full_window = api.call("GET", PERSON)

    assert [spent_day.status_code, full_window.status_code] == [429, 429]
    assert int(spent_day.headers["x-ratelimit-remaining"]) > 0
    assert full_window.headers["x-ratelimit-remaining"] == "0"
    assert spent_day.get_json() == full_window.get_json()


def test_all_callers_of_the_company_share_the_day(company: Company) -> None:
    app = create_app(company, access_tokens=frozenset({"a"}))
    app.budget.limit = 2
    api, other = Api(app.test_client()), Api(app.test_client(), {"Authorization": "Bearer a"})

    assert [*statuses(api, 1), *statuses(other, 2), *statuses(api, 1)] == [200, 200, 429, 429]


def test_midnight_gives_a_new_day(api: Api, app: PipedriveApp, clock: Clock) -> None:
    app.budget.limit = 1

    assert statuses(api, 2) == [200, 429]
    clock.now += NOON_TO_MIDNIGHT_S - 1
    assert statuses(api, 1) == [429]
    clock.now += 1
    assert statuses(api, 2) == [200, 429]


def test_unauthorized_calls_cost_nothing(company: Company) -> None:
    app = create_app(company, burst_limit=1, monotonic=Clock(0.0))
    api = Api(app.test_client())

    assert statuses(api, 3, PERSONS) == [200, 429, 429]
    assert Api(api.client, {}).call("GET", PERSONS).status_code == 401
    assert app.budget.spent == 10


def test_the_day_can_be_set_from_outside(api: Api) -> None:
    shown = api.call("POST", "/__sandbox__/budget", {"budget": 100, "spent": 95}).get_json()

    assert shown == {"budget": 100, "spent": 95, "resets_in_s": NOON_TO_MIDNIGHT_S}
    assert statuses(api, 1, PERSONS) == [429]
    assert api.client.get("/__sandbox__/stats").get_json()["daily"] == shown
    assert api.call("POST", "/__sandbox__/budget", {"budget": None}).get_json()["spent"] == 95
    assert statuses(api, 1, PERSONS) == [200]


@pytest.mark.parametrize("given", [{"budget": "many"}, {"spent": None}, {"spent": True}, {"tokens": 1}, []])
def test_a_day_that_makes_no_sense_is_refused(api: Api, given: Any) -> None:
    assert api.call("POST", "/__sandbox__/budget", given).status_code == 400


def test_who_hammers_on_meets_the_gateway(company: Company) -> None:
    clock = Clock(0.0)
    app = create_app(company, burst_limit=1, monotonic=clock, access_tokens=frozenset({"a"}))
    app.gateway.after = 2
    api, other = Api(app.test_client()), Api(app.test_client(), {"Authorization": "Bearer a"})

    assert statuses(api, 5) == [200, 429, 429, 403, 403]
    assert statuses(other, 5) == [200, 429, 429, 429, 429]  # an app is never shut out
    page = api.call("GET", PERSON)
    assert (page.mimetype, page.get_data()[:15]) == ("text/html", b"<!DOCTYPE html>")

    clock.now += 9.9
    assert statuses(api, 1) == [403]
    clock.now += 10.1
    assert statuses(api, 1) == [200]


def test_the_gateway_is_patient_by_default(company: Company) -> None:
    api = Api(create_app(company, burst_limit=1, monotonic=Clock(0.0)).test_client())

    assert set(statuses(api, 50)[1:]) == {429}


def test_limits_can_be_set_from_outside(api: Api) -> None:
    given = {"burst_limit": 1, "retry_after": True, "edge_after": 1}

    assert api.call("POST", "/__sandbox__/limits", given).status_code == 200
    answers = [api.call("GET", PERSON) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 429, 403]
    assert "retry-after" in answers[1].headers
    for wrong in ({"burst_limit": "1"}, {"retry_after": 1}, {"colour": 1}):
        assert api.call("POST", "/__sandbox__/limits", wrong).status_code == 400


def test_a_running_clock_catches_up_with_the_present() -> None:
    wall = Clock(1000.0)
    clock = RunningClock(factor=12, behind_s=3300, wall=wall)

    assert clock() == 1000.0 - 3300
    wall.now += 300
    assert clock() == wall.now


@pytest.mark.parametrize("factor", [0, -1.0])
def test_a_clock_must_run(factor: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        RunningClock(factor=factor)


def test_an_app_is_made_with_a_day_and_a_clock() -> None:
    app = make_app(persons=3, organizations=1, daily_budget=7, clock_factor=60.0, clock_behind_s=86_400.0)

    assert app.budget.limit == 7
    assert app.delivery.schedule.clock_factor == 60.0
    first = app.company.clock()
    assert first < RunningClock()() - 80_000
