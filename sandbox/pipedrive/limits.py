"""Limits of requests: the burst window of a token, the day's tokens of the company, and the gateway that blocks a token; and
the ledger of all requests.

Source: docs page core-api-concepts-rate-limiting.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

_WINDOW_S = 2.0
_SEARCH_LIMIT = 10
_UNLIMITED = 1_000_000  # in the headers when no limit is set

_DAY_S = 86_400
_CALM_S = 10.0  # a blocked token may call again after so long without a request


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstAllowance:
    """Whether a request passes, and the window that its answer shows."""

    passes: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Return the window as Pipedrive's headers."""
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_s),
        }


class BurstWindow:
    """Requests of a token within a rolling two seconds; ten for the search API. `limit` None lets everything pass but still
    counts.
    """

    def __init__(self, limit: int | None, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._passed: dict[tuple[str, bool], deque[float]] = {}
        self._lock = threading.Lock()

    def take(self, token: str, *, search: bool) -> BurstAllowance:
        """Count one request of a token, unless the window is full; search has a window of its own."""
        now = self._clock()
        limit = self._limit(search=search)
        with self._lock:
            passed = self._passed.setdefault((token, search), deque())
            while passed and passed[0] <= now - _WINDOW_S:
                passed.popleft()
            passes = len(passed) < limit
            if passes:
                passed.append(now)
            reset_s = max(1, math.ceil(passed[0] + _WINDOW_S - now)) if passed else 1
            return BurstAllowance(passes=passes, limit=limit, remaining=limit - len(passed), reset_s=reset_s)

    def _limit(self, *, search: bool) -> int:
        if self.limit is None:
            return _UNLIMITED
        return _SEARCH_LIMIT if search else self.limit


class DailyBudget:
    """Tokens that all callers of the company may spend until midnight. `limit` None lets everything pass but still counts.

    The reference names no zone for midnight; here it is UTC, by the company's clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.limit: int | None = None
        self._clock = clock
        self._spent = 0
        self._day = self._today()
        self._lock = threading.Lock()

    @property
    def spent(self) -> int:
        """Tokens spent since midnight."""
        with self._lock:
            self._start_day()
            return self._spent

    @spent.setter
    def spent(self, tokens: int) -> None:
        with self._lock:
            self._start_day()
            self._spent = tokens

    def take(self, cost: int) -> bool:
        """Spend what a call costs, unless less is left for today."""
        with self._lock:
            self._start_day()
            if self.limit is not None and self._spent + cost > self.limit:
                return False
            self._spent += cost
            return True

    def described(self) -> dict[str, Any]:
        """{budget, spent, resets_in_s}"""
        return {"budget": self.limit, "spent": self.spent, "resets_in_s": round(_DAY_S - self._clock() % _DAY_S)}

    def _start_day(self) -> None:
        if self._day != self._today():
            self._day, self._spent = self._today(), 0

    def _today(self) -> int:
        return int(self._clock() // _DAY_S)


class Gateway:
    """The gateway in front of the API: blocks an API token after `after` refusals (429) within ten seconds; None never blocks.

    How many refusals Pipedrive allows is documented nowhere.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.after: int | None = None
        self._clock = clock
        self._refused: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def note_refusal(self, token: str) -> None:
        """Note that a request of this token was refused."""
        with self._lock:
            self._refused.setdefault(token, deque()).append(self._clock())

    def blocks(self, token: str) -> bool:
        """Return whether a request of this token is blocked, which counts as a refusal too."""
        if self.after is None:
            return False
        with self._lock:
            now, refused = self._clock(), self._refused.get(token, deque())
            while refused and refused[0] <= now - _CALM_S:
                refused.popleft()
            is_blocked = len(refused) >= self.after
            if is_blocked:
                refused.append(now)
            return is_blocked


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One request that changed a record. `moment` is epoch seconds; the body is as it was sent."""

    number: int
    moment: float
    method: str
    path: str
    status: int
    entity_id: int | str | None
    body: str
    body_sha256: str


class Ledger:
    """Every mutation in order, and counters of requests by kind of call, with what they cost."""

    def __init__(self) -> None:
        self.mutations: list[Mutation] = []
        self.requests: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self._lock = threading.Lock()

    def count(self, call: str, cost: int, status: int) -> None:
        """Count one answered request; one refused for its rate costs no tokens."""
        with self._lock:
            self.requests[call] += 1
            self.tokens[call] += 0 if status == 429 else cost
            self.statuses[status] += 1

    def note(
        self, *, moment: float, method: str, path: str, status: int, entity_id: int | str | None, body: bytes
    ) -> None:
        """Add one mutation that was carried out."""
        with self._lock:
            mutation = Mutation(
                number=len(self.mutations) + 1,
                moment=moment,
                method=method,
                path=path,
                status=status,
                entity_id=entity_id,
                body=body.decode(errors="replace"),
                body_sha256=hashlib.sha256(body).hexdigest(),
            )
            self.mutations.append(mutation)

    def stats(self) -> dict[str, Any]:
        """Return the counters."""
        with self._lock:
            return {
                "requests": dict(self.requests),
                "tokens": dict(self.tokens),
                "statuses": {str(status): number for status, number in self.statuses.items()},
                "requests_total": self.requests.total(),
                "tokens_total": self.tokens.total(),
                "mutations_total": len(self.mutations),
            }

    def entries(self, after: int = 0) -> list[dict[str, Any]]:
        """List mutations with a number above `after`."""
        with self._lock:
            return [asdict(mutation) for mutation in self.mutations[after:]]
