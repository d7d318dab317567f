"""Fetches that start automatically.

full_fetch   By cron: by default every night, at a different minute for each connector.
incremental  Every few minutes: what changed since the watermark, with or without a webhook.
shells       Organizations that only Persons have named are read within a minute, a hundred per request. They wait for a running
             full fetch. If they are more than a fifth of the known Organizations, a full fetch costs less and is started.
look-up      Until the first full fetch has ended, it is not known whether Pipedrive has an Organization with some domain. The
             first record that waits for this starts the fetch, in the background lane. Its end wakes the waiting records.

Beat only ticks. SQL decides and claims what is due, so a second or a late tick does no harm.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db import id_mapping_writer, schedule, shell, watermark
from db import run as run_rows
from db.connector import Connector
from db.run import EndedEarly
from db.schedule import FULL_FETCH, INCREMENTAL, Schedule
from db.session import after_commit, transaction
from pipeline.domain.cron import cron_of, next_time
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.sync.runs import runs, spending
from pipeline.tasks import canvases
from pipeline.telemetry import logger

OVERLAP: Final = timedelta(seconds=60)
"""How far before the watermark an incremental fetch begins: clocks differ, and times are whole seconds."""
TOO_MANY = 5
"""If shells are more than one in this many known Organizations, everything is fetched."""
CAUSE: Final = "look_up"
REST_S: Final = 3600
"""Pause before a full fetch that stopped or was cancelled is started again; it doubles each time."""
LONGEST_REST_S: Final = 24 * 3600


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

    The schedule's row is locked until its runs are stored, so a crash in between skips no fetch.
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
        except runs.RunInProgress as running:
            logger().info("incoming.job.skip", type=entity.hull, run_id=running.run_id, reason="run_in_progress")


def _after(session: Session, row: Schedule) -> datetime:
    now = datetime.now(UTC)
    if row.cron is not None:
        return next_time(row.cron, now)
    return now + timedelta(seconds=spending.interval_s(session, row.connector_key, row.interval_s or 0))


def fill_shells(connector_key: int) -> bool:
    """Request the shells of one connector, or start a full fetch. Return whether anything was requested."""
    entity = Entity.ORGANIZATION
    with transaction() as session:
        if run_rows.running_run(session, connector_key, entity, "full"):
            return False
        waiting, filled = shell.count_shells(session, connector_key, entity)
        if waiting * TOO_MANY <= filled:
            requested = shell.request_shells(session, connector_key, entity)
            after_commit(session, lambda: canvases.wake_control("dispatch"))
            logger().info("shells.asked", shells=requested)
            return requested > 0
    return _fetch_all(connector_key, entity, waiting)


def _fetch_all(connector_key: int, entity: Entity, waiting: int) -> bool:
    """Start a full fetch, then leave the shells to it. After a crash in between they are checked again."""
    try:
        run_id = runs.start_run(connector_key, entity, cause="shells", changed_only=True)
    except runs.RunInProgress:
        return False
    with transaction() as session:
        id_mapping_writer.mark_shells_requested(session, connector_key, entity)
    logger().info("shells.fetch", shells=waiting, run_id=run_id)
    return True


def start_for_lookup(connector_key: int, entity: Entity, *, whole: bool) -> None:
    """Start a full fetch if `whole`, else an incremental one, unless one of its kind is running.

    No full fetch starts while a backfill reindexes the snapshots with new identifiers: it has the same result without tokens.
    A full fetch that stopped or was cancelled is started again after one hour, two, four, up to a day.
    """
    with transaction() as session:
        connector = connectors.get_connector(session, connector_key)
        if whole and run_rows.find_reindexing(session, connector_key, entity) is not None:
            return
        since = None if whole else watermark.walked_to(session, connector, entity) - runs.CATCH_UP_OVERLAP
        rest_s = rest_of(run_rows.ended_early(session, connector_key, entity)) if whole else 0.0
        if rest_s > 0:
            logger().warning(
                "look_up.no_fetch",
                type=entity.hull,
                next_s=round(rest_s),
                advice="the last full fetch stopped or was cancelled: replay its failure, or fetch all again",
            )
            return
    try:
        run_id = runs.start_run(connector_key, entity, cause=CAUSE, changed_only=True, since=since)
    except runs.RunInProgress:
        return
    logger().info("look_up.fetch_started", type=entity.hull, run_id=run_id)


def rest_of(early: EndedEarly | None) -> float:
    """Return the seconds until a full fetch that ended early is started again automatically; 0 at the next attempt."""
    if early is None:
        return 0.0
    return max(0.0, min(REST_S * 2.0 ** (early.in_a_row - 1), LONGEST_REST_S) - early.ago_s)
