"""An answer that all viewers share for a moment: a page that looks every two seconds costs one question, however many look."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
KEPT = 256

_all: list[Shared[Any, Any]] = []


def forget_all() -> None:
    """Ask everything anew: for tests, and for whoever measures."""
    for each in _all:
        each.forget()


class Shared(Generic[K, T]):
    """Asks `question` at most once per key and moment; whoever asks meanwhile waits for that answer."""

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
        """After a change that whoever made it wants to see."""
        self._answers.clear()
