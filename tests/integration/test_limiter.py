"""The burst script in a real Redis: many workers, one token, never more than the limit in any rolling two seconds.

Time is handed to the script, so no call sleeps. Redis is the one of TEST_REDIS_URL, else one that answers on this machine
(database 15), else the embedded Valkey.
"""

from __future__ import annotations

import heapq
import os
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from pipeline.clients.limits import LONGEST_WAIT_S, WINDOW_S, BurstLimiter, LocalWindow
from pipeline.errors import Retryable
from pipeline.local import servers
from pipeline.settings import Settings

MICROSECOND = 1e-6


class Clock:
    """A time that threads may move on but never back."""

    def __init__(self) -> None:
        self._now = 1_795_443_081.123456
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        with self._lock:
            self._now += seconds
            return self._now


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    url = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")
    found = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    if "TEST_REDIS_URL" in os.environ or _answers(found):
        yield found
        found.close()
        return
    found.close()
    yield from _embedded(tmp_path_factory.mktemp("valkey"))


def _answers(connection: redis.Redis) -> bool:
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False


def _embedded(folder: Path) -> Iterator[redis.Redis]:
    settings = Settings(data_dir=folder, database_url="postgresql://unused", broker_url="amqp://unused")
    with servers.serve(settings, name="a test") as found:
        yield redis.Redis.from_url(found.redis_url)
    servers.remove(settings)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(connection: redis.Redis, clock: Clock) -> Iterator[Callable[..., BurstLimiter]]:
    key = f"test-{uuid.uuid4()}"

    def make_limiter(limit: int = 20, **options: float) -> BurstLimiter:
        return BurstLimiter(
            connection, key=key, limit=limit, sleep=lambda seconds: None, redis_time=clock, clock=clock, **options
        )

    yield make_limiter
    connection.delete(*connection.keys(f"*{key}*") or ["nothing"])


def most_in_a_window(slots: list[float], window_s: float = 2.0) -> int:
    ordered = sorted(slots)
    return max(sum(start <= slot < start + window_s for slot in ordered) for start in ordered)


@pytest.mark.defect(8, "All calls of a notification went out at once, however many Pipedrive takes.")
@pytest.mark.parametrize("limit", [1, 10, 20, 80])
def test_no_rolling_window_holds_more_than_the_limit_whatever_eight_workers_do(
    make: Callable[..., BurstLimiter], clock: Clock, limit: int
) -> None:
    def work(seed: int) -> None:
        dice = random.Random(seed)
        limiter = make(limit)
        for _ in range(60):
            limiter.reserve()
            clock.advance(dice.choice([0, 0, 0, 0.001, 0.02, 0.2]) * 10 / limit)

    with ThreadPoolExecutor(8) as workers:
        for done in [workers.submit(work, seed) for seed in range(8)]:
            done.result()

    kept = [float(text) * MICROSECOND for text in _kept(make(limit))]
    assert kept == sorted(kept)
    assert most_in_a_window(kept) == limit


def _kept(limiter: BurstLimiter) -> list[bytes]:
    connection = limiter._script._script.registered_client
    return list(connection.lrange(f"pipedrive:burst:{{{limiter._key}}}:api:slots", 0, -1))


def test_the_script_follows_the_same_rule_as_the_one_in_the_process(
    make: Callable[..., BurstLimiter], clock: Clock
) -> None:
    dice = random.Random(7)
    limiter, model = make(5), LocalWindow(5, WINDOW_S)

    for _ in range(300):
        clock.advance(dice.choice([0, 0.001, 0.3, 1.0]))
        if dice.random() < 0.03:
            limiter.pause("api", 1.5)
            model.pause(clock(), 1.5)
        longest_wait_s = dice.choice([0.0, 2.1, 60.0])
        expected = model.reserve(clock(), longest_wait_s)
        assert limiter.reserve(longest_wait_s=longest_wait_s) == pytest.approx(expected, abs=5 * MICROSECOND)


def test_a_slot_that_is_too_far_away_is_returned_but_not_reserved(
    make: Callable[..., BurstLimiter], clock: Clock
) -> None:
    limiter = make(2)
    assert [limiter.reserve() for _ in range(2)] == [0, 0]

    waits = [limiter.reserve(longest_wait_s=1.0) for _ in range(50)]

    assert waits == [pytest.approx(WINDOW_S)] * 50
    clock.advance(WINDOW_S)
    assert limiter.reserve() == 0


def test_the_limit_is_used_up_to_ninety_seven_percent(make: Callable[..., BurstLimiter], clock: Clock) -> None:
    limiter, start = make(80), clock()

    for _ in range(2400 + 1):
        clock.advance(limiter.reserve())

    assert 0.97 <= 2400 / (80 * (clock() - start) / 2) <= 1


def test_search_has_a_limit_of_its_own(make: Callable[..., BurstLimiter]) -> None:
    limiter = make(20)

    searches = [limiter.reserve("search") for _ in range(11)]

    assert searches[:10] == [0] * 10
    assert searches[10] > 0
    assert limiter.reserve("api") == 0


