"""Store jobs, wake workers for them, and define handlers, which `pipeline.jobs.runtime` runs.

A handler does one step at a time. It writes its result and its progress in one transaction, which begins with `db.job.hold` or
`db.job.checkpoint`. A step may be repeated after its worker was killed, and must then do no harm.
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
"""A message without an effect for this time counts as lost; until then no second one is sent."""


def do_nothing(*_arguments: object) -> None:
    """Change nothing beside the job's own row."""


@dataclass(frozen=True, slots=True)
class JobStep:
    """What to do after a step.

    wait_s  seconds until the next step, 0 for immediately; None if the job has ended
    state   the state of an ended job
    """

    wait_s: float | None
    state: str = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """How jobs of one kind are run.

    step       does the next piece of the work
    event      event and log line of a job that failed
    on_failure stores the failure in the subject of the job, in the transaction that ends the job
    on_resume  removes that failure, in the transaction that resumes the job and before the job is locked
    can_pause  whether a person may pause it: it has many steps
    on_abort   changes the subject of an aborted job, in the same transaction and before the job is locked; gets the operator's
               name. None if the job cannot be aborted, because its request would be lost
    is_single  all jobs of a connector fail as one: a later successful job closes the failure of an earlier one
    """

    step: Callable[[ClaimedJob], JobStep]
    event: str
    on_failure: Callable[[Session, ClaimedJob, PipelineError], None] = do_nothing
    on_resume: Callable[[Session, str], None] = do_nothing
    can_pause: bool = False
    on_abort: Callable[[Session, Job, str], None] | None = None
    is_single: bool = False


def wait(seconds: float) -> JobStep:
    """Return the step that follows in `seconds`."""
    return JobStep(seconds)


def enqueue(
    session: Session,
    kind: str,
    key: str,
    *,
    title: str = "",
    connector_key: int | None = None,
    secret: str | None = None,
) -> None:
    """Store a job.

    title   describes it if its kind is not enough
    secret  input that is stored sealed: credentials, or an address that opens a file by itself
    """
    sealed = None if secret is None else _vault().seal(connector_key or 0, _label(kind, key), secret)
    jobs.enqueue(session, kind, key, title=title, connector_key=connector_key, secret=sealed)


def _vault() -> Vault:
    return Vault(settings().secret_keys)


def _label(kind: str, key: str) -> str:
    return f"job:{kind}:{key}"


def reopen(session: Session, job: Job, key: str, *, title: str, secret: str) -> bool:
    """Continue a finished job under another key and with another input; return False if it is not finished."""
    sealed = _vault().seal(job.connector_key or 0, _label(job.kind, key), secret)
    return jobs.reopen(session, job.id, key, title=title, secret=sealed)


def secret_of(job: ClaimedJob) -> str:
    """Return the sealed input. Raises: ConfigurationError("secret_unreadable")."""
    return _vault().open(job.connector_key or 0, _label(job.kind, job.dedupe_key), job.secret or b"")


def order_of(job: ClaimedJob, form: type[T]) -> T:
    """Return the sealed input as `form`. Raises: Rejected("job_unreadable"), ConfigurationError("secret_unreadable")."""
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
        except Exception as unreachable:  # noqa: BLE001 - the rows keep what is due
            logger().warning("broker.unreachable", error=type(unreachable).__name__)
            return


CONTINUE: Final = JobStep(0.0)
DONE: Final = JobStep(None)
REFUSED: Final = JobStep(None, "refused")
"""The subject of the job does not exist any more."""
