"""The burst limit: so many requests within a rolling two seconds, per token, and ten for the search API.

In: a token and a moment. Out: whether the request may pass, and the x-ratelimit-* headers.
Source: docs page core-api-concepts-rate-limiting.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 2.0
SEARCH_LIMIT = 10
UNLIMITED = 1_000_000  # what the headers say when no limit is set


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Whether a request passes, and what its answer says of the window."""

    passes: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Name the window as Pipedrive does."""
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_s),
        }


class BurstLimiter:
    """Requests of the last two seconds, by token. `limit` None lets everything pass but still counts."""

    def __init__(self, limit: int | None, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._passed: dict[tuple[str, bool], deque[float]] = {}
        self._lock = threading.Lock()

    def take(self, token: str, *, search: bool) -> Allowance:
        """Count one request of a token, unless the window is full; search has a window of its own."""
        now = self._clock()
        limit = self._limit(search=search)
        with self._lock:
            passed = self._passed.setdefault((token, search), deque())
            while passed and passed[0] <= now - WINDOW_S:
                passed.popleft()
            passes = len(passed) < limit
            if passes:
                passed.append(now)
            reset_s = max(1, math.ceil(passed[0] + WINDOW_S - now)) if passed else 1
            return Allowance(passes=passes, limit=limit, remaining=limit - len(passed), reset_s=reset_s)

    def _limit(self, *, search: bool) -> int:
        if self.limit is None:
            return UNLIMITED
        return SEARCH_LIMIT if search else self.limit
