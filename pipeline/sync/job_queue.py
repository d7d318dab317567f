"""Store jobs and wake workers for them; what `pipeline.jobs.runtime`, which runs them, and their handlers agree on.

A handler does one step at a time: it reads what it needs, and writes what it found and how far it is in one transaction, which it
begins with `db.job.hold` or `db.job.checkpoint`. A step that is repeated because its worker was killed must do no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from db import job as jobs
from db.job import ClaimedJob, Job
from db.session import after_commit, transaction
from pipeline.errors import PipelineError, Rejected
from pipeline.settings import settings
from pipeline.tasks.app import app
from pipeline.telemetry import logger
from pipeline.vault import Vault

T = TypeVar("T")
TASK: Final = "control.job"
SETTINGS_SYNC: Final = "settings_sync"
EXPORT: Final = "export"
CONNECTOR_CREATION: Final = "connector_creation"
STATUS: Final = "status"
SEND: Final = "send"
VERIFY: Final = "verify"
PLAN: Final = "plan"
REPLAY: Final = "replay"
LOG_EXPORT: Final = "log_export"
QUEUES: Final = {
    SETTINGS_SYNC: "control",
    EXPORT: "live",
    CONNECTOR_CREATION: "control",
    STATUS: "control",
    SEND: "live",
    VERIFY: "bulk",
    PLAN: "bulk",
    REPLAY: "control",
    LOG_EXPORT: "bulk",
}
PATIENCE_S: Final = 30.0
"""After so long without a sign a message is taken for lost; until then a full queue is not filled further."""


def _keep(_session: Session, _job: ClaimedJob, _cause: PipelineError) -> None:
    """Write nothing besides the job."""


@dataclass(frozen=True, slots=True)
class JobStep:
    """What to do after a step.

    wait_s  seconds until the next step, 0 for immediately; None when the job has ended
    state   in which state it has ended
    """

    wait_s: float | None
    state: str = "done"


def _keep_stop(_session: Session, _key: str) -> None:
    """Nothing else shows that the job failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """How jobs of one kind are run.

    step       does the next piece of the work
    event      event and log line of a job that failed
    on_failure writes the failure into what the job is about, in the transaction that ends the job
    on_resume  removes the failure from what the job is about, in the transaction that resumes the job and before the job is locked
    can_pause  whether a person may pause it: one that consists of many steps
    on_abort   what a person who aborts it changes beside the job, by their name, in the same transaction and before the job is
               locked; None where it cannot be aborted, because what requested it would be lost
    is_single  all jobs of a connector fail as one: a later job that is done closes the failure of an earlier one
    """

    step: Callable[[ClaimedJob], JobStep]
    event: str
    on_failure: Callable[[Session, ClaimedJob, PipelineError], None] = _keep
    on_resume: Callable[[Session, str], None] = _keep_stop
    can_pause: bool = False
    on_abort: Callable[[Session, Job, str], None] | None = None
    is_single: bool = False


def wait(seconds: float) -> JobStep:
    """Return the step that follows in `seconds`."""
    return JobStep(seconds)


def keep_result(_session: Session, _job: Job, _by: str) -> None:
    """Abort a job by ending its row alone: what its steps wrote stays."""


def enqueue(
    session: Session,
    kind: str,
    key: str,
    *,
    title: str = "",
    connector_key: int | None = None,
    secret: str | None = None,
) -> None:
    """Write a job down.

    title   what it is for, where the kind does not say it
    secret  what it takes, sealed: credentials, or an address that opens a file by itself
    """
    sealed = None if secret is None else _vault().seal(connector_key or 0, _label(kind, key), secret)
    jobs.enqueue(session, kind, key, title=title, connector_key=connector_key, secret=sealed)


def _vault() -> Vault:
    return Vault(settings().secret_keys)


def _label(kind: str, key: str) -> str:
    return f"job:{kind}:{key}"


def reopen(session: Session, job: Job, key: str, *, title: str, secret: str) -> bool:
    """Have a job that is done continue under another key and with another input; False when it is not done."""
    sealed = _vault().seal(job.connector_key or 0, _label(job.kind, key), secret)
    return jobs.reopen(session, job.id, key, title=title, secret=sealed)


def secret_of(job: ClaimedJob) -> str:
    """What was sealed. Raises: ConfigurationError("secret_unreadable")."""
    return _vault().open(job.connector_key or 0, _label(job.kind, job.dedupe_key), job.secret or b"")


def order_of(job: ClaimedJob, form: type[T]) -> T:
    """Return what was sealed. Raises: Rejected("job_unreadable"), ConfigurationError("secret_unreadable")."""
    return read_stored(secret_of(job), form)


def read_stored(text: str, form: type[T]) -> T:
    """Read JSON that an earlier step wrote. Raises: Rejected("job_unreadable"), which does not repeat the text."""
    try:
        return TypeAdapter(form).validate_json(text)
    except ValidationError:
        raise Rejected("job_unreadable", f"it is not a {form.__name__} of this version") from None


def dispatch() -> None:
    """Notify a worker for every due job. Safe to run concurrently."""
    with transaction() as session:
        found = jobs.take_due(session, patience_s=PATIENCE_S)
        after_commit(session, lambda: _wake(found))


def _wake(found: list[tuple[int, str]]) -> None:
    for job_id, kind in found:
        try:
            app.send_task(TASK, args=(job_id,), queue=QUEUES.get(kind, "control"))
        except Exception as unreachable:  # noqa: BLE001 - whatever the broker's client raises, the row says what is due
            logger().warning("broker.unreachable", error=type(unreachable).__name__)
            return


CONTINUE: Final = JobStep(0.0)
DONE: Final = JobStep(None)
REFUSED: Final = JobStep(None, "refused")
"""What the job was about does not exist any more."""
