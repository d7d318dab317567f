"""Delivery by the rules: what a failure costs, when it is tried again, when a webhook is banned, deleted, switched off."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from sandbox.company import Company
from sandbox.pipedrive.app import PipedriveApp, create_app
from tests.contract.pipedrive.conftest import Api, Clock
from tests.contract.pipedrive.receiver import BODY, HOOKS, ORIGIN, Receiver
from tests.wsgi_adapter import session_for

MINUTE, DAY = 60.0, 86_400.0


class Office:
    """A company with one webhook; deliveries happen when the test moves the time."""

    def __init__(self, app: PipedriveApp, receiver: Receiver, clock: Clock) -> None:
        self.app, self.receiver, self.clock = app, receiver, clock
        self.delivery, self.company = app.delivery, app.company
        self.edits = 0

    def edit(self, times: int = 1) -> None:
        """Change something, so often, and let what is due be sent."""
        for _ in range(times):
            self.edits += 1
            self.company.edit_person(1, name=f"Edited {self.edits}")
        self.delivery.run_due()

    def pass_by(self, seconds: float) -> None:
        """Let time pass and what fell due be sent."""
        self.clock.now += seconds
        self.delivery.run_due()

    def let_retries_pass(self) -> None:
        """Let all retries of one event fall due, one after the other."""
        for seconds in (3, 30, 150):
            self.pass_by(seconds)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def office(company: Company, receiver: Receiver, clock: Clock) -> Office:
    app = create_app(company, webhook_session=session_for({ORIGIN: receiver}))
    app.delivery.schedule.threads = 0
    Api(app.test_client()).ok("POST", HOOKS, BODY)
    return Office(app, receiver, clock)


@pytest.mark.parametrize("status", ["500 Oops", "302 Found", "404 Not Found", None])
def test_a_failure_is_tried_four_times_and_then_lost(office: Office, receiver: Receiver, status: str | None) -> None:
    receiver.status = status

    office.edit()
    office.let_retries_pass()
    office.pass_by(DAY)

    assert receiver.attempts() == [1, 2, 3, 4]
    assert len({payload["meta"]["id"] for payload in receiver.payloads()}) == 1
    counts = office.delivery.counts
    assert (counts["events"], counts["refused"], counts["retried"], counts["given_up"]) == (1, 4, 3, 1)


@pytest.mark.parametrize(("waits", "attempts"), [([2.9], 1), ([3], 2), ([3, 29], 2), ([3, 30], 3), ([3, 30, 149], 3)])
def test_a_retry_waits_its_time(office: Office, receiver: Receiver, waits: list[float], attempts: int) -> None:
    receiver.status = "503 Busy"

    office.edit()
    for seconds in waits:
        office.pass_by(seconds)

    assert len(receiver.got) == attempts


def test_any_answer_of_the_two_hundreds_ends_the_matter(office: Office, receiver: Receiver) -> None:
    receiver.status = "299 Fine"

    office.edit()
    office.let_retries_pass()

    assert receiver.attempts() == [1]
    assert (office.delivery.counts["sent"], office.delivery.waiting) == (1, 0)


def test_a_retry_that_succeeds_is_the_last(office: Office, receiver: Receiver) -> None:
    receiver.status = "500 Oops"
    office.edit()
    receiver.status = "200 OK"

    office.let_retries_pass()

    assert receiver.attempts() == [1, 2]
    [hook] = office.app.subscriptions.by_id.values()
    assert (hook["last_http_status"], hook["last_delivery_time"]) == (200, "2026-03-01T12:00:03.000Z")


def test_a_retry_may_have_an_id_of_its_own(office: Office, receiver: Receiver) -> None:
    office.delivery.rules = replace(office.delivery.rules, stable_id=False)
    receiver.status = "500 Oops"

    office.edit()
    office.let_retries_pass()

    assert len({payload["meta"]["id"] for payload in receiver.payloads()}) == 4


def test_ten_failed_first_attempts_ban_a_webhook_for_half_an_hour(office: Office, receiver: Receiver) -> None:
    receiver.status = "500 Oops"
    office.edit(9)
    assert office.delivery.health(hook(office)).banned_until is None

    office.edit(3)
    receiver.status = "200 OK"
    office.pass_by(29 * MINUTE)
    office.edit()
    sent_in_the_ban = len(receiver.got)
    office.pass_by(1 * MINUTE)
    office.edit()

    assert sent_in_the_ban == 10
    assert [payload["data"]["name"] for payload in receiver.payloads()[10:]] == [f"Edited {office.edits}"]
    assert office.delivery.health(hook(office)).failures == 0
    assert office.delivery.counts["dropped_by_ban"] == 2 + 10 + 1


def test_failed_retries_do_not_count_towards_a_ban(office: Office, receiver: Receiver) -> None:
    receiver.status = "500 Oops"

    for _ in range(9):
        office.edit()
        office.let_retries_pass()

    assert len(receiver.got) == 36
    assert office.delivery.health(hook(office)).failures == 9


@pytest.mark.parametrize(("resets", "failures"), [(True, 1), (False, 6)])
def test_whether_a_success_forgives_is_a_switch(
    office: Office, receiver: Receiver, resets: bool, failures: int
) -> None:
    office.delivery.rules = replace(office.delivery.rules, success_resets=resets)

    for status, edits in (("500 Oops", 5), ("200 OK", 1), ("500 Oops", 1)):
        receiver.status = status
        office.edit(edits)

    assert office.delivery.health(hook(office)).failures == failures


def test_a_webhook_that_failed_for_three_days_is_deleted(office: Office, receiver: Receiver) -> None:
    receiver.status = "500 Oops"
    office.edit()
    office.let_retries_pass()
    office.pass_by(3 * DAY - 184)
    assert len(office.app.subscriptions.by_id) == 1

    office.pass_by(1)

    assert office.app.subscriptions.by_id == {}
    assert office.delivery.counts["webhooks_deleted"] == 1


def test_one_success_within_three_days_keeps_a_webhook(office: Office, receiver: Receiver) -> None:
    receiver.status = "500 Oops"
    office.edit()
    office.let_retries_pass()
    office.pass_by(2 * DAY)
    receiver.status = "200 OK"
    office.edit()
    receiver.status = "500 Oops"
    office.pass_by(DAY / 2)
    office.edit()

    office.pass_by(2.9 * DAY)

    assert len(office.app.subscriptions.by_id) == 1


def test_a_webhook_without_events_stays(office: Office) -> None:
    office.pass_by(30 * DAY)

    assert len(office.app.subscriptions.by_id) == 1


def test_a_retry_finds_a_webhook_deleted_or_switched_off(office: Office, receiver: Receiver) -> None:
    receiver.status = "500 Oops"
    office.edit()
    office.app.subscriptions.by_id[hook(office)]["is_active"] = 0
    office.pass_by(3)
    office.app.subscriptions.by_id[hook(office)]["is_active"] = 1
    office.edit()
    office.app.subscriptions.by_id.clear()
    office.pass_by(3)

    assert len(receiver.got) == 2
    assert (office.delivery.counts["dropped_by_switch"], office.delivery.counts["dropped_by_deletion"]) == (1, 1)


def test_a_user_receives_no_invisible_records(office: Office, receiver: Receiver) -> None:
    owner, clerk = office.company.users[0].id, office.company.users[-1].id
    office.app.subscriptions.by_id[hook(office)]["user_id"] = clerk

    office.company.edit_person(1, visible_to=1, owner_id=owner)
    office.company.edit_person(1, owner_id=clerk)
    office.delivery.run_due()

    assert [payload["data"]["owner_id"] for payload in receiver.payloads()] == [clerk]


def test_a_webhook_of_the_first_version_has_its_format(office: Office, receiver: Receiver) -> None:
    office.app.subscriptions.by_id[hook(office)]["version"] = "1.0"
    receiver.status = "500 Oops"

    office.edit()
    office.pass_by(3)

    first, second = receiver.payloads()
    assert (first["retry"], second["retry"]) == (0, 1)
    assert (first["event"], first["meta"]["id"], first["current"]["name"]) == ("updated.person", 1, "Edited 1")
    assert first["previous"].keys() == first["current"].keys()


def test_a_slow_receiver_does_not_hold_up_the_others(company: Company) -> None:
    slow, quick = Receiver(), Receiver()
    app = create_app(company, webhook_session=session_for({ORIGIN: slow, "http://quick.test": quick}))
    api = Api(app.test_client())
    release, received = threading.Event(), threading.Semaphore(0)
    slow.hear = lambda _payload: release.wait(60)
    quick.hear = lambda _payload: received.release()
    api.ok("POST", HOOKS, BODY)
    api.ok("POST", HOOKS, {**BODY, "subscription_url": "http://quick.test/"})

    for number in range(20):
        company.edit_person(1, name=f"Edited {number}")
    all_received = all(received.acquire(timeout=60) for _ in range(20))
    stuck = len(slow.got)
    release.set()
    app.delivery.drain()

    assert all_received
    assert (stuck, len(slow.got)) == (0, 20)


def test_the_threads_wait_for_a_retry_by_the_companys_clock(company: Company, receiver: Receiver, clock: Clock) -> None:
    app = create_app(company, webhook_session=session_for({ORIGIN: receiver}))
    fourth = threading.Event()

    def let_pass(changed: threading.Condition, seconds: float | None) -> None:
        if seconds is None:
            changed.wait()
        else:
            clock.now += seconds * app.delivery.schedule.clock_factor

    app.delivery.schedule.threads = 1
    app.delivery.schedule.clock_factor = 60
    app.delivery.schedule.wait = let_pass
    receiver.status = "500 Oops"
    receiver.hear = lambda payload: fourth.set() if payload["meta"]["attempt"] == 4 else None
    Api(app.test_client()).ok("POST", HOOKS, BODY)
    app.delivery.rules = replace(app.delivery.rules, delete_after_s=200)

    company.edit_person(1, name="Edited")

    assert fourth.wait(60)
    app.delivery.drain()
    assert receiver.attempts() == [1, 2, 3, 4]


def hook(office: Office) -> int:
    return int(next(iter(office.app.subscriptions.by_id)))
