"""A question whose answer may take long: asked in a thread of its own, waited for a moment, and told when it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pipeline.telemetry import logger

T = TypeVar("T")


class Patient(Generic[T]):
    """Asks at most once at a time, for all viewers together. Nobody waits longer than `patience_s`: they get the last answer,
    or None before the first.
    """

    def __init__(
        self,
        question: Callable[[], T],
        *,
        fresh_s: float,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._question, self._fresh_s, self._patience_s, self._clock = question, fresh_s, patience_s, clock
        self._lock = threading.Lock()
        self._asked: threading.Event | None = None
        self._answer: tuple[float, T] | None = None

    def __call__(self) -> T | None:
        with self._lock:
            if self._answer is not None and self._clock() - self._answer[0] < self._fresh_s:
                return self._answer[1]
            if self._asked is None:
                self._asked = threading.Event()
                threading.Thread(target=self._ask, args=(self._asked,), daemon=True).start()
            asked = self._asked
        asked.wait(self._patience_s)
        with self._lock:
            return self._answer[1] if self._answer is not None else None

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

    def forget(self) -> None:
        """The next one asks anew."""
        with self._lock:
            self._answer = None
