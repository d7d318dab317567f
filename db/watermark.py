"""Watermarks: up to when Hull has all changes of Pipedrive, and how up to date the local index is.

Look-ups use the local index instead of requests: the id map, identifiers and snapshots.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ForeignKey, Integer, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Count, Created
from db.connector import Connector
from db.run import Run

MARGIN: Final = timedelta(seconds=5)
"""A walk has read what changed up to this long before it began: an edit may appear in a list a moment after its time."""


class Watermark(Base):
    """The progress of one entity of a connector.

    reached_at           the walks by time have read everything that changed before this moment
    complete_since       when the first completed full fetch began; without one there is no watermark
    excepted             number of exceptions: failures, and pending changes
    fully_read_at        when the last completed full fetch began
    deletes_verified_at  when the ids of both sides were last compared completely; deletions are not part of `reached_at`
    listed_at            everything that changed before this moment was listed for a look-up, and is loaded or staged in a batch
    """

    __tablename__ = "watermarks"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    reached_at: Mapped[datetime | None]
    complete_since: Mapped[datetime | None]
    fully_read_at: Mapped[datetime | None]
    excepted: Mapped[Count]
    deletes_verified_at: Mapped[datetime | None]
    listed_at: Mapped[datetime | None]
    moved_at: Mapped[Created]

    @property
    def claimed(self) -> datetime | None:
        """Everything that changed in Pipedrive before this moment is in Hull, except `excepted` records; None without a
        watermark.
        """
        return self.reached_at if self.complete_since is not None else None


def find_watermark(session: Session, connector_key: int, entity: str) -> Watermark | None:
    return session.get(Watermark, (connector_key, entity))


def note_deletes_verified(session: Session, connector_key: int, entity: str, at: datetime) -> None:
    """Store that all ids known at this moment were compared with those that Pipedrive lists."""
    _move_forward(session, connector_key, entity, "deletes_verified_at", at)


def walked_to(session: Session, connector: Connector, entity: str) -> datetime:
    """Return from when on the next walk by time must read: the watermark, or the creation of the connector."""
    found = find_watermark(session, connector.key, entity)
    return (found.reached_at if found else None) or connector.created_at


_EXCEPTED = text("""
    SELECT (SELECT count(*) FROM failures WHERE connector_key = :c AND direction = 'incoming' AND entity = :e
               AND state = 'open' AND kind = 'record')
         + (SELECT coalesce(sum(b.records), 0) FROM batches b WHERE b.connector_key = :c AND b.direction = 'incoming'
               AND b.entity = :e AND b.state = 'failed')
         + (SELECT count(*) FROM changes WHERE connector_key = :c AND direction = 'incoming' AND entity = :e
               AND cause IN ('same_second', 'stale_overwrite', 'missing'))""")


def count_excepted(session: Session, connector_key: int, entity: str) -> int:
    """Return the number of records that a walk has read and that are not up to date in Hull: they failed, or are sent or read
    again.
    """
    return int(session.execute(_EXCEPTED, {"c": connector_key, "e": entity}).scalar_one())


def move(session: Session, run: Run, created_at: datetime) -> datetime | None:
    """Move the watermark after a completed walk, and return it.

    An incremental walk that began after the watermark leaves a gap, so it does not move it: a user chose a later start. The
    watermark never moves back.
    """
    mark = _lock(session, run.connector_key, run.entity)
    if run.kind == "full":
        mark.complete_since = mark.complete_since or run.started_at
        mark.fully_read_at = max(mark.fully_read_at or run.started_at, run.started_at)
    elif run.since is None or run.since > (mark.reached_at or created_at):
        return None
    reached = run.started_at - MARGIN
    mark.reached_at = max(mark.reached_at or reached, reached)
    mark.excepted = count_excepted(session, run.connector_key, run.entity)
    mark.moved_at = func.now()
    session.flush()
    return mark.claimed


def _lock(session: Session, connector_key: int, entity: str) -> Watermark:
    row = insert(Watermark).values(connector_key=connector_key, entity=entity)
    session.execute(row.on_conflict_do_nothing())
    return session.get_one(Watermark, (connector_key, entity), with_for_update=True)


@dataclass(frozen=True, slots=True)
class IndexFreshness:
    """How up to date the local index is.

    now            the time of the database, before anything is listed
    is_complete    a full fetch has ended, and records are indexed by the identifiers of the settings in force; otherwise the
                   index has only what was fetched or listed so far
    changed_since  everything that changed before this moment is in the index, or staged; the creation of the connector if the
                   index is not complete
    added_since    the same for records that were added and never changed: a list by update time may not have them
    is_reindexed   each change of identifiers was followed by a backfill or a full fetch that ended
    """

    now: datetime
    is_complete: bool
    changed_since: datetime
    added_since: datetime
    is_reindexed: bool


_FRESHNESS = text("""
    SELECT now() AS now, w.complete_since IS NOT NULL AND r.id IS NULL AS is_complete,
           coalesce(greatest(w.reached_at, w.complete_since, w.listed_at), c.created_at) AS changed_since,
           coalesce(greatest(w.complete_since, w.fully_read_at, w.listed_at), c.created_at) AS added_since,
           r.id IS NULL AS is_reindexed
      FROM connectors c
      LEFT JOIN watermarks w ON w.connector_key = c.key AND w.entity = :e
      LEFT JOIN LATERAL (SELECT id, state, started_at FROM runs
                          WHERE connector_key = c.key AND entity = :e AND reindexes ORDER BY id DESC LIMIT 1) r
             ON r.state <> 'done' AND (w.fully_read_at IS NULL OR w.fully_read_at < r.started_at)
     WHERE c.key = :c""")
"""The newest reindexing backfill decides: it replaces earlier ones (`pipeline.sync.runs.backfill`)."""


def get_index_freshness(session: Session, connector_key: int, entity: str) -> IndexFreshness:
    """Return how up to date the local index is."""
    return IndexFreshness(*session.execute(_FRESHNESS, {"c": connector_key, "e": entity}).one())


def note_listed(session: Session, connector_key: int, entity: str, until: datetime) -> None:
    """Store that everything that changed before `until` was listed, and is loaded or staged by this transaction.

    Look-ups read staged batches too (`db.batch.unloaded`).
    """
    _move_forward(session, connector_key, entity, "listed_at", until)


def _move_forward(session: Session, connector_key: int, entity: str, column: str, at: datetime) -> None:
    row = insert(Watermark).values(connector_key=connector_key, entity=entity, **{column: at})
    latest = func.greatest(getattr(Watermark, column), row.excluded[column])
    session.execute(row.on_conflict_do_update(index_elements=["connector_key", "entity"], set_={column: latest}))
