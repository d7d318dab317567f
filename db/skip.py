"""The last skip of a User or Account: an equal skip is counted, and not logged again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base
from db.copy import texts


class LastSkip(Base):
    __tablename__ = "last_skips"

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    hull_id: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]


_NOTE = text("""
    INSERT INTO last_skips AS s (connector_key, entity, hull_id, reason)
    SELECT :c, :e, w.id, w.reason FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS w(id, reason) ORDER BY w.id
    ON CONFLICT (connector_key, entity, hull_id) DO UPDATE SET reason = excluded.reason WHERE s.reason <> excluded.reason
    RETURNING hull_id""")

_FORGET = text("""
    DELETE FROM last_skips WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:ids AS text[]))""")


def note_skips(session: Session, connector_key: int, entity: str, reasons: Mapping[str, str]) -> set[str]:
    """Hull id → why it is not sent. Returns those for which that is new."""
    if not reasons:
        return set()
    scope = {"c": connector_key, "e": entity, "ids": texts(reasons), "reasons": texts(reasons.values())}
    return set(session.scalars(_NOTE, scope))


def forget_skips(session: Session, connector_key: int, entity: str, hull_ids: Iterable[str]) -> None:
    """These were sent: their next skip is news again."""
    ids = sorted(hull_ids)
    if ids:
        session.execute(_FORGET, {"c": connector_key, "e": entity, "ids": texts(ids)})
