"""A question whose answer may take long: asked in a thread of its own, waited for a moment, and told when it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pipeline.slow_work import REMOTE
from pipeline.telemetry import logger

T = TypeVar("T")


class Patient(Generic[T]):
    """Asks at most once at a time, for all viewers together. An answer that is no longer fresh is good enough while a new one is
    on its way, up to `stale_s`; without any, one waits for `patience_s` and then goes on with None.
    """

    def __init__(
        self,
        question: Callable[[], T],
        *,
        fresh_s: float,
        stale_s: float,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._question, self._clock = question, clock
        self._fresh_s, self._stale_s, self._patience_s = fresh_s, stale_s, patience_s
        self._lock = threading.Lock()
        self._asked: threading.Event | None = None
        self._answer: tuple[float, T] | None = None

    def __call__(self) -> T | None:
        known = self._known(self._fresh_s)
        if known is not None:
            return known[1]
        asked = self._begin_asking()
        known = self._known(self._stale_s)
        if known is None:
            with REMOTE.entered():
                asked.wait(self._patience_s)
            known = self._known(self._stale_s)
        return known[1] if known is not None else None

    def _known(self, oldest_s: float) -> tuple[float, T] | None:
        with self._lock:
            known = self._answer
        return known if known is not None and self._clock() - known[0] < oldest_s else None

    def _begin_asking(self) -> threading.Event:
        with self._lock:
            if self._asked is None:
                self._asked = threading.Event()
                threading.Thread(target=self._ask, args=(self._asked,), daemon=True).start()
            return self._asked

    def _ask(self, asked: threading.Event) -> None:
        try:
            answer = self._question()
            with self._lock:
                self._answer = (self._clock(), answer)
        except Exception as failure:  # noqa: BLE001 - the next one asks anew; nobody waits for this thread's end
            logger().warning("console.unanswered", error=type(failure).__name__)
        finally:
            with self._lock:
                self._asked = None
            asked.set()
