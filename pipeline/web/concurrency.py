"""How many requests a web process answers at a time, and what happens when none of them makes progress.

Requests wait in the event loop, so waiting takes no thread. When no running request has made progress for STALLED_S, for
example because the database does not answer, waiting requests get a 503. So does a request when WAITING others wait.
A request that begins something slow releases its slot (`pipeline.slow_work`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from pipeline.slow_work import Overloaded

AT_ONCE: Final = 4
"""The threads share the interpreter's lock: more of them make each answer slower and answer no more requests."""
WAITING: Final = 400
STALLED_S: Final = 2.0


class Slot:
    """The right to work on one request."""

    def __init__(self, slots: RequestSlots, loop: asyncio.AbstractEventLoop) -> None:
        self._slots, self._loop = slots, loop
        self._is_held = True

    def release_from_thread(self) -> None:
        """Release it from any thread; a second call does nothing."""
        self._loop.call_soon_threadsafe(self.release)

    def release(self) -> None:
        """Release it from the thread of the event loop; a second call does nothing."""
        if self._is_held:
            self._is_held = False
            self._slots._release()  # noqa: SLF001 - a slot belongs to its RequestSlots


class RequestSlots:
    """The slots of one event loop."""

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        stalled_s: float = STALLED_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._free = at_once
        self._most_waiting, self._stalled_s = waiting, stalled_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._progress_at = clock()

    async def acquire(self) -> Slot:
        """Wait for a slot. Raises Overloaded if the running requests are stuck, or too many wait already."""
        loop = asyncio.get_running_loop()
        if self._free:
            self._free -= 1
            self._progress_at = self._clock()
            return Slot(self, loop)
        if len(self._waiting) >= self._most_waiting:
            raise Overloaded("a turn")
        assigned: asyncio.Future[None] = loop.create_future()
        self._waiting.append(assigned)
        try:
            while not assigned.done():
                left_s = self._progress_at + self._stalled_s - self._clock()
                if left_s <= 0:
                    raise Overloaded("a turn")
                await asyncio.wait([assigned], timeout=left_s)
        except BaseException:
            self._stop_waiting(assigned)
            raise
        return Slot(self, loop)

    def _release(self) -> None:
        self._progress_at = self._clock()
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1

    def _stop_waiting(self, assigned: asyncio.Future[None]) -> None:
        """Pass a slot that was assigned at the same moment to the next request."""
        if assigned.done():
            self._release()
        else:
            self._waiting.remove(assigned)
