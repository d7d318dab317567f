"""Evaluates the alert rules while the workers do not: workers cannot report their own absence."""

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
"""Workers evaluate every minute; restarting them takes less than this."""


def start() -> None:
    """Evaluate in a thread as long as the process lives."""
    threading.Thread(target=_run, name="watchman", daemon=True).start()


def look() -> bool:
    """Evaluate and send alerts, if no worker did for too long; return whether it did."""
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
