"""How many requests work at a time, and what happens when none of them makes progress.

The web server has more threads than work at a time (AT_ONCE): the others wait here for their turn. When every request that works
has been stuck for STALLED_S, because the database or something else that it waits for is silent, those that wait are answered
503 instead of taking the last threads. `/healthz` and `/readyz` are never held up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from werkzeug.wrappers import Response

from pipeline.telemetry import logger

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

AT_ONCE: Final = 4
"""Threads of one interpreter share one lock: with more at a time, each answer takes longer and no more are given."""
STALLED_S: Final = 2.0
RETRY_AFTER_S: Final = 5
UNLIMITED: Final = frozenset({"/healthz", "/readyz"})
_LOOK_EVERY_S: Final = 0.2


class RequestLimit:
    """WSGI middleware around an app."""

    def __init__(
        self, app: WSGIApplication, *, at_once: int = AT_ONCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._clock = clock
        self._free = at_once
        self._changed = threading.Condition()
        self._progress_at = clock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in UNLIMITED:
            return self._app(environ, start_response)
        if not self._enter():
            logger().warning("web.overloaded", stalled_s=STALLED_S)
            headers = {"Retry-After": str(RETRY_AFTER_S), "Cache-Control": "no-store"}
            body = '{"error":"overloaded","message":"No request has been answered for some seconds"}\n'
            return Response(body, 503, headers, mimetype="application/json")(environ, start_response)
        try:
            return self._app(environ, start_response)
        finally:  # sending the body to a slow client takes a thread, but no turn
            self._leave()

    def _enter(self) -> bool:
        """Wait for a turn; False when those that work are stuck."""
        with self._changed:
            while not self._free:
                if self._clock() - self._progress_at > STALLED_S:
                    return False
                self._changed.wait(_LOOK_EVERY_S)
            self._free -= 1
            self._progress_at = self._clock()
            return True

    def _leave(self) -> None:
        with self._changed:
            self._free += 1
            self._progress_at = self._clock()
            self._changed.notify()
