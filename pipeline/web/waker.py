"""Tells the workers that a delivery was stored, from a thread of its own: nobody's answer waits for the broker.

Many deliveries in a row make few messages. What is lost here the sweep finds within seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GAP_S = 0.1
"""Between two messages: whatever was stored meanwhile shares the next one. The first goes at once."""


class Waker:
    """`wake` returns at once; the thread starts with the first call, hence after any fork."""

    def __init__(self, tell: Callable[[], None], *, gap_s: float = GAP_S) -> None:
        self._tell = tell
        self._gap_s = gap_s
        self._wanted = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Ask for one more message, unless one is asked for already."""
        self._wanted.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="waker", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            self._tell()
            time.sleep(self._gap_s)
