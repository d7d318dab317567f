"""Pipedrive's two limits, shared by all workers in Redis: the burst limit of a token, and the daily budget of a company.

Burst: requests in rolling two seconds, per access token.

    acquire → a slot in Redis (`burst.lua`) → wait in place up to one window, or Retryable with the remaining seconds
    observe ← the headers of every answer: the true limit, and calls of others with the same token
    refused ← a 429: no slots before its pause is over; the pause doubles until a call succeeds

Daily budget: one counter of tokens per company, and a share of the budget reserved for live work.

    spend   counts a call's price before it is sent, in Redis (`budget.lua`), or raises Retryable("daily_budget_spent")
    a 429   about the budget closes it for every lane until midnight UTC; one call retries every half an hour

Without Redis each process has its own small burst limit, so that an outage of Redis never causes a ban. The ledger is read
before each call, and each batch finds out for itself that the budget is closed. A counter that Redis has lost starts from
today's ledger.
Source: https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import redis
import structlog

from pipeline.clients.http_answers import DAILY_PAUSE_S, daily_headers, error_for
from pipeline.clients.http_transport import Response
from pipeline.domain.budget import ClosingUnknown
from pipeline.errors import NOTHING_SENT, PipelineError, Retryable

logger = structlog.get_logger(__name__)

SERVER_WINDOW_S = 2.0
WINDOW_S = 2.05
"""Ours is a little longer, because calls reach the server a few milliseconds before or after their slots. With 30 ms,
two of 600 calls came too early on a busy machine. It costs 2.4 % of the limit."""
LONGEST_WAIT_S = 2.1
"""One window: a worker that is the only one with its token never fails because of its own calls."""
SEARCH_LIMIT = 10
"""Calls of the search API in two seconds, on any plan."""
LOCAL_LIMIT = 5
"""Calls per two seconds of one process while Redis is unavailable."""
REDIS_PAUSE_S = 5.0
"""How long a failed Redis is not called, so that not every call waits for its timeout."""
LONGEST_PAUSE_S = 300.0
FORGOTTEN_S = 10.0
"""A 429 this long after the last pause, or as long after it as the pause was, counts as the first one again."""
_LATENESS_S = 0.25

_BURST_LUA = files("pipeline.clients").joinpath("burst.lua").read_text()


_BUDGET_LUA = files("pipeline.clients").joinpath("budget.lua").read_text()
CORRECTION_S = 1.0
_BUDGET_UNKNOWN = frozenset({401, 403, 429})
"""Answers after which the budget may still be closed: they come before Pipedrive checks the budget, or because of it."""


class BurstLimiter:
    """The limits of one access token; `key` identifies the token and must not be one.

    limit  assumed calls per two seconds until an answer has the limit; None or 0 switches the limiter off
    """

    def __init__(
        self,
        connection: redis.Redis,
        *,
        key: str,
        limit: int | None,
        search_limit: int = SEARCH_LIMIT,
        window_s: float = WINDOW_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        redis_time: Callable[[], float] | None = None,
    ) -> None:
        self._limits = {"api": limit or 0, "search": search_limit if limit else 0}
        self._key = key
        self._window_s = window_s
        self._sleep = sleep
        self._clock = clock
        self._redis_time = redis_time
        self._script = _SharedScript(connection, _BURST_LUA, clock, "limiter.redis_unavailable", limit=LOCAL_LIMIT)
        self._local = {bucket: LocalWindow(min(LOCAL_LIMIT, n), window_s) for bucket, n in self._limits.items() if n}
        self._known: dict[str, int] = {}
        self._refused: set[str] = set()

    def acquire(self, bucket: str = "api") -> None:
        """Wait for a slot: not at all, or up to one window in place.

        Raises: Retryable("rate_limited") if the slot is later; nothing is reserved then.
        """
        while (wait_s := self.reserve(bucket)) > 0:
            if wait_s > LONGEST_WAIT_S:
                raise Retryable("rate_limited", f"{bucket}: all slots are taken", retry_after_s=round(wait_s, 3))
            self._sleep(wait_s)
            if self._run(bucket, "paused", default=lambda: 0.0) <= 0:
                return

    def reserve(self, bucket: str = "api", *, longest_wait_s: float = LONGEST_WAIT_S) -> float:
        """Return the seconds until the next free slot, which is reserved if it is within `longest_wait_s`."""
        if not self._limits[bucket]:
            return 0.0
        local = self._local[bucket]
        return self._run(
            bucket, "reserve", _micros(longest_wait_s), default=lambda: local.reserve(self._clock(), longest_wait_s)
        )

    def observe(self, bucket: str, rates: tuple[int, int] | None, duration_s: float) -> None:
        """Correct the limit by an answer's (limit, remaining); make no call if it contains nothing new and slots are left."""
        if rates is None or not self._limits[bucket]:
            return
        limit, remaining = rates
        if self._known.get(bucket) == limit and remaining * 4 > limit:
            return
        self._known[bucket] = limit
        age = _micros(SERVER_WINDOW_S + duration_s + _LATENESS_S)
        self._run(bucket, "observe", limit - remaining, age, default=lambda: 0.0, limit=limit)

    def refused(self, bucket: str, requested_s: float, took_s: float) -> float:
        """Store a 429 with this pause, `took_s` after its call was sent; return how long to pause.

        The pause doubles if a call that was sent after the last pause is refused again. Several calls are in flight at a time:
        those that were sent before the pause ended do not lengthen it.
        """
        self._refused.add(bucket)
        if not self._limits[bucket]:
            return requested_s
        local = self._local[bucket]
        return self._run(
            bucket,
            "refused",
            _micros(requested_s),
            _micros(took_s),
            default=lambda: local.refused(self._clock(), requested_s, took_s),
        )

    def served(self, bucket: str) -> None:
        """Store an answer that is not a 429; make no call unless this limiter has seen one."""
        if bucket in self._refused:
            self._refused.discard(bucket)
            self._run(bucket, "served", default=lambda: 0.0)

    def pause(self, bucket: str, seconds: float) -> None:
        """Block all slots for this time, as a 429 requests."""
        if self._limits[bucket]:
            local = self._local[bucket]
            self._run(bucket, "pause", _micros(seconds), default=lambda: local.pause(self._clock(), seconds))

    def _run(
        self, bucket: str, operation: str, *values: int, default: Callable[[], float], limit: int | None = None
    ) -> float:
        prefix = f"pipedrive:burst:{{{self._key}}}:{bucket}"
        now = _micros(self._redis_time()) if self._redis_time else ""
        padded = [*values, "", ""][:2]
        arguments: list[Any] = [operation, _micros(self._window_s), limit or self._limits[bucket], *padded, now]
        micros = self._script.run([f"{prefix}:slots", f"{prefix}:state"], arguments)
        return default() if micros is None else float(micros) / 1e6


