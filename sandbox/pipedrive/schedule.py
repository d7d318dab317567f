"""Actions by the moment at which they are due, and the threads that run them.

Moments are those of the company's clock. No lane may occupy every thread, so a slow receiver does not delay the others.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 1.0  # in real time: then the clock is read again, which a test may have moved

Action = Callable[[], None]
#: (condition held, real seconds or None for ever): sleep until notified or until the time is over
Wait = Callable[[threading.Condition, float | None], object]


class _Entry(NamedTuple):
    """An action in the heap; `number` keeps actions of one moment in the order they came."""

    due: float
    number: int
    lane: int
    run: Action


class DeliverySchedule:
    """Actions by time. Threads start with the first action.

    `threads` 0 leaves the work to `run_due`; `clock` gives epoch seconds and runs `clock_factor` times as fast as real time;
    `wait` sleeps, and a test may put one there that moves the clock instead.
    """

    def __init__(self, clock: Callable[[], float], *, threads: int) -> None:
        self.threads = threads
        self.clock_factor = 1.0
        self.wait: Wait = threading.Condition.wait
        self._clock = clock
        self._heap: list[_Entry] = []
        self._held: defaultdict[int, deque[_Entry]] = defaultdict(deque)
        self._busy: Counter[int] = Counter()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._started = 0

    def add(self, due: float, lane: int, run: Action) -> None:
        """Run an action at `due`, or right away if that has passed."""
        with self._changed:
            heapq.heappush(self._heap, _Entry(due, next(self._numbers), lane, run))
            while self._started < self.threads:
                self._started += 1
                threading.Thread(target=self._work, name=f"webhook-sender-{self._started}", daemon=True).start()
            self._changed.notify_all()  # notify() alone might wake the caller of `settle`, and no sender

    def run_due(self) -> int:
        """Run everything that is due by now, and what that adds, in this thread; return how many actions."""
        done = 0
        while (entry := self._take_due()) is not None:
            self._run(entry)
            done += 1
        return done

    def wait_until_idle(self) -> None:
        """Return when no action is due or running; later ones are not waited for."""
        if not self.threads:
            self.run_due()
            return
        with self._changed:
            while self._busy.total() or self._seconds_to_next() == 0.0:
                self._changed.wait(_LONGEST_WAIT_S)

    def _work(self) -> None:
        while True:
            with self._changed:
                while (entry := self._take_due()) is None:
                    self.wait(self._changed, self._seconds_to_next())
            self._run(entry)

    def _take_due(self) -> _Entry | None:
        """Return the next due action in a lane with room; keep the others until their lane has room."""
        with self._changed:
            while self._heap and self._heap[0].due <= self._clock():
                entry = heapq.heappop(self._heap)
                if self._busy[entry.lane] < max(1, self.threads - 1):
                    self._busy[entry.lane] += 1
                    return entry
                self._held[entry.lane].append(entry)
        return None

    def _run(self, entry: _Entry) -> None:
        try:
            entry.run()
        except Exception:
            logger.exception("an action for webhook %s failed", entry.lane)
        finally:
            self._finish(entry.lane)

    def _finish(self, lane: int) -> None:
        with self._changed:
            self._busy[lane] -= 1
            held = self._held.get(lane)
            if held:
                heapq.heappush(self._heap, held.popleft())
            self._changed.notify_all()

    def _seconds_to_next(self) -> float | None:
        if not self._heap:
            return None
        return min(_LONGEST_WAIT_S, max(0.0, self._heap[0].due - self._clock()) / self.clock_factor)
