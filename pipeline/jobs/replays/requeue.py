"""Replays what failed: a record as a change, an incoming batch from the stage that failed, an outgoing one from extract, a
control task as itself."""

from __future__ import annotations

from sqlalchemy.orm import Session

from db import batch as batches
from db import change_writer
from db import failure as failures
from db import job as jobs
from db.failure import Failure
from db.session import after_commit
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.lenient_json import read_lenient
from pipeline.errors import Rejected
from pipeline.sync.job_queue import TASK as JOB_TASK
from pipeline.sync.runs import missing_records, runs
from pipeline.tasks import canvases, wakeups
from pipeline.transform.hull_reports import hull_id_of

WANTED = "control_tasks_wanted"


class NotReplayable(Exception):
    """This failure cannot be replayed as it is; the text says why and what to do."""


def replay(session: Session, failure: Failure, *, by: str, why: str, payload: bytes | None = None) -> None:
    """Set one failure going again, and close it; if it fails again, a new failure opens.

    payload  replaces the record as it came, for outgoing records
    Raises: NotReplayable.
    """
    if not failures.close_failure(session, failure.id, "replayed", by=by, why=why):
        raise NotReplayable(f"failure {failure.id} is closed already")
    if failure.kind in failures.OF_RECORDS:
        _replay_record(session, failure, payload)
    elif failure.kind == "batch":
        _replay_batch(session, failure)
    elif failure.stage == missing_records.STAGE:
        if not missing_records.confirm(session, failure):
            raise NotReplayable(f"failure {failure.id}: what its run listed is not kept any more; fetch again")
    elif failure.stage == JOB_TASK:
        if not jobs.revive(session, int(failure.record_id or 0)):
            raise NotReplayable(
                f"failure {failure.id}: it was asked for again, or too long ago; ask for it in Hull again"
            )
        _wake(session, "dispatch")
    else:
        _wake(session, failure.stage)


def _replay_record(session: Session, failure: Failure, payload: bytes | None) -> None:
    if failure.record_id is None:
        raise NotReplayable(f"failure {failure.id}: the record has no id; correct it in Pipedrive, then fetch again")
    outgoing = failure.direction == Direction.OUTGOING
    if payload is not None:
        check_payload(failure, payload)
    change_writer.write_payload(
        session,
        failure.connector_key,
        failure.direction,
        failure.entity,
        failure.record_id,
        cause="replay",
        payload=(payload or failures.payload_of(failure)) if outgoing else None,
    )
    _wake(session, "dispatch")


def check_payload(failure: Failure, payload: bytes) -> None:
    """A corrected record must still be that record, or it would take the batch down in which it travels. Raises: NotReplayable."""
    if failure.direction != Direction.OUTGOING:
        raise NotReplayable(f"failure {failure.id}: correct the record in Pipedrive, it is read again from there")
    try:
        hull_id = hull_id_of(read_lenient(payload)[Entity(failure.entity).hull])
    except (ValueError, TypeError, KeyError, AttributeError, Rejected):
        hull_id = None
    if hull_id != failure.record_id:
        raise NotReplayable(f"failure {failure.id}: the corrected record is not a message about {failure.record_id}")


def _wake(session: Session, name: str) -> None:
    """Request a control task after the commit: once, for any number of failures in the session."""
    wanted: set[str] = session.info.setdefault(WANTED, set())
    if name not in wanted:
        wanted.add(name)
        after_commit(session, lambda: wakeups.wake_control(name))


def _replay_batch(session: Session, failure: Failure) -> None:
    if failure.run_id is not None and failure.stage == "extract":
        try:
            runs.reopen(session, failure.run_id)
        except runs.RunInProgress as under_way:
            raise NotReplayable(f"failure {failure.id}: {under_way}") from None
    wakeup = batches.revive(session, failure.batch_id or 0)
    if wakeup is None:
        raise NotReplayable(f"failure {failure.id}: its batch is not waiting any more; fetch again")
    after_commit(session, lambda: canvases.wake([wakeup]))