def test_a_pause_holds_back_every_worker(make: Callable[..., BurstLimiter], clock: Clock) -> None:
    make().pause("api", 30)

    with pytest.raises(Retryable) as caught:
        make().acquire()

    assert caught.value.retry_after_s == 30
    clock.advance(30)
    assert make().reserve() == 0


def test_a_shorter_pause_does_not_end_a_longer_one(make: Callable[..., BurstLimiter]) -> None:
    limiter = make()
    limiter.pause("api", 30)
    limiter.pause("api", 1)

    assert limiter.reserve(longest_wait_s=0) == pytest.approx(30)


@pytest.mark.parametrize(("waits", "free"), [(10, 10), (40, 40)])
def test_the_servers_headers_have_the_true_limit(make: Callable[..., BurstLimiter], waits: int, free: int) -> None:
    limiter = make(20)
    limiter.observe("api", (waits, waits), 0.1)

    at_once = sum(make(20).reserve(longest_wait_s=0) == 0 for _ in range(50))

    assert at_once == free


def test_calls_of_others_with_the_same_token_take_slots(make: Callable[..., BurstLimiter], clock: Clock) -> None:
    limiter = make(20)
    for _ in range(4):
        limiter.reserve()
    clock.advance(0.1)

    limiter.observe("api", (20, 6), 0.1)  # the server counted 14 calls, of which 4 were ours

    assert sum(limiter.reserve(longest_wait_s=0) == 0 for _ in range(20)) == 6


def test_our_own_calls_are_not_taken_for_those_of_others(make: Callable[..., BurstLimiter], clock: Clock) -> None:
    limiter = make(20)
    for used in range(1, 20):
        limiter.reserve()
        clock.advance(0.01)
        limiter.observe("api", (20, 20 - used), 0.01)

    assert limiter.reserve() == 0
    assert limiter.reserve(longest_wait_s=0) > 1


class Server:
    """Pipedrive's side of the limit: arrivals of the last two seconds, ours and those of others with the same token."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self.passed = 0
        self._arrivals: deque[float] = deque()

    def takes(self, at: float) -> bool:
        while self._arrivals and self._arrivals[0] <= at - 2:
            self._arrivals.popleft()
        if len(self._arrivals) >= self.limit:
            return False
        self._arrivals.append(at)
        return True

    def answers(self, at: float) -> tuple[bool, int]:
        """Whether the call passed, and what remains of the limit."""
        passed = self.takes(at)
        self.passed += passed
        self.refused += not passed
        return passed, self.limit - len(self._arrivals)


def simulate(limiter: BurstLimiter, clock: Clock, server: Server, *, others_every_s: float | None) -> None:
    """Eight workers that call as often as they may for 30 s, with up to 30 ms on the way there and back."""
    dice, start = random.Random(3), clock()
    steps: list[tuple[float, int, str, tuple[bool, int] | None]] = [(start, n, "ask", None) for n in range(8)]
    if others_every_s:
        steps += [(start + n * others_every_s, -1, "other", None) for n in range(int(30 / others_every_s))]
    heapq.heapify(steps)
    while steps[0][0] < start + 30:
        at, worker, step, answer = heapq.heappop(steps)
        clock.advance(at - clock())
        on_the_way_s = dice.uniform(0, 0.03)
        if step == "other":
            server.takes(at)
        elif step == "ask":
            wait_s = limiter.reserve()
            is_near = wait_s <= LONGEST_WAIT_S
            following = (at + wait_s + on_the_way_s, "arrive") if is_near else (at + 0.2, "ask")
            heapq.heappush(steps, (following[0], worker, following[1], None))
        elif step == "arrive":
            heapq.heappush(steps, (at + on_the_way_s, worker, "answer", server.answers(at)))
        elif answer:
            passed, remaining = answer
            limiter.observe("api", (server.limit, remaining), 0.03)
            if not passed:
                limiter.pause("api", 1)
            heapq.heappush(steps, (at, worker, "ask", None))


def test_a_server_that_counts_arrivals_refuses_no_call_and_is_fully_used(
    make: Callable[..., BurstLimiter], clock: Clock
) -> None:
    server = Server(40)

    simulate(make(20), clock, server, others_every_s=None)

    assert server.refused == 0
    assert server.passed >= 0.97 * 30 / 2 * 40


def test_others_with_the_same_token_cost_few_refusals(make: Callable[..., BurstLimiter], clock: Clock) -> None:
    server = Server(40)

    simulate(make(20), clock, server, others_every_s=0.2)

    assert server.refused <= 0.1 * server.passed
    assert server.passed >= 0.6 * 30 / 2 * 40


def test_without_a_time_of_ours_redis_uses_its_own(connection: redis.Redis) -> None:
    limiter = BurstLimiter(connection, key=f"test-{uuid.uuid4()}", limit=3)

    waits = [limiter.reserve() for _ in range(4)]

    assert waits[:3] == [0, 0, 0]
    assert 1.5 < waits[3] <= WINDOW_S
    assert 0 < connection.pttl(f"pipedrive:burst:{{{limiter._key}}}:api:slots") < 10_000
    connection.delete(*connection.keys(f"*{limiter._key}*"))
