"""The audit log: who did what, when, to what, and why. Append-only."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy import Integer, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId

ORIGIN: Final[ContextVar[str | None]] = ContextVar("audit_origin", default=None)
"""Where the current request or command comes from: an address, an address and a key, or the host of a command line."""


class AuditEntry(Base):
    """One action of an operator.

    action   such as `failures.replay` or `operator.add`
    subject  an id, a name, or the text of a filter; never values of records
    origin   an address and how the operator was authenticated, or the user and host of a command line
    """

    __tablename__ = "audit_log"

    id: Mapped[RowId]
    at: Mapped[Created]
    operator: Mapped[str]
    connector_key: Mapped[int | None] = mapped_column(Integer)
    action: Mapped[str]
    subject: Mapped[str]
    why: Mapped[str | None]
    detail: Mapped[dict[str, Any] | None]
    origin: Mapped[str | None]


def begin(origin: str | None) -> None:
    """Set the origin of the request or command that begins."""
    ORIGIN.set(origin)


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
    """Record an action of an operator, with its `ORIGIN`, in the transaction of the action."""
    session.add(
        AuditEntry(
            operator=operator,
            action=action,
            subject=subject,
            connector_key=connector_key,
            why=why,
            detail=detail,
            origin=ORIGIN.get(),
        )
    )


def latest_entries(session: Session, *, before_id: int | None = None, limit: int = 100) -> list[AuditEntry]:
    """Return entries, newest first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    return list(session.scalars(query if before_id is None else query.where(AuditEntry.id < before_id)))
