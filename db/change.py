"""Changes: one row per record that must be carried over, however many deliveries told of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    CursorResult,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    case,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId
from db.batch import Batch


class Change(Base):
    """record_id  the Pipedrive id of an incoming change, the Hull id of an outgoing one
    revision   grows with every delivery folded in; a change is cleared only at the revision its batch claimed
    payload    the newest body that told of it, or None when the record must be read from its source
    rank       when that body was sent, in milliseconds since the epoch: a later one replaces it, an earlier one does not
    """

    __tablename__ = "changes"
    __table_args__ = (
        UniqueConstraint("connector_key", "direction", "entity", "record_id"),
        Index("ix_changes_due", "due_at", postgresql_where=text("batch_id IS NULL")),
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
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    rank: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[Created]


def fold(  # noqa: PLR0913 - a change is these facts
    session: Session,
    connector_key: int,
    direction: str,
    entity: str,
    record_id: str,
    *,
    cause: str,
    payload: bytes | None = None,
    rank: int = 0,
    wait_s: float = 0.0,
) -> None:
    """Note that a record must be carried over. A newer payload replaces the one that waits; None leaves it to a read."""
    newer = Change.rank <= rank
    due = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, wait_s)
    row = insert(Change).values(
        connector_key=connector_key,
        direction=direction,
        entity=entity,
        record_id=record_id,
        cause=cause,
        payload=payload,
        rank=rank,
        due_at=due,
    )
    session.execute(
        row.on_conflict_do_update(
            constraint="uq_changes_connector_key_direction_entity_record_id",
            set_={
                "payload": case((newer, row.excluded.payload), else_=Change.payload),
                "rank": func.greatest(Change.rank, row.excluded.rank),
                "cause": row.excluded.cause,
                "revision": Change.revision + 1,
                "due_at": func.least(Change.due_at, row.excluded.due_at),
                "batch_id": case((_STUCK, None), else_=Change.batch_id),
            },
        )
    )


_STUCK = exists().where(Batch.id == Change.batch_id, Batch.state == "failed")
"""The batch that held the change gave up: a newer delivery takes the change out of it."""

_DUE_GROUPS = text("""
    SELECT DISTINCT ch.connector_key, ch.direction, ch.entity
      FROM changes ch JOIN connectors c ON c.key = ch.connector_key
     WHERE ch.batch_id IS NULL AND ch.due_at <= now() AND c.state = 'active'
     ORDER BY ch.entity, ch.direction""")


def due_groups(session: Session) -> list[tuple[int, str, str]]:
    """(connector, direction, entity) of which changes are due; organizations come before persons."""
    return [(row.connector_key, row.direction, row.entity) for row in session.execute(_DUE_GROUPS)]


_CLAIM = text("""
    UPDATE changes SET batch_id = :batch_id, claimed_revision = revision, attempts = attempts + 1
     WHERE id IN (SELECT id FROM changes
                   WHERE connector_key = :c AND direction = :d AND entity = :e AND batch_id IS NULL AND due_at <= now()
                   ORDER BY due_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)""")


def claim_changes(
    session: Session, connector_key: int, direction: str, entity: str, *, batch_id: int, limit: int
) -> int:
    """Put due changes into a batch; returns how many."""
    scope = {"c": connector_key, "d": direction, "e": entity, "batch_id": batch_id, "limit": limit}
    return cast("CursorResult[Any]", session.execute(_CLAIM, scope)).rowcount


def changes_of(session: Session, batch_id: int) -> list[Change]:
    """The changes a batch carries."""
    return list(session.scalars(select(Change).filter_by(batch_id=batch_id).order_by(Change.id)))


_CLEAR = text("DELETE FROM changes WHERE batch_id = :batch_id AND revision = claimed_revision")
_RETURN = text("""
    UPDATE changes SET batch_id = NULL, claimed_revision = NULL, due_at = least(due_at, now())
     WHERE batch_id = :batch_id""")


def clear_changes(session: Session, batch_id: int) -> None:
    """The batch is done: its changes are gone, except those that moved on meanwhile, which are due again."""
    session.execute(_CLEAR, {"batch_id": batch_id})
    session.execute(_RETURN, {"batch_id": batch_id})


_PUT_BACK = text("""
    UPDATE changes SET batch_id = NULL, claimed_revision = NULL, due_at = now() + make_interval(secs => :wait_s),
           attempts = attempts - CASE WHEN record_id = ANY(CAST(:counted AS text[])) THEN 0 ELSE 1 END
     WHERE batch_id = :batch_id AND record_id = ANY(CAST(:ids AS text[]))""")


def put_back(
    session: Session, batch_id: int, record_ids: Sequence[str], wait_s: float, *, counted: Sequence[str]
) -> None:
    """These records leave the batch and are tried again later; only for those in `counted` it was an attempt."""
    scope = {"batch_id": batch_id, "ids": list(record_ids), "counted": list(counted), "wait_s": wait_s}
    session.execute(_PUT_BACK, scope)
