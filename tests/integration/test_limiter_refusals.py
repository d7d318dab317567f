"""Repeated 429: pauses grow for all workers until a call is served, with any headers."""

from __future__ import annotations

import pytest

from pipeline.clients.limits import LONGEST_PAUSE_S, BurstLimiter, LocalWindow
from pipeline.connections import shared_redis


class Clock:
    now = 1_000_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiter(key: str, clock: Clock) -> BurstLimiter:
    return BurstLimiter(shared_redis(), key=key, limit=80, redis_time=lambda: clock.now, sleep=lambda _s: None)


def refusals(limits: BurstLimiter, clock: Clock, count: int, asked_s: float = 2.0) -> list[float]:
    pauses = []
    for _ in range(count):
        pauses.append(limits.refused("api", asked_s, 0.0))
        clock.now += pauses[-1]
    return pauses


def test_pauses_double_up_to_minutes(database: str, clock: Clock) -> None:
    pauses = refusals(limiter("grow", clock), clock, 10)

    assert pauses[:5] == [2, 4, 8, 16, 32]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_longer_wish_of_the_server_holds(database: str, clock: Clock) -> None:
    assert refusals(limiter("wish", clock), clock, 3, 7.0) == [7, 7, 8]


@pytest.mark.defect(
    8, "A refusal for the rate limit was met with the next call at once; when to come again was not read."
)
def test_all_workers_keep_the_pause_and_a_served_call_ends_the_growth(database: str, clock: Clock) -> None:
    first, second = limiter("shared", clock), limiter("shared", clock)
    refusals(first, clock, 2)
    third = second.refused("api", 2.0, 0.0)
    waits = first.reserve("api")
    clock.now += third
    second.served("api")

    assert (third, waits) == (8, pytest.approx(8))
    assert first.refused("api", 2.0, 0.0) == 2


def test_a_refusal_long_afterwards_is_the_first(database: str, clock: Clock) -> None:
    limits = limiter("late", clock)
    refusals(limits, clock, 4)
    clock.now += 601

    assert limits.refused("api", 2.0, 0.0) == 2


def test_calls_in_flight_together_are_one_refusal(database: str, clock: Clock) -> None:
    limits = limiter("together", clock)
    together = []
    for _ in range(16):
        together.append(limits.refused("api", 2.0, 0.3))
        clock.now += 0.01
    clock.now += 2.0
    late = limits.refused("api", 2.0, 2.2)
    clock.now += 3.0
    again = limits.refused("api", 2.0, 0.3)

    assert together == [2.0] * 16
    assert (late, again) == (2.0, 4.0)


def test_a_refusal_is_the_first_once_calls_passed_for_as_long_as_the_pause(database: str, clock: Clock) -> None:
    limits = limiter("passed", clock)
    refusals(limits, clock, 5)
    clock.now += 31
    soon = limits.refused("api", 2.0, 0.0)
    clock.now += soon + 65

    assert (soon, limits.refused("api", 2.0, 0.0)) == (64, 2)


def test_a_process_without_redis_lets_its_pauses_grow() -> None:
    alone = LocalWindow(5, 2.0)

    assert [alone.refused(at, 2.0, 0.0) for at in (0.0, 2.0, 6.0)] == [2, 4, 8]
    assert alone.reserve(6.0, 1.0) == 8
    assert [alone.refused(9.0, 2.0, 1.5), alone.refused(10_000.0, 2.0, 0.0)] == [5, 2]
