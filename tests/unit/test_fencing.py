"""A write starts only while the lease is certainly good, and ends before the lease does."""

from __future__ import annotations

import time
from contextlib import nullcontext
from contextvars import copy_context

import pytest
from freezegun import freeze_time

from pipeline.clients.http_transport import HttpTransport, Request
from pipeline.errors import LostLease, Retryable
from pipeline.fencing import Lease, holding, write_deadline_s
from tests.unit.clients.canned import CannedApp, json_answer
from tests.wsgi_adapter import session_for


def test_work_without_a_lease_has_its_whole_time() -> None:
    assert write_deadline_s(60.0) == 60.0


def test_a_write_ends_before_its_lease_does() -> None:
    with freeze_time("2026-11-30") as clock:
        lease = Lease(30.0, time.monotonic())
        assert lease.write_deadline_s(60.0) == pytest.approx(29.0)
        clock.tick(15.0)
        assert lease.write_deadline_s(60.0) == pytest.approx(14.0)
        assert lease.write_deadline_s(8.0) == 8.0


def test_no_write_starts_when_less_than_a_third_is_left() -> None:
    with freeze_time("2026-11-30") as clock:
        lease = Lease(30.0, time.monotonic())
        clock.tick(20.5)
        with pytest.raises(Retryable) as stopped:
            lease.write_deadline_s(1.0)
        lease.extended(time.monotonic())

        assert stopped.value.reason == "lease_uncertain"
        assert lease.write_deadline_s(1.0) == 1.0


def test_an_extension_counts_from_before_it_was_asked_for() -> None:
    with freeze_time("2026-11-30") as clock:
        lease, asked = Lease(30.0, time.monotonic()), time.monotonic()
        clock.tick(25.0)
        lease.extended(asked)

        with pytest.raises(Retryable):
            lease.write_deadline_s(1.0)


def test_nothing_is_written_under_a_lost_lease() -> None:
    lease = Lease(30.0, time.monotonic())
    lease.lost()

    with pytest.raises(LostLease):
        lease.write_deadline_s(1.0)


def test_threads_see_the_lease_through_a_copied_context() -> None:
    lease = Lease(30.0, time.monotonic() - 100)
    with holding(lease):
        context = copy_context()
    with pytest.raises(Retryable):
        context.run(write_deadline_s, 1.0)
    assert write_deadline_s(1.0) == 1.0


@pytest.mark.parametrize(
    ("method", "only_asks", "is_sent"),
    [("POST", False, False), ("PATCH", False, False), ("POST", True, True), ("GET", False, True)],
)
def test_every_write_of_every_client_is_held_back(method: str, only_asks: bool, is_sent: bool) -> None:
    app = CannedApp(json_answer({}))
    request = Request(method=method, url="http://remote.test/x", headers={}, only_asks=only_asks)
    with holding(Lease(30.0, time.monotonic() - 25)), nullcontext() if is_sent else pytest.raises(Retryable):
        HttpTransport(session_for({"http://remote.test": app})).call(request)

    assert bool(app.asked) == is_sent