class LocalWindow:
    """The burst limit within one process: never more than `limit` slots in any rolling window."""

    def __init__(self, limit: int, window_s: float) -> None:
        self._window_s = window_s
        self._slots: deque[float] = deque(maxlen=limit)
        self._paused_until = float("-inf")
        self._refusals = 0
        self._pause_s = 0.0
        self._lock = threading.Lock()

    def reserve(self, now: float, longest_wait_s: float) -> float:
        with self._lock:
            slot = max(now, self._paused_until, *self._slots)
            if len(self._slots) == self._slots.maxlen:
                slot = max(slot, self._slots[0] + self._window_s)
            if slot - now <= longest_wait_s:
                self._slots.append(slot)
            return slot - now

    def refused(self, now: float, requested_s: float, took_s: float) -> float:
        with self._lock:
            if now - took_s < self._paused_until:
                self._paused_until = max(self._paused_until, now + requested_s)
                return self._paused_until - now
            if now > self._paused_until + max(self._pause_s, FORGOTTEN_S):
                self._refusals = 0
            self._refusals += 1
            self._pause_s = max(requested_s, grown_s(self._refusals))
            self._paused_until = now + self._pause_s
            return self._pause_s

    def pause(self, now: float, seconds: float) -> float:
        with self._lock:
            self._paused_until = max(self._paused_until, now + seconds)
            return 0.0


def grown_s(refusals: int) -> float:
    """Return the minimum pause after this many consecutive 429: 2 s, 4 s, 8 s, … five minutes."""
    return min(LONGEST_PAUSE_S, float(2 ** min(refusals, 20)))


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


