"""Exports of the log: a job writes a file part by part, and a finished file is downloaded part by part."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import zstandard
from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Count, Created, RowId, changed_rows

RETENTION_HOURS: Final = 24
LEVEL: Final = 3


class LogExport(Base):
    """One file.

    kind       content type of the file
    file_name  name under which a browser stores it
    requested_by   name of the operator
    before_id  the next part has events with lower ids
    """

    __tablename__ = "log_exports"
    __table_args__ = (Index("ix_log_exports_latest", "connector_key", "id"),)

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    kind: Mapped[str]
    file_name: Mapped[str]
    requested_by: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="writing")
    """`writing`, `done`, `cut` (reading more takes too long; the written part may be downloaded), `failed` or `aborted`."""
    before_id: Mapped[int | None] = mapped_column(BigInteger)
    events: Mapped[Count]
    parts: Mapped[Count]
    created_at: Mapped[Created]
    ended_at: Mapped[datetime | None]

    @property
    def is_ready(self) -> bool:
        return self.state in ("done", "cut")


class LogExportPart(Base):
    """body  lines of the file, compressed by zstd"""

    __tablename__ = "log_export_parts"

    export_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("log_exports.id", ondelete="CASCADE"), primary_key=True
    )
    n: Mapped[int] = mapped_column(Integer, primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


def find_export(session: Session, connector_key: int, export_id: int) -> LogExport | None:
    return session.scalar(select(LogExport).filter_by(connector_key=connector_key, id=export_id))


def count_unfinished(session: Session, connector_key: int) -> int:
    """Return how many files of a connector are being written."""
    return session.scalar(select(func.count(LogExport.id)).filter_by(connector_key=connector_key, state="writing")) or 0


def add_part(session: Session, export_id: int, lines: bytes, events: int, before_id: int | None) -> None:
    """Append lines to a file; the next part begins before the event `before_id`."""
    export = session.get_one(LogExport, export_id, with_for_update=True)
    session.add(
        LogExportPart(export_id=export_id, n=export.parts, body=zstandard.ZstdCompressor(level=LEVEL).compress(lines))
    )
    export.parts, export.events, export.before_id = export.parts + 1, export.events + events, before_id


def end_export(session: Session, export_id: int, state: str) -> None:
    """End a file as `done`, `cut`, `failed` or `aborted`, unless it was deleted after its retention."""
    export = session.get(LogExport, export_id, with_for_update=True)
    if export is not None:
        export.state, export.ended_at = state, func.now()


def part_of(session: Session, export_id: int, n: int) -> bytes | None:
    """Return the lines of a part; None after the last one."""
    body = session.scalar(select(LogExportPart.body).filter_by(export_id=export_id, n=n))
    return None if body is None else zstandard.ZstdDecompressor().decompress(bytes(body))


def drop_old_exports(session: Session) -> int:
    """Delete files past their retention; return how many."""
    old = func.now() - timedelta(hours=RETENTION_HOURS)
    return changed_rows(session, delete(LogExport).where(LogExport.created_at < old))
