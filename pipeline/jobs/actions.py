"""Pause, resume and abort a job, in the transaction of the act. `pipeline.operations.jobs` audits each act.

A replay is paused and aborted as a replay (`pipeline.jobs.replays.start`): its job still has to learn what became of what was sent.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from db import failure as failures
from db import job as jobs
from db.failure import Failure
from db.job import Job
from db.session import after_commit
from pipeline.jobs.replays.start import replay_failure
from pipeline.jobs.runtime import handler_of, subject_of
from pipeline.tasks import wakeups

PAUSE: Final = "pause"
RESUME: Final = "resume"
ABORT: Final = "abort"


def acts_on(session: Session, job: Job) -> tuple[str, ...]:
    """Return what a person may do with a job in its present state."""
    handler, is_open = handler_of(job), job.state in jobs.OPEN
    can_resume = job.state == "paused" or (failure_of(session, job) is not None and jobs.is_revivable(session, job.id))
    possible = {
        PAUSE: job.state == "due" and handler.can_pause,
        RESUME: can_resume,
        ABORT: is_open and handler.on_abort is not None,
    }
    return tuple(act for act, is_possible in possible.items() if is_possible)


def failure_of(session: Session, job: Job) -> Failure | None:
    """Return the open failure of a job that failed."""
    if job.state != "failed" or job.connector_key is None:
        return None
    failure = failures.find_open(session, job.connector_key, subject_of(job))
    return failure if failure is not None and failure.record_id == str(job.id) else None


def pause(session: Session, job: Job) -> bool:
    """Have no worker run the job until it is resumed; False when that is not possible."""
    return handler_of(job).can_pause and jobs.pause(session, job.id)


def resume(session: Session, job: Job, *, by: str) -> bool:
    """Continue a job that was paused, or that failed; False when it is neither. Raises NotReplayable."""
    failure = failure_of(session, job)
    if failure is not None:
        replay_failure(session, failure, by=by, why=f"job {job.id} was resumed")
    elif not jobs.resume(session, job.id):
        return False
    after_commit(session, lambda: wakeups.wake_control("dispatch"))
    return True


def abort(session: Session, job: Job, *, by: str) -> bool:
    """End the job; what its steps wrote stays. False when it has ended, or must run."""
    on_abort = handler_of(job).on_abort
    if on_abort is None or job.state not in jobs.OPEN:
        return False
    on_abort(session, job, by)
    return jobs.abort(session, job.id)
