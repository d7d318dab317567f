"""How fast Hull may go on: as fast as it can, until what it told waits here in heaps.

`in` is what slows it down: milliseconds until the next notification. Meanwhile Hull folds what changes at its side.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from db import load
from db.session import transaction
from pipeline.telemetry import logger

STEPS: Final = ((50_000, 100, 60_000), (20_000, 100, 15_000), (5_000, 100, 5_000), (1_000, 100, 1_000))
"""(messages that wait, messages to the next notification, milliseconds until it): 100, 20, 7 and 2 messages a second."""
MOST: Final = STEPS[0][0] + 1


def flow_control(waiting: int) -> dict[str, Any]:
    """The answer to a notification that was taken in, while so many messages wait."""
    for above, size, in_ms in STEPS:
        if waiting > above:
            return {"type": "next", "size": size, "in": in_ms}
    return {"type": "next"}


def flow_for(connector_key: int) -> dict[str, Any]:
    """The same by what waits now. The notification is stored: no trouble with counting takes that back."""
    try:
        with transaction() as session:
            waiting = load.waiting_outgoing(session, connector_key, most=MOST)
    except SQLAlchemyError as away:
        logger().warning("flow.not_counted", error=type(away).__name__)
        waiting = 0
    return flow_control(waiting)
