"""Start the fetch of changes before its time, where webhooks may have been missed."""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from db import schedule

INCREMENTAL: Final = "incremental"
REST_S: Final = 120.0


def request_catch_up(session: Session, connector_key: int) -> None:
    """Fetch at the next tick what changed since the watermark, because webhooks may have been missed."""
    schedule.make_due(session, connector_key, INCREMENTAL)


def catch_up_soon(session: Session, connector_key: int) -> None:
    """The same, at most once in REST_S, because webhooks may request it any number of times."""
    schedule.make_due(session, connector_key, INCREMENTAL, rested_s=REST_S)
