"""Deliveries that go wrong on purpose, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sandbox.app import read_dataclass
from sandbox.company import Company
from sandbox.pipedrive.app import PipedriveApp, create_app
from sandbox.pipedrive.delivery import Trouble
from tests.contract.pipedrive.conftest import Api, Clock
from tests.contract.pipedrive.receiver import BODY, HOOKS, ORIGIN, Receiver
from tests.wsgi_adapter import session_for

EVENTS = 200


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def hooked(company: Company, receiver: Receiver) -> PipedriveApp:
    app = create_app(company, webhook_session=session_for({ORIGIN: receiver}))
    app.delivery.schedule.threads = 0
    Api(app.test_client()).ok("POST", HOOKS, BODY)
    return app


def happen(app: PipedriveApp, clock: Clock) -> None:
    """Two hundred changes of one Person, a second apart, and then an hour."""
    for number in range(1, EVENTS + 1):
        app.company.edit_person(1, name=f"Edited {number}")
        clock.now += 1
        app.delivery.run_due()
    clock.now += 3600
    app.delivery.run_due()


def names(receiver: Receiver) -> list[str]:
    return [payload["data"]["name"] for payload in receiver.payloads()]


def test_without_trouble_everything_arrives_in_order(hooked: PipedriveApp, receiver: Receiver, clock: Clock) -> None:
    happen(hooked, clock)

    assert names(receiver) == [f"Edited {number}" for number in range(1, EVENTS + 1)]


def test_some_are_lost(hooked: PipedriveApp, receiver: Receiver, clock: Clock) -> None:
    hooked.delivery.trouble = Trouble(seed=3, lost=0.2)

    happen(hooked, clock)

    lost = hooked.delivery.counts["lost_on_purpose"]
    assert 20 <= lost <= 60
    assert len(receiver.got) == EVENTS - lost


def test_some_come_twice_with_the_same_id(hooked: PipedriveApp, receiver: Receiver, clock: Clock) -> None:
    hooked.delivery.trouble = Trouble(seed=3, duplicated=0.2)

    happen(hooked, clock)

    times = Counter(payload["meta"]["id"] for payload in receiver.payloads())
    assert len(times) == EVENTS
    assert set(times.values()) == {1, 2}
    assert sum(times.values()) == EVENTS + hooked.delivery.counts["duplicated"]


def test_a_refused_copy_is_not_tried_again_and_counts_for_nothing(
    hooked: PipedriveApp, receiver: Receiver, clock: Clock
) -> None:
    hooked.delivery.trouble = Trouble(duplicated=1)
    hooked.company.edit_person(1, name="Edited")
    hooked.delivery.run_due()
    receiver.status = "500 Oops"

    for _ in range(300):
        clock.now += 1
        hooked.delivery.run_due()

    assert receiver.attempts() == [1, 1]
    [webhook_id] = hooked.subscriptions.by_id
    assert hooked.delivery.health(webhook_id).failures == 0


def test_some_are_delayed_and_arrive_later_than_others(hooked: PipedriveApp, receiver: Receiver, clock: Clock) -> None:
    hooked.delivery.trouble = Trouble(seed=3, delayed=0.5, delay_s=20)
    arrived: dict[str, float] = {}
    receiver.hear = lambda payload: arrived.setdefault(payload["data"]["name"], clock.now)
    began = clock.now

    happen(hooked, clock)

    late = [arrived[f"Edited {number}"] - (began + number - 1) for number in range(1, EVENTS + 1)]
    assert sorted(names(receiver)) == sorted(arrived)
    assert len(arrived) == EVENTS
    assert names(receiver) != sorted(names(receiver), key=lambda name: int(name.split()[1]))
    assert sum(wait > 1 for wait in late) > EVENTS / 4
    assert hooked.delivery.counts["delayed"] == pytest.approx(EVENTS / 2, abs=30)


def test_some_have_the_shape_of_the_first_version(hooked: PipedriveApp, receiver: Receiver, clock: Clock) -> None:
    hooked.delivery.trouble = Trouble(seed=3, legacy=0.3)

    happen(hooked, clock)

    old = [payload for payload in receiver.payloads() if "current" in payload]
    assert len(old) == hooked.delivery.counts["legacy"] > 30
    assert {payload["event"] for payload in old} == {"updated.person"}
    assert sum("data" in payload for payload in receiver.payloads()) == EVENTS - len(old)


def test_some_arrive_first_as_a_later_attempt(hooked: PipedriveApp, receiver: Receiver, clock: Clock) -> None:
    hooked.delivery.trouble = Trouble(seed=3, astray=0.5)

    happen(hooked, clock)

    assert len({payload["meta"]["id"] for payload in receiver.payloads()}) == EVENTS
    assert set(receiver.attempts()) == {1, 2, 3, 4}


def test_the_same_seed_makes_the_same_trouble(company: Company, clock: Clock) -> None:
    def sent() -> list[Any]:
        receiver, moments = Receiver(), Clock()
        fresh = Company(seed=7, persons=1, organizations=0, clock=moments)
        app = create_app(fresh, webhook_session=session_for({ORIGIN: receiver}))
        app.delivery.schedule.threads = 0
        app.delivery.trouble = Trouble(seed="x", lost=0.1, duplicated=0.1, delayed=0.3, legacy=0.1, astray=0.1)
        Api(app.test_client()).ok("POST", HOOKS, BODY)
        happen(app, moments)
        return receiver.payloads()

    assert sent() == sent()


def test_one_kind_of_trouble_leaves_the_others_as_they_were(
    hooked: PipedriveApp, receiver: Receiver, clock: Clock
) -> None:
    hooked.delivery.trouble = Trouble(seed=3, lost=0.2)
    happen(hooked, clock)
    without = set(names(receiver))
    receiver.got.clear()

    hooked.delivery.trouble = Trouble(seed=3, lost=0.2, duplicated=0.5, delayed=0.5)
    for number in range(1, EVENTS + 1):
        hooked.company.edit_person(1, name=f"Once more {number}")
    clock.now += 3600
    hooked.delivery.run_due()

    assert {name.replace("Once more", "Edited") for name in names(receiver)} == without


@pytest.mark.parametrize(
    ("body", "named"),
    [({"lost": 1.1}, "lost"), ({"lost": "x"}, "lost"), ({"delay_s": -1}, "delay_s"), ({"late": 1}, "late"), (5, "object")],
)  # fmt: skip
def test_trouble_that_makes_no_sense_is_refused(body: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_dataclass(Trouble, body)
