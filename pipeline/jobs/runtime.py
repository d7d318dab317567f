"""Run jobs: the only module that handles leases, time slices, attempts, wake-ups and failures of jobs.

    claim → step, step, … → ended; or postponed, when the time slice is over, a step waits, or after an error

Each kind has one handler (`pipeline.sync.job_queue.Handler`). `pipeline.sync.stage` decides what counts as an attempt: a rate
limit, a spent budget and an outage do not, and a successful step sets the attempts to zero. A pause or an abort takes the lease
from the worker, which then writes nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from db import failure as failures
from db import failure_closing, failure_filter
from db import job as jobs
from db import sync_event as events
from db.failure import Failure
from db.job import ClaimedJob, Job
from db.session import after_commit, transaction
from pipeline.domain.kinds import Direction
from pipeline.error_kinds import classify
from pipeline.errors import ConfigurationError, LostLease, PipelineError, Retryable
from pipeline.jobs import connector_creation, exports, log_exports, sends, settings_sync, status_report
from pipeline.jobs.plans import compute
from pipeline.jobs.replays import advance
from pipeline.jobs.replays.start import replay_failure
from pipeline.jobs.verify import verify
from pipeline.outages import OutageWork, working
from pipeline.settings import settings
from pipeline.sync import job_queue
from pipeline.sync.event_recorder import log_line, record, traceback_of
from pipeline.sync.job_queue import Handler, JobStep, do_nothing
from pipeline.sync.stage import MAX_ATTEMPTS, StageFailed, check_alone, lease_kept, patience, pause_connector
from pipeline.tasks.canvases import wake_control
from pipeline.telemetry import logger

SLICE_S: Final = 60.0
"""After this time another task continues the job, so that other jobs get their turn. A task may take four minutes."""

HANDLERS: Final[Mapping[str, Handler]] = {
    job_queue.SETTINGS_SYNC: Handler(step=settings_sync.step, event="connector.settings.error", is_single=True),
    job_queue.EXPORT: Handler(step=exports.step, event="outgoing.job.error", can_pause=True, on_abort=exports.abort),
    job_queue.CONNECTOR_CREATION: Handler(step=connector_creation.step, event="connector.creation.error"),
    job_queue.STATUS: Handler(step=status_report.step, event="connector.status.error", is_single=True),
    job_queue.SEND: Handler(step=sends.step, event="outgoing.job.error", can_pause=True, on_abort=do_nothing),
    job_queue.VERIFY: Handler(step=verify.step, event="connector.verify.error", can_pause=True, on_abort=do_nothing),
    job_queue.PLAN: Handler(
        step=compute.step,
        event="connector.plan.error",
        on_failure=compute.stop,
        on_resume=compute.resume,
        can_pause=True,
        on_abort=compute.abort,
    ),
    job_queue.REPLAY: Handler(
        step=advance.step,
        event="connector.replay.error",
        on_failure=advance.stop,
        on_resume=advance.resume,
        can_pause=True,
        on_abort=advance.abort,
    ),
    job_queue.LOG_EXPORT: Handler(
        step=log_exports.step,
        event="connector.log_export.error",
        on_failure=log_exports.stop,
        can_pause=True,
        on_abort=log_exports.abort,
    ),
}


def _unknown(job: ClaimedJob) -> JobStep:
    raise Retryable("job_kind_unknown", job.kind)


UNKNOWN: Final = Handler(step=_unknown, event="connector.job.error")
"""Handler of a kind that only another version knows: its workers may run the job, until the attempts are used up."""


def run_job(job_id: int, task_id: str | None, *, slice_s: float | None = None) -> bool:
    """Run one job for a time slice; False when it is not due or another worker runs it.

    Raises: StageFailed, so that Flower shows why.
    """
    began = time.monotonic()
    with transaction() as session:
        job = jobs.claim(session, job_id, lease_s=settings().lease_s)
    if job is None:
        return False
    bind_contextvars(connector_id=job.connector_id, job_id=job.id, attempt=job.attempts)
    with working(job.connector_key or 0, f"{job.kind} {job.id}", has_outage=job.has_outage) as work:
        try:
            if job.attempts > MAX_ATTEMPTS:
                raise PipelineError("worker_lost", f"started {job.attempts - 1} times and never ended")
            with lease_kept(lambda session, lease_s: jobs.extend_lease(session, job, lease_s), began=began):
                _run_steps(job, began + (SLICE_S if slice_s is None else slice_s))
        except LostLease:
            logger().warning("job.lease_lost", kind=job.kind)
        except Exception as error:  # noqa: BLE001 - this is where errors become outcomes
            raise StageFailed(f"{_resolve(job, error, task_id, work)}: job {job_id}, {job.kind}") from None
    return True


def _run_steps(job: ClaimedJob, ends_at: float) -> None:
    """Run steps until the job waits or ends, or the time slice is over, and store that. Raises: LostLease."""
    while True:
        step = handler_of(job).step(job)
        if step.wait_s != 0 or time.monotonic() > ends_at:
            break
        with transaction() as session:
            if job.attempts > 1:  # earlier workers were lost or postponed; this one made progress
                jobs.checkpoint(session, job)
            else:
                jobs.hold(session, job)  # a person may have paused or aborted the job
    with transaction() as session:
        _follow(session, job, step)


def _follow(session: Session, job: ClaimedJob, step: JobStep) -> None:
    if step.wait_s is None:
        jobs.end(session, job, step.state)
        if job.connector_key is not None:
            failure_closing.close_subject(session, job.connector_key, subject_of(job))
    else:
        jobs.postpone(session, job, step.wait_s, counted=False)
        after_commit(session, lambda: wake_control("dispatch", countdown_s=step.wait_s or None))


def _resolve(job: ClaimedJob, error: Exception, task_id: str | None, work: OutageWork) -> str:
    """Postpone the job or let it fail, depending on the error; return the reason code."""
    cause = classify(error)
    try:
        check_alone(cause, work)
        pause = patience(cause, work, job.attempts) if isinstance(cause, Retryable) else None
        with transaction() as session:
            if pause is not None and (job.attempts < MAX_ATTEMPTS or not pause.counted):
                jobs.postpone(session, job, pause.wait_s, counted=pause.counted, waits_for=pause.waits_for)
                logger().warning("job.retry", kind=job.kind, reason=cause.reason, wait_s=round(pause.wait_s, 1))
            else:
                _fail(session, job, cause, error, task_id)
    except LostLease as lost:
        return lost.reason
    except Exception as worse:  # noqa: BLE001 - the lease ends, and the sweep finds the job again
        logger().error("job.not_resolved", kind=job.kind, reason=classify(worse).reason)
    return cause.reason


def _fail(session: Session, job: ClaimedJob, cause: PipelineError, error: Exception, task_id: str | None) -> None:
    """End the job, and store a Failure: its replay makes the job due again. Without a connector there is no Failure."""
    handler = handler_of(job)
    name = handler.event
    if job.connector_key is None:
        log_line(name, cause.reason, level="error", detail=cause.detail)
        jobs.end(session, job, "refused", cause.reason)
        return
    handler.on_failure(session, job, cause)  # before the job is locked: resuming takes locks in this order too
    jobs.end(session, job, "failed", cause.reason)
    event = events.NewEvent(
        connector_key=job.connector_key,
        event=name,
        entity="",
        cause=job.kind,
        reason=cause.reason,
        detail=cause.detail,
    )
    failure = failures.NewFailure(
        connector_key=job.connector_key,
        kind="control",
        subject=subject_of(job),
        direction=Direction.OUTGOING,
        entity="",
        record_id=str(job.id),
        stage=job_queue.TASK,
        reason=cause.reason,
        detail=cause.detail,
        traceback=traceback_of(cause, error),
        attempts=job.attempts,
        task_id=task_id,
    )
    record(session, [event], [failure], level="error", detail=cause.detail)
    if isinstance(cause, ConfigurationError):
        pause_connector(session, job.connector_key, Direction.OUTGOING, cause)


def subject_of(job: ClaimedJob | Job) -> str:
    """Return the subject of the job's failure."""
    return failures.control_subject(job.kind if handler_of(job).is_single else f"{job.kind}:{job.id}")


