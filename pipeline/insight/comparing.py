"""Comparisons of both sides: what the last one found, what its repair would change, and what the next one costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import job
from db.id_mapping import any_read
from db.verification import last_verification
from pipeline.domain.kinds import Entity
from pipeline.jobs.verify import verify
from pipeline.jobs.verify.verify import SAMPLE, expected_tokens
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
    """tokens         that comparing a sample will cost
    tokens_of_all  that comparing everything will cost; None before the first fetch
    under_way      whether the newest one, or its repair, has not ended
    job_id         of the newest one
    repairable     records that its repair would change; None where it cannot be repaired (now)
    """

    sample: int
    tokens: int
    tokens_of_all: int | None
    under_way: bool
    job_id: int | None
    repairable: int | None
    last: ComparisonResult | None


def comparing(session: Session, connector_key: int) -> Comparing:
    """Return what is known of comparisons of a connector."""
    newest = next(iter(job.latest_jobs(session, connector_key, [VERIFY], limit=1)), None)
    return Comparing(
        sample=SAMPLE,
        tokens=expected_tokens(session, connector_key, SAMPLE),
        tokens_of_all=cost_of(session, connector_key, None),
        under_way=newest is not None and newest.state in job.OPEN,
        job_id=None if newest is None else newest.id,
        repairable=None if newest is None else verify.repairable(session, newest),
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


def cost_of(session: Session, connector_key: int, sample: int | None) -> int | None:
    """Return the tokens that a comparison of a sample, or of everything, will cost; None where that is not known yet."""
    is_known = sample is not None or any(any_read(session, connector_key, each) for each in Entity)
    return expected_tokens(session, connector_key, sample) if is_known else None
