"""What the runtime and the handlers of jobs agree on.

A handler does one step at a time: it reads what it needs, and writes what it found and how far it is in one transaction, which it
begins with `db.job.hold` or `db.job.checkpoint`. A step that is repeated because its worker was killed must do no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from db.job import ClaimedJob, Job
from pipeline.errors import PipelineError


@dataclass(frozen=True, slots=True)
class JobStep:
    """What to do after a step.

    wait_s  seconds until the next step, 0 for immediately; None when the job has ended
    state   in which state it has ended
    """

    wait_s: float | None
    state: str = "done"


CONTINUE: Final = JobStep(0.0)
DONE: Final = JobStep(None)
REFUSED: Final = JobStep(None, "refused")
"""What the job was about does not exist any more."""


def wait(seconds: float) -> JobStep:
    """Return the step that follows in `seconds`."""
    return JobStep(seconds)


def _keep(_session: Session, _job: ClaimedJob, _cause: PipelineError) -> None:
    """Write nothing besides the job."""


def keep_result(_session: Session, _job: Job, _by: str) -> None:
    """Abort a job by ending its row alone: what its steps wrote stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """How jobs of one kind are run.

    step       does the next piece of the work
    event      event and log line of a job that failed
    on_failure writes the failure into what the job is about, in the transaction that ends the job
    can_pause  whether a person may pause it: one that consists of many steps
    on_abort   what a person who aborts it changes beside the job, by their name, in the same transaction and before the job is
               locked; None where it cannot be aborted, because what requested it would be lost
    is_single  all jobs of a connector fail as one: a later job that is done closes the failure of an earlier one
    """

    step: Callable[[ClaimedJob], JobStep]
    event: str
    on_failure: Callable[[Session, ClaimedJob, PipelineError], None] = _keep
    can_pause: bool = False
    on_abort: Callable[[Session, Job, str], None] | None = None
    is_single: bool = False
