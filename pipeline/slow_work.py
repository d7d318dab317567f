"""Limit the slow parts of web requests: calls to remote systems, and password hashes.

A web process handles few requests at a time (`pipeline.web.concurrency`). A request that begins something slow releases its slot to
the next request and takes a place in the lane of that work instead. A lane has a bounded queue: a request that finds it full is
answered 503. Workers and commands have no slots, and nothing here delays them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_give_back: ContextVar[Callable[[], None] | None] = ContextVar("give_back", default=None)


class Overloaded(Exception):
    """Too many requests wait for the same kind of work; `lane` names it. The sender may try again in some seconds."""

    def __init__(self, lane: str) -> None:
        super().__init__(f"too many requests wait for {lane}")
        self.lane = lane


class SlowLane:
    """Work of one kind: `at_once` of it run, `waiting` requests wait for `patience_s` at most."""

    def __init__(self, name: str, *, at_once: int, waiting: int, patience_s: float) -> None:
        self.name = name
        self.places = at_once + waiting
        self._free_places = threading.BoundedSemaphore(self.places)
        self._running = threading.BoundedSemaphore(at_once)
        self._patience_s = patience_s

    @property
    def free_places(self) -> int:
        """Return how many more requests it accepts."""
        return self._free_places._value  # noqa: SLF001 - a semaphore does not expose its value

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Do the work of the block in this lane. Raises Overloaded when its queue is full or does not move."""
        give_back = _give_back.get()
        if give_back is None:  # no web request, or inside a lane already
            yield
            return
        if not self._free_places.acquire(blocking=False):
            raise Overloaded(self.name)
        inside = _give_back.set(None)
        try:
            give_back()
            if not self._running.acquire(timeout=self._patience_s):
                raise Overloaded(self.name)
            try:
                yield
            finally:
                self._running.release()
        finally:
            _give_back.reset(inside)
            self._free_places.release()


@contextmanager
def web_request(give_back: Callable[[], None]) -> Iterator[None]:
    """Bound the slow work of this thread while it answers a web request.

    give_back  returns the request's turn; it may be called any number of times
    """
    outside = _give_back.set(give_back)
    try:
        yield
    finally:
        _give_back.reset(outside)


REMOTE: Final = SlowLane("remote calls", at_once=4, waiting=8, patience_s=8.0)
PASSWORDS: Final = SlowLane("passwords", at_once=1, waiting=9, patience_s=8.0)
"""Argon2 takes four threads and 64 MiB for each hash: two at a time would only share the same processors."""
LANES: Final = (REMOTE, PASSWORDS)
