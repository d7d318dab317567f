"""How a job runs: claim, carry out, and one place where an error becomes an outcome; `pipeline.sync.stage` is its model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from db import failure as failures
from db import job as jobs
from db import sync_event as events
from db.job import ClaimedJob
from db.session import transaction
from pipeline.domain.kinds import Direction
from pipeline.domain.reasons import describe
from pipeline.error_kinds import classify
from pipeline.errors import ConfigurationError, LostLease, PipelineError, Retryable
from pipeline.jobs import connector_creation, exports, log_exports, sends, settings_sync, status_report
from pipeline.jobs.plans import compute
from pipeline.jobs.replays import advance
from pipeline.jobs.verify import sample
from pipeline.outages import OutageWork, working
from pipeline.settings import settings
from pipeline.sync.job_queue import (
    CONNECTOR_CREATION,
    EXPORT,
    LOG_EXPORT,
    PLAN,
    REPLAY,
    SEND,
    SETTINGS_SYNC,
    STATUS,
    TASK,
    VERIFY,
)
from pipeline.sync.lease import lease_kept
from pipeline.sync.retries import MAX_ATTEMPTS, check_alone, patience
from pipeline.sync.stage import StageFailed, pause_connector
from pipeline.telemetry import logger

HANDLERS: Final[Mapping[str, Callable[[ClaimedJob], None]]] = {
    SETTINGS_SYNC: settings_sync.run,
    EXPORT: exports.run,
    CONNECTOR_CREATION: connector_creation.run,
    STATUS: status_report.run,
    SEND: sends.run,
    VERIFY: sample.run,
    PLAN: compute.run,
    REPLAY: advance.advance,
    LOG_EXPORT: log_exports.run,
}
EVENTS: Final = {
    SETTINGS_SYNC: "connector.settings.error",
    EXPORT: "outgoing.job.error",
    CONNECTOR_CREATION: "connector.creation.error",
    STATUS: "connector.status.error",
    SEND: "outgoing.job.error",
    VERIFY: "connector.verify.error",
    PLAN: "connector.plan.error",
    REPLAY: "connector.replay.error",
    LOG_EXPORT: "connector.log_export.error",
}


def run_job(job_id: int, task_id: str | None) -> None:
    """Carry out one job; one that is done, or at work elsewhere, is left alone.

    Raises: StageFailed, so that Flower shows why.
    """
    began = time.monotonic()
    with transaction() as session:
        job = jobs.claim(session, job_id, lease_s=settings().lease_s)
    if job is None:
        return
    bind_contextvars(connector_id=job.connector_id, job_id=job.id, attempt=job.attempts)
    with working(job.connector_key or 0, f"{job.kind} {job.id}", has_outage=job.has_outage) as work:
        try:
            if job.attempts > MAX_ATTEMPTS:
                raise PipelineError("worker_lost", f"started {job.attempts - 1} times and never ended")
            with lease_kept(lambda session, lease_s: jobs.extend_lease(session, job, lease_s), began=began):
                HANDLERS[job.kind](job)
        except LostLease:
            logger().warning("job.lease_lost", kind=job.kind)
        except Exception as error:  # noqa: BLE001 - this is where errors become outcomes
            raise StageFailed(f"{_settle(job, error, task_id, work)}: job {job_id}, {job.kind}") from None


def _settle(job: ClaimedJob, error: Exception, task_id: str | None, work: OutageWork) -> str:
    """Decide what becomes of the job, and write it down; returns the reason code."""
    cause = classify(error)
    try:
        check_alone(cause, work)
        wait = patience(cause, work, job.attempts) if isinstance(cause, Retryable) else None
        with transaction() as session:
            if wait is not None and (job.attempts < MAX_ATTEMPTS or not wait.counted):
                jobs.postpone(session, job, wait.wait_s, counted=wait.counted, waits_for=wait.waits_for)
                logger().warning("job.retry", kind=job.kind, reason=cause.reason, wait_s=round(wait.wait_s, 1))
            else:
                _give_up(session, job, cause, error, task_id)
    except LostLease as lost:
        return lost.reason
    except Exception as worse:  # noqa: BLE001 - the lease runs out, and the sweep finds the job again
        logger().error("job.not_settled", kind=job.kind, reason=classify(worse).reason)
    return cause.reason


def _give_up(session: Session, job: ClaimedJob, cause: PipelineError, error: Exception, task_id: str | None) -> None:
    """Kept as a Failure whose replay begins anew; of a connector that never came to be there is nothing to keep."""
    name = EVENTS[job.kind]
    logger().error(name, reason=cause.reason, detail=cause.detail, advice=describe(cause.reason))
    if job.connector_key is None:
        jobs.end(session, job, "refused", cause.reason)
        return
    if job.kind == REPLAY:  # before its job is locked: whoever resumes it comes that way too
        advance.stop(session, int(job.dedupe_key), cause)
    jobs.end(session, job, "failed", cause.reason)
    if job.kind == PLAN:
        compute.stop(session, int(job.dedupe_key), cause)
    if job.kind == LOG_EXPORT:
        log_exports.stop(session, int(job.dedupe_key))
    failures.keep_failures(session, [_failure(job, job.connector_key, cause, error, task_id)])
    event = events.NewEvent(
        connector_key=job.connector_key,
        event=name,
        entity="",
        cause=job.kind,
        reason=cause.reason,
        detail=cause.detail,
    )
    events.log_events(session, [event])
    if isinstance(cause, ConfigurationError):
        pause_connector(session, job.connector_key, Direction.OUTGOING, cause)


def _failure(
    job: ClaimedJob, connector_key: int, cause: PipelineError, error: Exception, task_id: str | None
) -> failures.NewFailure:
    ours = cause.reason == "internal_error"
    return failures.NewFailure(
        connector_key=connector_key,
        kind="control",
        subject=subject_of(job),
        direction=Direction.OUTGOING,
        entity="",
        record_id=str(job.id),
        stage=TASK,
        reason=cause.reason,
        detail=cause.detail,
        traceback="".join(traceback.format_exception(error)) if ours else None,
        attempts=job.attempts,
        task_id=task_id,
    )


def subject_of(job: ClaimedJob) -> str:
    """Settings and status fail as one thing, however often they were asked for; each file is one of its own."""
    return failures.control_subject(job.kind if job.kind in (SETTINGS_SYNC, STATUS) else f"{job.kind}:{job.id}")
