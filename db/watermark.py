"""Watermarks: up to what moment Hull is known to hold everything that changed in Pipedrive."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Count, Created


class Watermark(Base):
    """reached_at           everything that changed in Pipedrive before this moment is in Hull, except `excepted` records
    deletes_verified_at  when the ids of both sides were last compared whole; deletions are not part of `reached_at`
    """

    __tablename__ = "watermarks"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    reached_at: Mapped[datetime | None]
    excepted: Mapped[Count]
    """Records that are open Failures: named, not lost."""
    deletes_verified_at: Mapped[datetime | None]
    moved_at: Mapped[Created]


def find_watermark(session: Session, connector_key: int, entity: str) -> Watermark | None:
    return session.get(Watermark, (connector_key, entity))


def note_deletes_verified(session: Session, connector_key: int, entity: str, at: datetime) -> None:
    """The ids that were known at this moment have all been compared with those that Pipedrive lists."""
    row = insert(Watermark).values(connector_key=connector_key, entity=entity, deletes_verified_at=at)
    later = func.greatest(Watermark.deletes_verified_at, row.excluded.deletes_verified_at)
    keys = ["connector_key", "entity"]
    session.execute(row.on_conflict_do_update(index_elements=keys, set_={"deletes_verified_at": later}))
