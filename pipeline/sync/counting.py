"""Counts sync events as they come in, so that charts and metrics never count them again."""

from __future__ import annotations

import time
from typing import Final

from db import event_count, failure_count
from db.session import transaction

SLICE_S: Final = 5.0
"""After an absence there are days to count: after so long the rest is left to the next tick."""


def count_events() -> None:
    """Count what has happened since the last tick. A second tick at the same time does nothing."""
    with transaction() as session:
        failure_count.merge(session)
    ends_at = time.monotonic() + SLICE_S
    while time.monotonic() < ends_at:
        with transaction() as session:
            if not event_count.count_on(session):
                return