class TokenBudget:
    """The daily budget of one company for one lane.

    company  key of the company
    lane     the spending lane, for the text of a refusal
    ceiling  how many tokens may be spent in total after a call of this lane; None leaves the limit to Pipedrive
    daily_tokens  the total that `ceiling` is a part of; 0 is without limit
    ledger   how many tokens the company has spent today, as far as they are stored
    """

    def __init__(
        self,
        connection: redis.Redis,
        *,
        company: str,
        lane: str,
        ceiling: int | None,
        daily_tokens: int = 0,
        ledger: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        redis_time: Callable[[], float] | None = None,
    ) -> None:
        self._key = f"pipedrive:budget:{{{company}}}"
        self._lane = lane
        self._ceiling = ceiling
        self._daily_tokens = daily_tokens
        self._ledger = ledger
        self._clock = clock
        self._redis_time = redis_time
        self._script = _SharedScript(connection, _BUDGET_LUA, clock, "budget.redis_unavailable")
        self._spent_locally = 0
        self._corrected_at = float("-inf")

    def spend(self, tokens: int, call: Callable[[], Response]) -> Response:
        """Send a call of this price, if the budget allows it.

        Raises: Retryable("daily_budget_spent") with the seconds to wait, and then nothing was sent; the errors of `call`.
        """
        is_probe = self._take(tokens)
        try:
            response = call()
        except PipelineError as failure:
            if failure.reason in NOTHING_SENT:
                self._run("give_back", tokens)
            raise
        if response.status == 429:
            self._run("give_back", tokens)
            self._close_if_budget_spent(response)
            return response
        self._use_remaining_tokens(response)
        if is_probe and response.status < 500 and response.status not in _BUDGET_UNKNOWN:
            self._run("open")
        return response

    def closed_s(self) -> float | None:
        """Return the seconds until Pipedrive is called again after it refused calls for today; None if it has not.

        Raises: ClosingUnknown while Redis, the only store of this, is unavailable.
        """
        found = self._run("look")
        if found is None:
            raise ClosingUnknown
        word, seconds = found
        return seconds if word == "closed" else None

    def _take(self, tokens: int) -> bool:
        """Count the price; return True if this call is the one that checks whether the budget is still closed."""
        answer = self._run("take", tokens)
        if answer and answer[0] == "unknown":
            answer = self._run("take", tokens, ledger=self._ledger())
        word, wait_s = answer or self._take_locally(tokens)
        if word == "kept":
            raise Retryable(
                "daily_budget_spent", f"{self._lane}: the rest of the day is kept for live work", retry_after_s=wait_s
            )
        if word == "closed":
            raise Retryable("daily_budget_spent", "Pipedrive refuses calls for today", retry_after_s=wait_s)
        return word == "probe"

    def _take_locally(self, tokens: int) -> tuple[str, float]:
        if self._ceiling is not None and self._ledger() + self._spent_locally + tokens > self._ceiling:
            return "kept", DAILY_PAUSE_S
        self._spent_locally += tokens
        return "go", 0.0

    def _use_remaining_tokens(self, response: Response) -> None:
        """Replace our count by Pipedrive's own figure of the remaining budget, at most once a second per client."""
        day = daily_headers(response)
        if day is None or self._clock() < self._corrected_at + CORRECTION_S:
            return
        self._corrected_at = self._clock()
        limit, remaining = day
        self._run("correct", max(limit, self._daily_tokens) - remaining)

    def _close_if_budget_spent(self, response: Response) -> None:
        error = error_for(response)
        if isinstance(error, Retryable) and error.reason == "daily_budget_spent":
            self._run("close", error.retry_after_s or DAILY_PAUSE_S)
            logger.warning("budget.closed", lane=self._lane, asked_again_s=error.retry_after_s)

    def _run(self, operation: str, amount: float = 0, *, ledger: int | None = None) -> tuple[str, float] | None:
        """Return (word, seconds) of the script; None while Redis is unavailable."""
        given: list[str | float] = [
            operation,
            amount,
            "" if self._ceiling is None else self._ceiling,
            "" if ledger is None else ledger,
            self._redis_time() if self._redis_time else "",
        ]
        answer = self._script.run([self._key], given)
        return None if answer is None else (answer[0].decode(), float(answer[1]))


class _SharedScript:
    """A script in Redis. After Redis failed, it is not called for a while, so that not every call waits for a timeout."""

    def __init__(
        self, connection: redis.Redis, lua: str, clock: Callable[[], float], event: str, **facts: object
    ) -> None:
        self._script = connection.register_script(lua)
        self._clock = clock
        self._event = event
        self._facts = facts
        self._redis_back_at = float("-inf")

    def run(self, keys: list[str], arguments: list[Any]) -> Any:
        """Return the script's answer; None while Redis is unavailable."""
        if self._clock() < self._redis_back_at:
            return None
        try:
            return self._script(keys=keys, args=arguments)
        except redis.RedisError as error:
            self._redis_back_at = self._clock() + REDIS_PAUSE_S
            logger.warning(self._event, error=type(error).__name__, **self._facts)
            return None
