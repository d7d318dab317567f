"""Schedules: keep Hull up to date without manual work.

full_fetch   by cron; every night unless the settings say otherwise, at a different minute for each connector
incremental  every few minutes: what changed since the watermark, with or without a webhook

Beat only ticks. SQL decides and claims what is due, so a second or a late tick does no harm, and missed times are
caught up once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db import schedule, watermark
from db.connector import Connector
from db.schedule import Schedule
from db.session import transaction
from pipeline.domain.cron import cron_of, next_time
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.sync.runs import runs, spending
from pipeline.sync.runs.catch_up import INCREMENTAL
from pipeline.telemetry import logger

FULL_FETCH: Final = "full_fetch"

OVERLAP: Final = timedelta(seconds=60)
"""How far before the watermark an incremental fetch begins: clocks differ, and times are whole seconds."""


def plan(session: Session, connector: Connector, chosen: ConnectorSettings) -> None:
    """Store the schedules of these settings. Raises: ValueError for an invalid cron expression."""
    cron = cron_of(chosen.full_fetch_cron, connector.id)
    if cron:
        schedule.set_schedule(
            session, connector.key, FULL_FETCH, cron=cron, next_run_at=next_time(cron, datetime.now(UTC))
        )
    else:
        schedule.drop_schedule(session, connector.key, FULL_FETCH)
    if chosen.incremental_minutes:
        interval_s = 60 * chosen.incremental_minutes
        first = datetime.now(UTC)
        schedule.set_schedule(session, connector.key, INCREMENTAL, interval_s=interval_s, next_run_at=first)
    else:
        schedule.drop_schedule(session, connector.key, INCREMENTAL)


def start_due(connector_key: int) -> None:
    """Start the due fetches of one connector.

    The schedule's row is locked until its runs are stored: after a crash in between they are started again, and no
    night is skipped.
    """
    with transaction() as session:
        for row in schedule.take_due(session, connector_key):
            connector = connectors.get_connector(session, connector_key)
            if connector.state == "active":
                _start(session, row, connector)
            row.last_run_at = datetime.now(UTC)
            row.next_run_at = _after(session, row)


def _start(session: Session, row: Schedule, connector: Connector) -> None:
    for entity in Entity:
        since = None if row.kind == FULL_FETCH else watermark.walked_to(session, connector, entity) - OVERLAP
        try:
            runs.start_run(row.connector_key, entity, cause="schedule", changed_only=True, since=since)
        except runs.RunInProgress as under_way:
            logger().info("incoming.job.skip", type=entity.hull, run_id=under_way.run_id, reason="run_in_progress")


def _after(session: Session, row: Schedule) -> datetime:
    now = datetime.now(UTC)
    if row.cron is not None:
        return next_time(row.cron, now)
    return now + timedelta(seconds=spending.interval_s(session, row.connector_key, row.interval_s or 0))
