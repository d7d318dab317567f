"""How up to date the local index of Pipedrive's records is (id map, claims, snapshots): what a look-up need not request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base


class Mirror(Base):
    """listed_at  everything that changed before this moment was listed for a look-up, and is loaded or staged in a batch"""

    __tablename__ = "mirrors"

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    listed_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Freshness:
    """now            the database's clock, before anything is listed
    is_complete    whether a full fetch has ended and the index knows records by the identifiers of the settings in force; before
                   that it holds only what was fetched or listed so far
    changed_since  everything that changed before this moment is in the index, or staged; from the connector's first moment on
                   where it is not complete
    added_since    the same of records that were added and never changed: a list by update time may not show them
    is_reindexed   whether every change of identifiers was followed by a backfill or a full fetch that ended
    """

    now: datetime
    is_complete: bool
    changed_since: datetime
    added_since: datetime
    is_reindexed: bool


_FRESHNESS = text("""
    SELECT now() AS now, w.complete_since IS NOT NULL AND r.id IS NULL AS is_complete,
           coalesce(greatest(w.reached_at, w.complete_since, m.listed_at), c.created_at) AS changed_since,
           coalesce(greatest(w.complete_since, w.fully_read_at, m.listed_at), c.created_at) AS added_since,
           r.id IS NULL AS is_reindexed
      FROM connectors c
      LEFT JOIN watermarks w ON w.connector_key = c.key AND w.entity = :e
      LEFT JOIN mirrors m ON m.connector_key = c.key AND m.entity = :e
      LEFT JOIN LATERAL (SELECT id, state, started_at FROM runs
                          WHERE connector_key = c.key AND entity = :e AND reindexes ORDER BY id DESC LIMIT 1) r
             ON r.state <> 'done' AND (w.fully_read_at IS NULL OR w.fully_read_at < r.started_at)
     WHERE c.key = :c""")

# The newest backfill of its kind decides: one that takes its place is begun as one of its kind too (`pipeline.sync.runs.backfill`).
_LISTED = text("""
    INSERT INTO mirrors AS m (connector_key, entity, listed_at) VALUES (:c, :e, :at)
    ON CONFLICT (connector_key, entity) DO UPDATE SET listed_at = greatest(m.listed_at, excluded.listed_at)""")


def freshness(session: Session, connector_key: int, entity: str) -> Freshness:
    """Return how far the index can be relied on."""
    return Freshness(*session.execute(_FRESHNESS, {"c": connector_key, "e": entity}).one())


def note_listed(session: Session, connector_key: int, entity: str, until: datetime) -> None:
    """Move the mark: what changed before `until` was listed since the last mark, and this transaction stages what is not loaded.

    Look-ups read staged batches (`db.batch.unloaded`), so the mark never vouches for what they cannot see.
    """
    session.execute(_LISTED, {"c": connector_key, "e": entity, "at": until})
