"""Store a delivery before it is acknowledged, and notify the workers.

A thread sends the messages to the workers, so that no answer waits for the broker. Many deliveries in a row cause few
messages. If a message is lost, the sweep finds the delivery within seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import IntegrityError

from db import delivery
from db.session import transaction

STATEMENT_TIMEOUT_MS = 5_000
"""Pipedrive stops waiting after 10 s. A 503 before that makes it send the delivery again."""
GAP_S = 0.1
"""Pause between two messages: deliveries that are stored during it share the next one. The first is sent immediately."""


def store_delivery(connector_key: int, source: str, key: str, body: bytes) -> bool | None:
    """Store a delivery and commit; return True if it is new, False if it was stored before, None if the connector is gone."""
    try:
        with transaction() as session:
            kept = delivery.keep_delivery(session, connector_key, source, key, body, timeout_ms=STATEMENT_TIMEOUT_MS)
            return kept is not None
    except IntegrityError:
        return None  # only the reference to the connector can be violated: it was removed a moment ago


class Notifier:
    """Notifies the workers that work was stored.

    send  sends one message through the broker
    """

    def __init__(self, send: Callable[[], None], *, gap_s: float = GAP_S) -> None:
        self._send = send
        self._gap_s = gap_s
        self._wanted = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def notify(self) -> None:
        """Request one more message, unless one is pending; return immediately.

        The thread starts with the first call, that is after any fork.
        """
        self._wanted.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            self._send()
            time.sleep(self._gap_s)
