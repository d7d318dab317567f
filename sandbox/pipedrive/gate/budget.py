"""The company's day: how many tokens all its callers together may spend until midnight.

In: what a call costs. Out: whether it may pass. The reference names no zone for midnight; here it is UTC, by the company's clock.
Source: docs page core-api-concepts-rate-limiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

DAY_S = 86_400


class DailyBudget:
    """Tokens of one company and one day. `limit` None lets everything pass but still counts."""

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
            self._turn_the_page()
            return self._spent

    @spent.setter
    def spent(self, tokens: int) -> None:
        with self._lock:
            self._turn_the_page()
            self._spent = tokens

    def take(self, cost: int) -> bool:
        """Spend what a call costs, unless the day has not that much left."""
        with self._lock:
            self._turn_the_page()
            if self.limit is not None and self._spent + cost > self.limit:
                return False
            self._spent += cost
            return True

    def described(self) -> dict[str, Any]:
        """{budget, spent, resets_in_s}"""
        return {"budget": self.limit, "spent": self.spent, "resets_in_s": round(DAY_S - self._clock() % DAY_S)}

    def _turn_the_page(self) -> None:
        if self._day != self._today():
            self._day, self._spent = self._today(), 0

    def _today(self) -> int:
        return int(self._clock() // DAY_S)
