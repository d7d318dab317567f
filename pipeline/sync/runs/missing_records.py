"""Deletions without a notice: a record that a complete full fetch did not list may be deleted.

Each of these is requested by its id before it is marked as deleted. If a large share is missing, another cause is more likely (a
permission, a filter, another company): then nothing is requested before a person approves it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from db import change_writer, failure_closing, failure_filter, watermark
from db import deletion as deletion_rows
from db import failure as failures
from db.failure import Failure
from db.failure_filter import FailureFilter
from db.run import Run
from pipeline.domain.deletions import DOUBTED, MISSING
from pipeline.domain.kinds import Direction, Entity
from pipeline.sync.compiled import compiled_for
from pipeline.sync.event_recorder import record_failure
from pipeline.telemetry import logger

STAGE = "confirm_missing"
REASON = "too_many_missing"
ALWAYS_ALLOWED = 20
"""A smaller number of missing records is always accepted, whatever their share."""


def compare(session: Session, run: Run) -> None:
    """Request the records that a complete full fetch did not list. The run must be locked."""
    if run.kind != "full":
        deletion_rows.drop_page_ids(session, run, itself=True)
        return
    if not deletion_rows.is_covered(session, run):
        logger().warning("deletes.not_compared", run_id=run.id, type=Entity(run.entity).hull)
        return
    missing = deletion_rows.find_missing(session, run)
    if len(missing) >= ALWAYS_ALLOWED:
        known = deletion_rows.count_known(session, run)
        if (
            len(missing)
            > known * compiled_for(session, run.connector_key, Entity(run.entity)).settings.deletion_stop_share
        ):
            _stop(session, run, known, len(missing))
            return
    _request(session, run, missing)
    _close_earlier(session, run)
    logger().info("deletes.compared", run_id=run.id, type=Entity(run.entity).hull, missing=len(missing))


def confirm(session: Session, failure: Failure) -> bool:
    """An operator confirms the deletions: request the records. Return False if the run's ids are no longer stored."""
    run = session.get(Run, failure.run_id) if failure.run_id is not None else None
    if run is None or not deletion_rows.has_page_ids(session, run.id):
        return False
    _request(session, run, deletion_rows.find_missing(session, run))
    return True


def _request(session: Session, run: Run, missing: Sequence[int]) -> None:
    if missing:
        cause = MISSING if run.read else DOUBTED
        scope = (run.connector_key, Direction.INCOMING, run.entity)
        change_writer.write_changes(session, *scope, map(str, missing), cause=cause)
    deletion_rows.drop_page_ids(session, run, itself=True)
    watermark.note_deletes_verified(session, run.connector_key, run.entity, run.started_at)


def _stop(session: Session, run: Run, known: int, missing: int) -> None:
    """Store a Failure. The listed ids are kept until a person decides or a later run compares again."""
    entity = Entity(run.entity)
    detail = f"run {run.id}: {missing:,} of {known:,} known {entity.plural} were not listed ({missing / known:.0%})"
    failure = failures.NewFailure(
        connector_key=run.connector_key,
        kind="control",
        subject=f"control:{STAGE}:{entity}",
        direction=Direction.INCOMING,
        entity=entity,
        run_id=run.id,
        stage=STAGE,
        reason=REASON,
        detail=detail,
    )
    record_failure(session, "incoming.job.error", failure, run_id=run.id, detail=detail)
    deletion_rows.drop_page_ids(session, run, itself=False)


def _close_earlier(session: Session, run: Run) -> None:
    """Close the failures of earlier comparisons that this one replaces."""
    earlier = FailureFilter(connector_key=run.connector_key, reason=REASON, entity=run.entity)
    for failure in failure_filter.find_failures(session, earlier):
        failure_closing.close_failure(
            session, failure.id, "replayed", by="pipeline", why=f"run {run.id} compared again"
        )
