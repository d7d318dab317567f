"""Controls of deliveries, webhooks and the sales team over HTTP, as a demo or a benchmark uses them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.company import Company
from sandbox.pipedrive.app import PipedriveApp, create_app
from sandbox.pipedrive.delivery import Trouble
from tests.contract.pipedrive.conftest import Api, Clock
from tests.contract.pipedrive.receiver import BODY, HOOKS, ORIGIN, Receiver
from tests.wsgi_adapter import session_for

DELIVERIES, WEBHOOKS, TEAM = "/__sandbox__/deliveries", "/__sandbox__/webhooks", "/__sandbox__/team"
NUMBERS = itertools.count()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def hooked(company: Company, receiver: Receiver) -> Iterator[PipedriveApp]:
    app = create_app(company, webhook_session=session_for({ORIGIN: receiver}))
    app.delivery.schedule.threads = 0
    yield app
    app.team.stop()


@pytest.fixture
def hooked_api(hooked: PipedriveApp) -> Api:
    return Api(hooked.test_client())


@pytest.fixture
def hook(hooked_api: Api) -> int:
    return int(hooked_api.ok("POST", HOOKS, BODY)["id"])


def edit(app: PipedriveApp, times: int = 1) -> None:
    for _ in range(times):
        app.company.edit_person(1, name=f"Edited {next(NUMBERS)}")
    app.delivery.run_due()


def test_deliveries_are_counted_by_their_outcome(
    hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, hook: int, clock: Clock
) -> None:
    edit(hooked)
    receiver.status = "500 Oops"
    edit(hooked, times=11)
    clock.now += 3
    hooked.delivery.run_due()

    seen = hooked_api.ok("GET", DELIVERIES)

    assert seen["counts"]["events"] == 12
    assert (seen["counts"]["sent"], seen["counts"]["refused"], seen["counts"]["retried"]) == (1, 10, 0)
    assert (seen["counts"]["dropped_by_ban"], seen["waiting"]) == (1 + 10, 0)
    [webhook] = seen["webhooks"]
    assert webhook == {
        "id": hook,
        "name": "all",
        "is_active": 1,
        "failures": 10,
        "banned_until": "2026-03-01T12:30:00.000Z",
        "failing_since": "2026-03-01T12:00:00.000Z",
        "last_http_status": 500,
        "last_delivery_time": "2026-03-01T12:00:00.000Z",
    }


def test_trouble_and_rules_are_set_one_without_the_other(hooked: PipedriveApp, hooked_api: Api) -> None:
    hooked_api.ok("POST", DELIVERIES, {"trouble": {"seed": 4, "lost": 0.25}})
    hooked_api.ok("POST", DELIVERIES, {"rules": {"ban_s": 60, "retry_after_s": [1, 2]}})

    assert hooked.delivery.trouble == Trouble(seed=4, lost=0.25)
    assert (hooked.delivery.rules.ban_s, list(hooked.delivery.rules.retry_after_s)) == (60, [1, 2])
    assert hooked_api.ok("GET", DELIVERIES)["trouble"]["lost"] == 0.25
    hooked_api.ok("POST", DELIVERIES, {"trouble": {}, "rules": {}})
    assert (hooked.delivery.trouble, hooked.delivery.rules.ban_s) == (Trouble(), 1800)


def test_fewer_retries_are_fewer_attempts(
    hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, hook: int, clock: Clock
) -> None:
    hooked_api.ok("POST", DELIVERIES, {"rules": {"retry_after_s": [1]}})
    receiver.status = "500 Oops"
    edit(hooked)

    for _ in range(10):
        clock.now += 1
        hooked.delivery.run_due()

    assert receiver.attempts() == [1, 2]
    assert hooked.delivery.counts["given_up"] == 1


@pytest.mark.parametrize(
    "body",
    [{"trouble": {"lost": 2}}, {"trouble": 5}, {"rules": {"shoes": 1}}, {"rules": {"retry_after_s": 3}}, {"luck": 1}],
)
def test_deliveries_refuse_an_invalid_body(hooked_api: Api, body: dict[str, Any]) -> None:
    assert hooked_api.call("POST", DELIVERIES, body).status_code == 400


def test_a_webhook_is_banned_and_its_ban_ended_by_hand(
    hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, hook: int
) -> None:
    hooked_api.ok("POST", WEBHOOKS, {"id": hook, "ban_s": None})
    edit(hooked)
    during = len(receiver.got)
    hooked_api.ok("POST", WEBHOOKS, {"id": hook, "ban_s": 0})
    edit(hooked)

    assert (during, len(receiver.got)) == (0, 1)


def test_a_webhook_is_switched_off_and_on(hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, hook: int) -> None:
    hooked_api.ok("POST", WEBHOOKS, {"is_active": 0})
    edit(hooked)
    assert hooked_api.ok("GET", HOOKS)[0]["is_active"] == 0
    hooked_api.ok("POST", WEBHOOKS, {"is_active": 1})
    edit(hooked)

    assert len(receiver.got) == 1


def test_a_webhook_is_redirected(hooked: PipedriveApp, hooked_api: Api, receiver: Receiver, hook: int) -> None:
    hooked_api.ok("POST", WEBHOOKS, {"id": hook, "subscription_url": f"{ORIGIN}/elsewhere"})
    edit(hooked)

    assert receiver.got[0][0]["PATH_INFO"] == "/elsewhere"


def test_a_webhook_is_deleted_behind_its_owners_back(hooked_api: Api, hook: int) -> None:
    assert hooked_api.ok("POST", WEBHOOKS, {"delete": True}) == {"ids": [hook]}

    assert hooked_api.ok("GET", HOOKS) == []
    assert hooked_api.call("POST", WEBHOOKS, {"id": hook, "delete": True}).status_code == 404


@pytest.mark.parametrize("body", [{"colour": 1}, {"ban_s": "long"}, {"id": []}])
def test_an_invalid_change_of_webhooks_is_refused(hooked_api: Api, hook: int, body: dict[str, Any]) -> None:
    assert hooked_api.call("POST", WEBHOOKS, body).status_code in {400, 404}


def test_the_team_starts_and_stops(hooked: PipedriveApp, hooked_api: Api) -> None:
    set_to = hooked_api.ok("POST", TEAM, {"rate": 0.001, "weights": {"edit_name": 5}, "seed": 9})
    assert (set_to["rate"], set_to["weights"]["edit_name"]) == (0.001, 5)
    hooked.team.act()

    home = hooked_api.ok("POST", TEAM, {"rate": 0})

    assert (home["rate"], sum(home["counts"].values()) >= 1) == (0, True)
    assert hooked_api.ok("GET", TEAM) == home


@pytest.mark.parametrize("body", [{}, {"rate": "fast"}, {"rate": 1, "weights": {"juggle": 1}}, {"rate": -1}])
def test_the_team_refuses_an_invalid_body(hooked_api: Api, body: dict[str, Any]) -> None:
    assert hooked_api.call("POST", TEAM, body).status_code == 400


def test_controls_are_no_changes_of_the_company(hooked: PipedriveApp, hooked_api: Api, hook: int) -> None:
    before = len(hooked.ledger.mutations)

    for path, body in ((DELIVERIES, {}), (WEBHOOKS, {}), (TEAM, {"rate": 0})):
        hooked_api.ok("POST", path, body)

    assert len(hooked.ledger.mutations) == before