def handler_of(job: ClaimedJob | Job) -> Handler:
    """Return how jobs of this kind are run."""
    return HANDLERS.get(job.kind, UNKNOWN)


PAUSE: Final = "pause"
RESUME: Final = "resume"
ABORT: Final = "abort"


def acts_on(session: Session, job: Job) -> tuple[str, ...]:
    """Return what a person may do with a job in its present state."""
    handler = handler_of(job)
    can_continue = job.state == "failed" and jobs.is_revivable(session, job.id)
    possible = {
        PAUSE: job.state == "due" and handler.can_pause,
        RESUME: job.state == "paused" or can_continue,
        ABORT: (job.state in jobs.OPEN or can_continue) and handler.on_abort is not None,
    }
    return tuple(act for act, is_possible in possible.items() if is_possible)


def pause(session: Session, job: Job) -> bool:
    """Have no worker run the job until it is resumed; False if that is not possible."""
    return PAUSE in acts_on(session, job) and jobs.pause(session, job.id)


def resume(session: Session, job: Job, *, by: str) -> bool:
    """Continue a job that was paused, or that failed; False if it is neither. Raises: NotReplayable."""
    handler_of(job).on_resume(session, job.dedupe_key)
    failure = failure_of(session, job)
    if failure is not None:
        replay_failure(session, failure, by=by, why=f"job {job.id} was resumed")
    elif not (jobs.resume(session, job.id) or jobs.revive(session, job.id)):  # its failure may have been discarded
        return False
    after_commit(session, lambda: wake_control("dispatch"))
    return True


def abort(session: Session, job: Job, *, by: str) -> bool:
    """End a job that has not ended, or that failed; the results of its steps are kept. False if that is not possible."""
    on_abort = handler_of(job).on_abort
    if on_abort is None or ABORT not in acts_on(session, job):
        return False
    failure = failure_of(session, job)
    on_abort(session, job, by)
    if failure is not None:
        failure_closing.close_failure(session, failure.id, "discarded", by=by, why=f"job {job.id} was aborted")
    return jobs.abort(session, job.id, job.state)  # False if it ended or failed since it was read


def failure_of(session: Session, job: Job) -> Failure | None:
    """Return the open failure of a job that failed."""
    if job.state != "failed" or job.connector_key is None:
        return None
    failure = failure_filter.find_open(session, job.connector_key, subject_of(job))
    return failure if failure is not None and failure.record_id == str(job.id) else None
