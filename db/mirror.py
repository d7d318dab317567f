"""How far the mirror of Pipedrive's records (id map, claims, snapshots) is up to date: the base of look-ups that cost nothing."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base


class Mirror(Base):
    """listed_at  when a list of all that had changed was last begun for the sake of a look-up, and came to its end"""

    __tablename__ = "mirrors"

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    listed_at: Mapped[datetime]


_SINCE = text("""
    SELECT now() AS now, greatest(w.reached_at, w.complete_since, m.listed_at) AS since
      FROM (SELECT CAST(:c AS int) AS c, CAST(:e AS text) AS e) q
      JOIN watermarks w ON w.connector_key = q.c AND w.entity = q.e AND w.complete_since IS NOT NULL
      LEFT JOIN mirrors m ON m.connector_key = q.c AND m.entity = q.e""")

_LISTED = text("""
    INSERT INTO mirrors AS m (connector_key, entity, listed_at) VALUES (:c, :e, :at)
    ON CONFLICT (connector_key, entity) DO UPDATE SET listed_at = greatest(m.listed_at, excluded.listed_at)""")


def current_since(session: Session, connector_key: int, entity: str) -> tuple[datetime, datetime] | None:
    """(now, the moment up to which the mirror holds everything); None while the first full fetch has not come to its end."""
    row = session.execute(_SINCE, {"c": connector_key, "e": entity}).one_or_none()
    return (row.now, row.since) if row else None


def note_listed(session: Session, connector_key: int, entity: str, began_at: datetime) -> None:
    """Everything that had changed before `began_at` has been listed and handed on."""
    session.execute(_LISTED, {"c": connector_key, "e": entity, "at": began_at})
