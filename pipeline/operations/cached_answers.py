"""Answers that all viewers share, so that a page that polls every two seconds costs one query for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from pipeline.slow_work import REMOTE
from pipeline.telemetry import logger

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
KEPT = 256

_all: list[Shared[Any, Any]] = []


def forget_all() -> None:
    """Drop all cached answers: after an action that several pages show, and for tests and measurements."""
    for each in _all:
        each.forget()


class Shared(Generic[K, T]):
    """Calls `question` at most once per key and `fresh_s`; concurrent callers wait for the same answer."""

    def __init__(
        self, question: Callable[[K], T], *, fresh_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._question, self._fresh_s, self._clock = question, fresh_s, clock
        self._lock = threading.Lock()
        self._asking: dict[K, threading.Lock] = {}
        self._answers: dict[K, tuple[float, T]] = {}
        _all.append(self)

    def __call__(self, key: K) -> T:
        with self._lock:
            if len(self._asking) >= KEPT and key not in self._asking:
                self._asking = {each: lock for each, lock in self._asking.items() if lock.locked()}
            asking = self._asking.setdefault(key, threading.Lock())
        with asking:
            known = self._answers.get(key)
            if known is None or self._clock() - known[0] >= self._fresh_s:
                if len(self._answers) >= KEPT:
                    self.forget()
                known = (self._clock(), self._question(key))
                self._answers[key] = known
            return known[1]

    def forget(self) -> None:
        """Drop all answers, after a change that the next answer must show."""
        self._answers.clear()


class BackgroundValue(Generic[T]):
    """The answer of a slow query. It runs in a thread, at most once at a time for all callers.

    An answer older than `fresh_s` is returned while a new one is computed, up to `stale_s`.
    """

    def __init__(
        self,
        question: Callable[[], T],
        *,
        fresh_s: float,
        stale_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._question, self._clock = question, clock
        self._fresh_s, self._stale_s = fresh_s, stale_s
        self._lock = threading.Lock()
        self._pending: threading.Event | None = None
        self._answer: tuple[float, T] | None = None

    def __call__(self, patience_s: float) -> T | None:
        """Return the answer, or None if it does not arrive within `patience_s`."""
        known = self._known(self._fresh_s)
        if known is not None:
            return known[1]
        answered = self._start()
        known = self._known(self._stale_s)
        if known is None:
            with REMOTE.entered():
                answered.wait(patience_s)
            known = self._known(self._stale_s)
        return known[1] if known is not None else None

    def _known(self, oldest_s: float) -> tuple[float, T] | None:
        with self._lock:
            known = self._answer
        return known if known is not None and self._clock() - known[0] < oldest_s else None

    def _start(self) -> threading.Event:
        with self._lock:
            if self._pending is None:
                self._pending = threading.Event()
                threading.Thread(target=self._compute, args=(self._pending,), daemon=True).start()
            return self._pending

    def _compute(self, answered: threading.Event) -> None:
        try:
            answer = self._question()
            with self._lock:
                self._answer = (self._clock(), answer)
        except Exception as failure:  # noqa: BLE001 - the next caller starts it again
            logger().warning("console.unanswered", error=type(failure).__name__)
        finally:
            with self._lock:
                self._pending = None
            answered.set()
