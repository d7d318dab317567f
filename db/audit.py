"""The audit log: who did what, when, to what, and why. Only ever appended to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, Integer, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId


class AuditEntry(Base):
    """One act of one person.

    action   what was done, as `failures.replay` or `operator.add`
    subject  what it was done to: an id, a name, the words of a filter; never values of records
    """

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_connector", "connector_key", "id"),)

    id: Mapped[RowId]
    at: Mapped[Created]
    operator: Mapped[str]
    connector_key: Mapped[int | None] = mapped_column(Integer)
    action: Mapped[str]
    subject: Mapped[str]
    why: Mapped[str | None]
    detail: Mapped[dict[str, Any] | None]


def note(
    session: Session,
    operator: str,
    action: str,
    subject: str,
    *,
    connector_key: int | None = None,
    why: str | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Write down what somebody did, in the transaction in which it is done."""
    session.add(
        AuditEntry(
            operator=operator, action=action, subject=subject, connector_key=connector_key, why=why, detail=detail
        )
    )


def latest_entries(
    session: Session,
    *,
    connector_key: int | None = None,
    before_id: int | None = None,
    since: datetime | None = None,
    limit: int = 100,
) -> list[AuditEntry]:
    """Newest first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if connector_key is not None:
        query = query.filter_by(connector_key=connector_key)
    if before_id is not None:
        query = query.where(AuditEntry.id < before_id)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    return list(session.scalars(query))
