"""Keeps what a comparison came to, and compares a sample when a person asks for it from a page."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from sqlalchemy.orm import Session

from db import failure as failures
from db import job as jobs
from db import verified
from db.job import ClaimedJob
from db.session import after_commit, transaction
from pipeline.jobs.verify.comparison import EntityReport
from pipeline.jobs.verify.verify import Report, verify
from pipeline.sync import job_queue
from pipeline.sync.job_queue import VERIFY, secret_of
from pipeline.tasks import wakeups

SAMPLE: Final = 500
"""Records of each kind: read within a minute, and wide enough to find what is wrong with one record in a hundred."""
NAMED: Final = 100
"""Records that are named; what is more is counted."""


def enqueue(session: Session, connector_key: int, by: str) -> None:
    """Let a worker compare a sample."""
    job_queue.enqueue(session, VERIFY, str(connector_key), connector_key=connector_key, secret=by)
    after_commit(session, lambda: wakeups.wake_control("dispatch"))


def run(job: ClaimedJob) -> None:
    """Compare, and keep what came out. Raises: what `verify` raises."""
    key, by = job.connector_key or 0, secret_of(job)
    report = verify(key, sample=SAMPLE)
    with transaction() as session:
        jobs.end(session, job)
        keep(session, key, report, sample=SAMPLE, by=by)
        failures.close_subject(session, key, failures.control_subject(f"{VERIFY}:{job.id}"))


def keep(session: Session, connector_key: int, report: Report, *, sample: int | None, by: str) -> None:
    """Counts and ids, never values of records."""
    named = [
        {
            "entity": part.entity.value,
            "kind": each.kind.value,
            "pipedrive_id": each.pipedrive_id,
            "hull_id": each.hull_id,
        }
        for part in report.entities
        for each in part.findings
    ]
    session.add(
        verified.Verification(
            connector_key=connector_key,
            asked_by=by,
            sample=sample,
            drift=report.drift,
            took_s=round(report.seconds, 3),
            tokens=report.tokens,
            counts={part.entity.value: _counts(part) for part in report.entities},
            named=named[:NAMED],
        )
    )


def _counts(part: EntityReport) -> dict[str, Any]:
    return {
        "compared": part.compared,
        "drift": part.drift,
        "kinds": dict(Counter(each.kind.value for each in part.findings)),
        "waiting": sum(part.pending.values()),
        "failed": sum(part.failed.values()),
    }
