"""The comparison of a sample: what it costs, what the last one came to, and having one made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import audit, job
from db.connector import Connector
from db.session import transaction
from db.verification import last_verification
from pipeline.insight.acts import require_active
from pipeline.jobs.verify import verify
from pipeline.jobs.verify.verify import SAMPLE, VerifyOrder, expected_tokens
from pipeline.sync.job_queue import VERIFY


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonResult:
    """The result of the last comparison; `sample` is None if everything was compared."""

    finished_at: datetime
    asked_by: str
    sample: int | None
    compared: int
    drift: int
    took_s: float
    tokens: int
    counts: dict[str, Any]
    named: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    """tokens     cost of the next one
    under_way  whether one was requested and has not ended
    """

    sample: int
    tokens: int
    under_way: bool
    last: ComparisonResult | None


def comparing(session: Session, connector_key: int) -> Comparing:
    """Return its state."""
    newest = job.latest_jobs(session, connector_key, [VERIFY], limit=1)
    return Comparing(
        sample=SAMPLE,
        tokens=expected_tokens(session, connector_key, SAMPLE),
        under_way=bool(newest) and newest[0].state in job.OPEN,
        last=last_compared(session, connector_key),
    )


def last_compared(session: Session, connector_key: int) -> ComparisonResult | None:
    """What the last comparison came to, if there was one."""
    row = last_verification(session, connector_key)
    if row is None:
        return None
    return ComparisonResult(
        finished_at=row.finished_at,
        asked_by=row.asked_by,
        sample=row.sample,
        compared=sum(part["compared"] for part in row.counts.values()),
        drift=row.drift,
        took_s=row.took_s,
        tokens=row.tokens,
        counts=row.counts,
        named=tuple(row.named),
    )


def ask(connector: Connector, *, by: str) -> None:
    """Have a sample compared. Raises: Impossible."""
    require_active(connector)
    with transaction() as session:
        verify.enqueue(session, connector.key, VerifyOrder(sample=SAMPLE, requested_by=by))
        audit.note(session, by, "verify.start", f"sample of {SAMPLE}", connector_key=connector.key)
