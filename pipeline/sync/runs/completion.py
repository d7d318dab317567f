"""The consequences of a walk's end: the watermark moves, and records without a webhook are reported.

A webhook that never arrived (an outage of ours, a ban, a dropped delivery) leaves no trace in Pipedrive: the
incremental fetch reads the record anyway, and this is the only sign of the gap.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from db import change_writer, subscription, watermark
from db import connector as connectors
from db import delivery as deliveries
from db import failure as failures
from db import sync_event as events
from db.run import Run
from db.sync_event import ToldLate
from pipeline.domain.kinds import Direction, Entity, Outcome
from pipeline.domain.outgoing import INDEX_BEHIND, MIRROR_INCOMPLETE
from pipeline.sync.changes import dispatch
from pipeline.sync.event_recorder import record
from pipeline.telemetry import logger

ON_ITS_WAY_S = 60
"""The webhook of a record that changed this shortly before the walk may still be in flight."""


def note_end(session: Session, run: Run) -> None:
    """A run has read everything it was to read, and all of it was delivered or is a Failure."""
    if run.kind != "backfill":
        failures.close_made_good(
            session,
            run.connector_key,
            run.entity,
            run_id=run.id,
            kind=run.kind,
            began_at=run.started_at,
            since=run.since,
        )
    connector = connectors.get_connector(session, run.connector_key)
    before = watermark.find_watermark(session, run.connector_key, run.entity)
    was_claimed = before is not None and before.claimed is not None
    reached = watermark.move(session, run, connector.created_at)
    if reached is not None:
        logger().info(
            "incoming.job.watermark",
            connector_id=connector.id,
            type=Entity(run.entity).hull,
            reached_at=reached.isoformat(),
        )
    if run.kind == "incremental" and was_claimed:
        _report_gap(session, run)
    _wake_waiting(session, run)


def _wake_waiting(session: Session, run: Run) -> None:
    """Records that could not be looked up before this fetch had ended are due now."""
    builds_index = run.kind == "full" or run.reindexes
    reasons = [INDEX_BEHIND, MIRROR_INCOMPLETE] if builds_index else [INDEX_BEHIND]
    if change_writer.make_due(session, run.connector_key, Direction.OUTGOING, run.entity, reasons):
        dispatch.go_on(session)


def _report_gap(session: Session, run: Run) -> None:
    missed = events.told_late(session, run.id, run.started_at, ON_ITS_WAY_S)
    subscriptions = subscription.subscriptions_of(session, run.connector_key)
    if missed is None or not subscriptions:
        return
    entity = Entity(run.entity)
    name = f"{Direction.INCOMING}.job.{Outcome.SUCCESS}"
    event = events.NewEvent(
        connector_key=run.connector_key,
        event=name,
        entity=entity,
        cause=run.cause,
        reason="gap_repaired",
        detail=_sentence(entity, missed),
        run_id=run.id,
    )
    record(session, [event], level="warning", run_id=run.id, type=entity.hull, records=missed.records)
    last = deliveries.last_delivery(session, run.connector_key, "pipedrive")
    if last is None or last < missed.first:
        subscription.note_silence(session, run.connector_key, entity)


def _sentence(entity: Entity, missed: ToldLate) -> str:
    noun = (entity.value if missed.records == 1 else entity.plural).capitalize()
    return (
        f"{missed.records} {noun}, changed from {_clock(missed.first)} to {_clock(missed.last)} UTC, reached Hull by the "
        "incremental fetch: no webhook had told of them"
    )


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
