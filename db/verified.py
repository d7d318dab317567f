"""What comparisons came to, so that a page can tell when everything was last found in its place."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Float, ForeignKey, Index, Integer, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId

KEPT: Final = timedelta(days=90)


class Verification(Base):
    """One comparison of Pipedrive, Hull and the id map.

    sample  records of each kind that were drawn; null where all were compared
    counts  entity → how many were compared, have drifted and how, wait, and are known to have failed
    named   the first records that have drifted, by their ids
    """

    __tablename__ = "verifications"
    __table_args__ = (Index("ix_verifications_latest", "connector_key", "id"),)

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    asked_by: Mapped[str]
    sample: Mapped[int | None] = mapped_column(Integer)
    drift: Mapped[int] = mapped_column(Integer)
    took_s: Mapped[float] = mapped_column(Float)
    tokens: Mapped[int] = mapped_column(Integer)
    counts: Mapped[dict[str, Any]]
    named: Mapped[list[Any]]
    finished_at: Mapped[Created]


def last_verification(session: Session, connector_key: int) -> Verification | None:
    """The newest one."""
    mine = select(Verification).filter_by(connector_key=connector_key)
    return session.scalars(mine.order_by(Verification.id.desc()).limit(1)).one_or_none()


def drop_old_verifications(session: Session) -> None:
    """Forget those past their retention."""
    session.execute(delete(Verification).where(Verification.finished_at < func.now() - KEPT))
