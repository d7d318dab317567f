"""What jobs keep as they go, a piece to a step, so that a worker that takes over has everything an earlier one found."""

from __future__ import annotations

from typing import Any, Final, cast

import zstandard
from sqlalchemy import BigInteger, CursorResult, ForeignKey, Integer, LargeBinary, delete, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base

LEVEL: Final = 1
RETENTION_HOURS: Final = 24


class JobItem(Base):
    """subject  what the pieces are: those of one subject are numbered from 0 in the order they were written
    payload  zstd
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
    DELETE FROM job_items USING jobs
     WHERE jobs.id = job_items.job_id AND jobs.state IN ('done', 'refused')
       AND jobs.ended_at < now() - make_interval(hours => :keep_hours)""")


def drop_old_items(session: Session, keep_hours: int = RETENTION_HOURS) -> int:
    """Delete the pieces of jobs that ended so long ago; returns how many. Those of failed jobs stay: a replay needs them."""
    return cast("CursorResult[Any]", session.execute(_DROP, {"keep_hours": keep_hours})).rowcount
