"""Notifies the workers that a delivery was stored, from its own thread, so that no answer waits for the broker.

Many deliveries in a row cause few messages. The sweep finds deliveries with a lost message within seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GAP_S = 0.1
"""Pause between two messages: deliveries stored in it share the next one. The first message is sent immediately."""


class Waker:
    """`wake` returns immediately; the thread starts with the first call, that is after any fork."""

    def __init__(self, tell: Callable[[], None], *, gap_s: float = GAP_S) -> None:
        self._tell = tell
        self._gap_s = gap_s
        self._wanted = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Request one more message, unless one is pending."""
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
