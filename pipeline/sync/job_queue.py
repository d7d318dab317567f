"""Jobs are handed to workers by id, as batches are; `pipeline.jobs.runtime` carries them out."""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from db import job as jobs
from db.job import ClaimedJob, Job
from db.session import after_commit, transaction
from pipeline.errors import Rejected
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


def _vault() -> Vault:
    return Vault(settings().secret_keys)


def _label(kind: str, key: str) -> str:
    return f"job:{kind}:{key}"
