"""Turns at Pipedrive without Redis: the rule itself, waiting in place, and what happens when Redis is away."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clients.limits import LOCAL_LIMIT, REDIS_PAUSE_S, BurstLimiter, LocalWindow
from pipeline.errors import Retryable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class FakeScript:
    """Answers in turn, as the script in Redis would in microseconds; an exception is raised."""

    def __init__(self, *answers: float | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[list[Any]] = []

    def __call__(self, keys: list[str], args: list[Any]) -> float:
        self.asked.append(args)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeRedis:
    def __init__(self, *answers: float | Exception) -> None:
        self.script = FakeScript(*answers)

    def register_script(self, _source: str) -> FakeScript:
        return self.script


def limiter(script: FakeRedis, clock: Clock, limit: int | None = 80) -> BurstLimiter:
    return BurstLimiter(script, key="c1", limit=limit, sleep=clock.sleep, clock=clock)  # type: ignore[arg-type]


def operations(connection: FakeRedis) -> list[str]:
    return [args[0] for args in connection.script.asked]


def test_a_free_slot_is_taken_at_once() -> None:
    connection, clock = FakeRedis(0), Clock()

    limiter(connection, clock).acquire()

    assert operations(connection) == ["reserve"]
    assert clock.slept == []


def test_a_near_slot_is_awaited_in_place() -> None:
    connection, clock = FakeRedis(1_500_000, 0), Clock()

    limiter(connection, clock).acquire()

    assert operations(connection) == ["reserve", "paused"]
    assert clock.slept == [1.5]


def test_a_pause_that_begins_while_a_call_waits_is_kept() -> None:
    connection, clock = FakeRedis(500_000, 900_000, 1_000_000, 0), Clock()

    limiter(connection, clock).acquire()

    assert operations(connection) == ["reserve", "paused", "reserve", "paused"]
    assert clock.slept == [0.5, 1.0]


def test_a_far_slot_is_left_to_the_row() -> None:
    connection, clock = FakeRedis(12_345_678), Clock()

    with pytest.raises(Retryable) as caught:
        limiter(connection, clock).acquire()

    assert (caught.value.reason, caught.value.retry_after_s) == ("rate_limited", 12.346)
    assert clock.slept == []


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_redis_is_not_called(limit: int | None) -> None:
    connection, clock = FakeRedis(99_000_000), Clock()
    free = limiter(connection, clock, limit)

    for bucket in ("api", "search"):
        free.acquire(bucket)
        free.observe(bucket, (10, 0), 0.1)
        free.pause(bucket, 60)

    assert connection.script.asked == []


def test_headers_with_new_information_are_passed_on() -> None:
    connection, clock = FakeRedis(0), Clock()
    shared = limiter(connection, clock)

    for rates in [(80, 79), (80, 40), (80, 20), (160, 150), (160, 149), None]:
        shared.observe("api", rates, 0.1)

    assert [args[2:4] for args in connection.script.asked] == [[80, 1], [80, 60], [160, 10]]


def test_without_redis_a_process_keeps_to_a_small_limit() -> None:
    connection, clock = FakeRedis(redis.ConnectionError("away")), Clock()
    alone = limiter(connection, clock)
    times = []

    for _ in range(20):
        alone.acquire()
        times.append(clock.now)

    assert max(sum(now - 2 < t <= now for t in times) for now in times) == LOCAL_LIMIT
    assert len(connection.script.asked) < 10, "a Redis that is away is not asked for every call"


def test_redis_is_asked_again_after_a_while() -> None:
    connection, clock = FakeRedis(redis.TimeoutError("slow"), 0), Clock()
    shared = limiter(connection, clock)
    shared.acquire()
    shared.acquire()
    assert len(connection.script.asked) == 1

    clock.now += REDIS_PAUSE_S
    shared.acquire()

    assert len(connection.script.asked) == 2


def test_a_pause_is_kept_without_redis_too() -> None:
    connection, clock = FakeRedis(redis.ConnectionError("away")), Clock()
    alone = limiter(connection, clock)

    alone.pause("api", 4)

    with pytest.raises(Retryable) as caught:
        alone.acquire()
    assert caught.value.retry_after_s == 4


@settings(deadline=None, database=None)
@given(
    limit=st.integers(1, 7),
    steps=st.lists(st.tuples(st.floats(0, 1.5), st.sampled_from([0.0, 0.5, 2.0, 60.0])), max_size=60),
)
def test_no_window_ever_holds_more_than_the_limit(limit: int, steps: list[tuple[float, float]]) -> None:
    window, now, taken = LocalWindow(limit, 2.0), 0.0, []

    for step, longest_wait_s in steps:
        now += step
        wait_s = window.reserve(now, longest_wait_s)
        assert wait_s >= 0
        if wait_s <= longest_wait_s:
            taken.append(now + wait_s)

    assert taken == sorted(taken)
    assert all(later - earlier >= 2.0 - 1e-9 for earlier, later in zip(taken, taken[limit:], strict=False))
