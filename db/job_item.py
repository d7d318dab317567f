"""Intermediate results of jobs, one piece for each step, so that another worker can continue a job."""

from __future__ import annotations

from typing import Final

import zstandard
from sqlalchemy import BigInteger, ForeignKey, Integer, LargeBinary, delete, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, changed_rows

LEVEL: Final = 1
RETENTION_HOURS: Final = 24
FAILED_RETENTION_DAYS: Final = 30
"""Retention of the pieces of a failed job, for a replay."""


class JobItem(Base):
    """One piece; those of one subject are numbered from 0 by the order of their writes.

    payload  compressed by zstd
    """

    __tablename__ = "job_items"

    job_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    subject: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    payload: Mapped[bytes] = mapped_column(LargeBinary)


_ADD = text("""
    INSERT INTO job_items (job_id, subject, n, payload)
    SELECT :job_id, :subject, coalesce(max(n) + 1, 0), :payload FROM job_items WHERE job_id = :job_id AND subject = :subject""")


def add_item(session: Session, job_id: int, subject: str, payload: bytes) -> None:
    """Write the next piece of a subject. The job must be locked."""
    packed = zstandard.ZstdCompressor(level=LEVEL).compress(payload)
    session.execute(_ADD, {"job_id": job_id, "subject": subject, "payload": packed})


def items_of(session: Session, job_id: int, subject: str) -> list[bytes]:
    """Return the pieces of a subject in their order."""
    mine = select(JobItem.payload).filter_by(job_id=job_id, subject=subject).order_by(JobItem.n)
    reader = zstandard.ZstdDecompressor()
    return [reader.decompress(bytes(packed)) for packed in session.scalars(mine)]


def delete_items(session: Session, job_id: int) -> None:
    """Delete all pieces of a job that begins again."""
    session.execute(delete(JobItem).filter_by(job_id=job_id))


_DROP = text("""
    WITH ended AS MATERIALIZED (
        SELECT DISTINCT jobs.id, jobs.state FROM jobs JOIN job_items ON job_items.job_id = jobs.id
         WHERE jobs.state IN ('done', 'refused', 'aborted') AND jobs.ended_at < now() - make_interval(hours => :keep_hours)
            OR jobs.state = 'failed' AND jobs.ended_at < now() - make_interval(days => :keep_failed_days)),
    reset AS (
        UPDATE jobs SET progress = 0, checkpoint = NULL WHERE id IN (SELECT id FROM ended WHERE state = 'failed'))
    DELETE FROM job_items WHERE job_id IN (SELECT id FROM ended)""")


def drop_old_items(session: Session) -> int:
    """Delete pieces past their retention; return how many. A replay of their failed job begins from the start."""
    scope = {"keep_hours": RETENTION_HOURS, "keep_failed_days": FAILED_RETENTION_DAYS}
    return changed_rows(session, _DROP, scope)
