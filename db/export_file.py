"""Files that Hull exports, stored in pieces as they are downloaded, so that a download can be resumed.

The bytes are stored as the server sends them. A compressed file cannot be read from its middle, so a resumed download reads the
stored bytes from the beginning: that takes seconds, a new download as long as the first one.
"""

from __future__ import annotations

from dataclasses import dataclass

import zstandard
from sqlalchemy import BigInteger, Boolean, ForeignKey, Integer, LargeBinary, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, changed_rows

KEEP_DAYS = 7
"""Retention of the file of a failed export, for a replay."""


class ExportFile(Base):
    """One file.

    job_id       the job that downloads it
    validator    the server's strong ETag, or its Last-Modified; empty if it sends neither
    size_bytes   stored bytes
    total_bytes  bytes of the whole file, if the server sends it
    pieces       stored pieces
    """

    __tablename__ = "export_files"

    job_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    validator: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    pieces: Mapped[int] = mapped_column(Integer, server_default="0")
    is_whole: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))


class ExportPiece(Base):
    """content  bytes as the server sent them, compressed by zstd"""

    __tablename__ = "export_pieces"

    job_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("export_files.job_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """The stored part of a file; see `ExportFile`."""

    validator: str = ""
    size_bytes: int = 0
    total_bytes: int | None = None
    is_whole: bool = False

    @property
    def mark(self) -> str:
        """A value that a later download of the same file has too."""
        return f"{self.validator}|{self.size_bytes}"


def find_file(session: Session, job_id: int) -> StoredFile:
    """Return the stored part of the file of a job; an empty one if nothing is stored."""
    row = session.get(ExportFile, job_id, populate_existing=True)
    if row is None:
        return StoredFile()
    return StoredFile(
        validator=row.validator, size_bytes=row.size_bytes, total_bytes=row.total_bytes, is_whole=row.is_whole
    )


_DROP = text("DELETE FROM export_files WHERE job_id = :job_id")


def begin_file(session: Session, job_id: int, *, validator: str, total_bytes: int | None) -> None:
    """Start a file, and delete the one that the job has."""
    drop_file(session, job_id)
    session.add(ExportFile(job_id=job_id, validator=validator, total_bytes=total_bytes))
    session.flush()


_GROW = text("""
    WITH grown AS (
        UPDATE export_files SET size_bytes = size_bytes + :size, pieces = pieces + 1
         WHERE job_id = :job_id RETURNING pieces - 1 AS number)
    INSERT INTO export_pieces (job_id, number, content) SELECT :job_id, number, :content FROM grown""")


def add_piece(session: Session, job_id: int, content: bytes) -> None:
    """Store the next bytes of a file."""
    packed = zstandard.ZstdCompressor(level=1).compress(content)
    session.execute(_GROW, {"job_id": job_id, "size": len(content), "content": packed})


_END = text("UPDATE export_files SET is_whole = true, total_bytes = size_bytes WHERE job_id = :job_id")


def end_file(session: Session, job_id: int) -> None:
    """Note that the whole file is stored."""
    session.execute(_END, {"job_id": job_id})


def find_piece(session: Session, job_id: int, number: int) -> bytes | None:
    """Return the bytes of a piece, counted from 0; None after the last one."""
    packed = session.scalar(select(ExportPiece.content).filter_by(job_id=job_id, number=number))
    return None if packed is None else zstandard.ZstdDecompressor().decompress(bytes(packed))


def drop_file(session: Session, job_id: int) -> None:
    """Delete the file of a job."""
    session.execute(_DROP, {"job_id": job_id})
    session.expire_all()


_DROP_OLD = text("""
    DELETE FROM export_files f USING jobs e
     WHERE e.id = f.job_id AND e.state <> 'due' AND e.ended_at < now() - make_interval(days => :days)""")


def drop_old_files(session: Session) -> int:
    """Delete files of jobs that ended KEEP_DAYS ago; return how many."""
    return changed_rows(session, _DROP_OLD, {"days": KEEP_DAYS})
