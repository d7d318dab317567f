"""How many requests a web process answers at a time, and what happens when none of them makes progress.

Requests wait in the event loop, so waiting takes no thread. When every request that works has been stuck for STALLED_S,
because the database or something else that it waits for is silent, those that wait are answered 503; so are those that find
WAITING others before them. A request that begins something slow gives its turn back (`pipeline.slow_work`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from pipeline.slow_work import Overloaded

AT_ONCE: Final = 4
"""Threads of one interpreter share one lock: with more at a time, each answer takes longer and no more are given."""
WAITING: Final = 400
STALLED_S: Final = 2.0


class Turn:
    """The right to work on one request. `give_back` may be called from any thread, and more than once."""

    def __init__(self, turns: Turns, loop: asyncio.AbstractEventLoop) -> None:
        self._turns, self._loop = turns, loop
        self._is_held = True

    def give_back(self) -> None:
        self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """The same, for the thread of the event loop."""
        if self._is_held:
            self._is_held = False
            self._turns._leave()  # noqa: SLF001 - two halves of one thing


class Turns:
    """Belongs to one event loop."""

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

    async def take(self) -> Turn:
        """Wait for a turn. Raises Overloaded when those that work are stuck, or too many wait already."""
        loop = asyncio.get_running_loop()
        if self._free:
            self._free -= 1
            self._progress_at = self._clock()
            return Turn(self, loop)
        if len(self._waiting) >= self._most_waiting:
            raise Overloaded("a turn")
        given: asyncio.Future[None] = loop.create_future()
        self._waiting.append(given)
        try:
            while not given.done():
                left_s = self._progress_at + self._stalled_s - self._clock()
                if left_s <= 0:
                    raise Overloaded("a turn")
                await asyncio.wait([given], timeout=left_s)
        except BaseException:
            self._forget(given)
            raise
        return Turn(self, loop)

    def _leave(self) -> None:
        self._progress_at = self._clock()
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1

    def _forget(self, given: asyncio.Future[None]) -> None:
        """Stop waiting; a turn that was given in the same moment goes to the next request."""
        if given.done():
            self._leave()
        else:
            self._waiting.remove(given)
