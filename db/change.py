"""Changes: one row for each record to synchronize, however many deliveries there are. `db.change_writer` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    and_,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId
from db.statement import texts


class Change(Base):
    """One record to synchronize.

    record_id            the Pipedrive id of an incoming change, the Hull id of an outgoing one
    revision             grows with each coalesced delivery; a change is deleted only at the revision that its batch claimed
    payload              the newest body about the record; None if the record must be read
    rank                 when that body was sent, in milliseconds since the epoch: only a later one replaces it
    is_created           a webhook reports that the record was created
    is_deleted           the payload reports that the record was deleted
    delivery_id          the newest delivery about the record
    claimed_delivery_id  the same when a batch claimed the change
    """

    __tablename__ = "changes"
    __table_args__ = (
        UniqueConstraint("connector_key", "direction", "entity", "record_id"),
        Index(
            "ix_changes_due",
            "connector_key",
            "direction",
            "entity",
            "due_at",
            "id",
            postgresql_where=text("batch_id IS NULL"),
        ),
        Index(
            "ix_changes_waiting",
            "connector_key",
            "waits_for",
            postgresql_where=text("batch_id IS NULL AND waits_for IS NOT NULL"),
        ),
        Index("ix_changes_batch", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer)
    direction: Mapped[str]
    entity: Mapped[str]
    record_id: Mapped[str]
    cause: Mapped[str]
    revision: Mapped[int] = mapped_column(Integer, server_default="1")
    claimed_revision: Mapped[int | None] = mapped_column(Integer)
    batch_id: Mapped[int | None] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    waits_for: Mapped[str | None]
    """As of a batch."""
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    rank: Mapped[int] = mapped_column(server_default="0")
    is_created: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    is_deleted: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    delivery_id: Mapped[int | None]
    claimed_delivery_id: Mapped[int | None]
    created_at: Mapped[Created]


FIRST_DUE: Final = """connectors c
     CROSS JOIN (VALUES ('incoming', 'organization'), ('incoming', 'person'), ('outgoing', 'organization'), ('outgoing', 'person'))
           AS g(direction, entity)
     CROSS JOIN LATERAL (SELECT ch.due_at FROM changes ch
                          WHERE ch.connector_key = c.key AND ch.direction = g.direction AND ch.entity = g.entity
                            AND ch.batch_id IS NULL AND ch.due_at <= now()
                          ORDER BY ch.due_at LIMIT 1) AS first_due"""
"""The oldest due change of each connector, direction and entity: one index entry each, however many are due."""

_DUE_GROUPS = text(f"""
    SELECT c.key AS connector_key, g.direction, g.entity
      FROM {FIRST_DUE}
     WHERE c.state = 'active'
       AND NOT EXISTS (SELECT 1 FROM batches b
                        WHERE b.state = 'ready' AND b.stage = 'extract' AND b.queue = 'live' AND b.run_id IS NULL
                          AND (b.connector_key, b.direction) = (c.key, g.direction)
                          AND (b.entity = g.entity OR b.direction = 'outgoing' AND b.entity = 'organization')
                          AND b.due_at <= now() AND b.enqueued_at > now() - make_interval(secs => :patience_s))
     ORDER BY g.entity, g.direction""")  # noqa: S608 - put together from constants

PATIENCE_S = 5.0
"""How long changes wait for an earlier batch of their kind that has not begun: under load one batch then collects them instead of
many, and Users wait for earlier Accounts. A batch with a lost message does not delay them longer.
"""


def due_groups(session: Session) -> list[tuple[int, str, str]]:
    """Return (connector, direction, entity) of due changes that a batch may claim now; Organizations come before Persons."""
    found = session.execute(_DUE_GROUPS, {"patience_s": PATIENCE_S})
    return [(row.connector_key, row.direction, row.entity) for row in found]


def changes_of(session: Session, batch_id: int) -> list[Change]:
    """Return the changes of a batch."""
    return list(session.scalars(select(Change).filter_by(batch_id=batch_id).order_by(Change.id)))


def count_in_batch(session: Session, batch_id: int) -> int:
    """Return how many changes a batch still has."""
    return session.scalar(select(func.count()).select_from(Change).where(Change.batch_id == batch_id)) or 0


def waiting_changes(session: Session, connector_key: int, entity: str, names: Mapping[str, str]) -> list[Change]:
    """Return the changes of one record; `names` are direction → the id of the record in that direction."""
    mine = select(Change).filter_by(connector_key=connector_key, entity=entity)
    either = [and_(Change.direction == direction, Change.record_id == name) for direction, name in names.items()]
    return list(session.scalars(mine.where(or_(*either)).order_by(Change.id))) if either else []


_CAUSE = text("""
    WITH mine AS MATERIALIZED (SELECT id, cause FROM changes WHERE batch_id = :batch_id)
    SELECT cause FROM mine ORDER BY id LIMIT 1""")
"""In two steps: in one, PostgreSQL may read all changes by id until it finds one of the batch."""


def cause_of(session: Session, batch_id: int) -> str | None:
    """Return the cause of the batch's first change; None for a batch without changes."""
    return cast("str | None", session.scalar(_CAUSE, {"batch_id": batch_id}))


class Source(NamedTuple):
    """The cause of a record in a live batch, and its delivery if there is one."""

    cause: str
    delivery_id: int | None


def sources_of(session: Session, batch_id: int) -> dict[int, Source]:
    """Return Pipedrive id → source, for the incoming changes of a batch, oldest first."""
    mine = select(Change.record_id, Change.cause, Change.claimed_delivery_id).filter_by(batch_id=batch_id)
    rows = session.execute(mine.where(Change.direction == "incoming").order_by(Change.id))
    return {int(record_id): Source(cause, delivery_id) for record_id, cause, delivery_id in rows}


def created_ids(session: Session, batch_id: int) -> set[int]:
    """Return the Pipedrive ids of a batch's records that a webhook reported as created."""
    mine = select(Change.record_id).filter_by(batch_id=batch_id, direction="incoming", is_created=True)
    return {int(record_id) for record_id in session.scalars(mine)}


_IN_FLIGHT = text("""
    SELECT ch.record_id FROM changes ch
     WHERE ch.connector_key = :c AND ch.direction = :d AND ch.entity = :e AND ch.record_id = ANY(CAST(:ids AS text[]))
       AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')""")


def find_in_flight(
    session: Session, connector_key: int, direction: str, entity: str, record_ids: Iterable[str]
) -> set[str]:
    """Return those of the records with a change that waits or is in a batch that has not failed."""
    ids = sorted(set(record_ids))
    if not ids:
        return set()
    return set(session.scalars(_IN_FLIGHT, {"c": connector_key, "d": direction, "e": entity, "ids": texts(ids)}))


@dataclass(frozen=True, slots=True)
class WaitingCount:
    """How many changes of an entity wait for a reason, and since when the oldest does."""

    direction: str
    entity: str
    reason: str
    count: int
    since: datetime


_WAITING = text("""
    SELECT direction, entity, waits_for, count(*), min(created_at) FROM changes
     WHERE connector_key = :c AND batch_id IS NULL AND waits_for IS NOT NULL AND waits_for = ANY(CAST(:reasons AS text[]))
     GROUP BY direction, entity, waits_for ORDER BY entity, waits_for""")


def waiting_for(session: Session, connector_key: int, reasons: Sequence[str]) -> list[WaitingCount]:
    """Count the changes that were put back under these reason codes."""
    return [WaitingCount(*row) for row in session.execute(_WAITING, {"c": connector_key, "reasons": texts(reasons)})]
