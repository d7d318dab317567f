"""Judges the rules of alerts when the workers do not: that nobody is at work, only somebody else can tell."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from db.heartbeat import heartbeats
from db.session import transaction
from pipeline.sync.alerts import HEARTBEAT, watch
from pipeline.telemetry import logger

EVERY_S: Final = 60.0
OVERDUE: Final = timedelta(minutes=3)
"""Workers judge every minute; whoever starts them anew takes less than this."""


def start() -> None:
    """Look on from a thread of its own as long as the process lives."""
    threading.Thread(target=_run, name="watchman", daemon=True).start()


def look() -> bool:
    """Judge and tell, if nobody has judged for too long; whether that was so."""
    with transaction() as session:
        last = heartbeats(session).get(HEARTBEAT)
    if last is not None and datetime.now(UTC) - last < OVERDUE:
        return False
    watch()
    return True


def _run() -> None:
    pause = threading.Event()
    while not pause.wait(EVERY_S):
        try:
            if look():
                logger().warning("alerts.judged_by_web")
        except Exception as failure:  # noqa: BLE001 - the database may be away now and back in a minute
            logger().warning("alerts.not_judged", error=type(failure).__name__)
