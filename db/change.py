"""Changes: one row per record that must be carried over, however many deliveries told of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    CursorResult,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId
from db.batch import Batch
from db.copy import bigints, texts


class Change(Base):
    """record_id  the Pipedrive id of an incoming change, the Hull id of an outgoing one
    revision   grows with every delivery folded in; a change is cleared only at the revision its batch claimed
    payload    the newest body that told of it, or None when the record must be read from its source
    rank       when that body was sent, in milliseconds since the epoch: a later one replaces it, an earlier one does not
    is_created a webhook told that the record was created
    is_deleted the payload tells that the record was deleted
    delivery_id          the newest delivery that told of the record
    claimed_delivery_id  the same as it was when a batch claimed the change
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
                "is_deleted": and_(Change.is_deleted, ~newer),
                "rank": func.greatest(Change.rank, row.excluded.rank),
                "cause": row.excluded.cause,
                "revision": Change.revision + 1,
                "due_at": func.least(Change.due_at, row.excluded.due_at),
                "batch_id": case((_STUCK, None), else_=Change.batch_id),
            },
        )
    )


_FOLD_ALL = text("""
    INSERT INTO changes AS ch (connector_key, direction, entity, record_id, cause)
    SELECT :c, :d, :e, id, :cause FROM (SELECT DISTINCT id FROM unnest(CAST(:ids AS text[])) AS t(id)) AS each
     ORDER BY id COLLATE "C"
        ON CONFLICT (connector_key, direction, entity, record_id) DO UPDATE SET
           revision = ch.revision + 1, due_at = least(ch.due_at, excluded.due_at),
           batch_id = CASE WHEN EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')
                           THEN NULL ELSE ch.batch_id END""")


def fold_all(
    session: Session, connector_key: int, direction: str, entity: str, record_ids: Collection[str], *, cause: str
) -> None:
    """Note in one statement that records must be carried over, as they are now or as what waits for them says."""
    if record_ids:
        scope = {"c": connector_key, "d": direction, "e": entity, "ids": texts(record_ids), "cause": cause}
        session.execute(_FOLD_ALL, scope)


_FOLD_REJECTED_FIELDS = text("""
    INSERT INTO changes AS ch (connector_key, direction, entity, record_id, cause)
    SELECT connector_key, direction, entity, record_id, CAST(:cause AS text) FROM failures
     WHERE connector_key = :c AND state = 'open' AND kind = 'field' AND direction = :d AND entity = :e
       AND field = ANY(CAST(:fields AS text[]))
     GROUP BY connector_key, direction, entity, record_id
     ORDER BY record_id COLLATE "C"
        ON CONFLICT (connector_key, direction, entity, record_id) DO UPDATE SET
           revision = ch.revision + 1, due_at = least(ch.due_at, excluded.due_at),
           batch_id = CASE WHEN EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')
                           THEN NULL ELSE ch.batch_id END""")


def fold_rejected_fields(
    session: Session, connector_key: int, direction: str, entity: str, fields: Collection[str], *, cause: str
) -> None:
    """Note that every record of which one of these fields was rejected must be carried over: as it is now, or as last reported."""
    if fields:
        scope = {"c": connector_key, "d": direction, "e": entity, "fields": texts(fields), "cause": cause}
        session.execute(_FOLD_REJECTED_FIELDS, scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySummary:
    """What deliveries say of one record: the newest of them, and whether its body may be used."""

    delivery_id: int
    entity: str
    record_id: str
    rank: int
    is_usable: bool
    is_created: bool
    is_deleted: bool = False


_FOLD_WEBHOOKS = text("""
    INSERT INTO changes AS ch
           (connector_key, direction, entity, record_id, cause, payload, rank, is_created, is_deleted, delivery_id)
    SELECT d.connector_key, 'incoming', t.entity, t.record_id, 'webhook', CASE WHEN t.usable THEN d.body END, t.rank, t.created,
           t.deleted AND t.usable, d.id
      FROM unnest(CAST(:ids AS bigint[]), CAST(:entities AS text[]), CAST(:records AS text[]), CAST(:ranks AS bigint[]),
                  CAST(:usable AS boolean[]), CAST(:created AS boolean[]), CAST(:deleted AS boolean[]))
           AS t(id, entity, record_id, rank, usable, created, deleted)
      JOIN deliveries d ON d.id = t.id
     ORDER BY d.connector_key, t.entity, t.record_id COLLATE "C"
        ON CONFLICT (connector_key, direction, entity, record_id) DO UPDATE SET
           payload = CASE WHEN excluded.payload IS NULL THEN CASE WHEN ch.is_deleted THEN ch.payload END
                          WHEN ch.rank < excluded.rank THEN excluded.payload
                          WHEN ch.rank > excluded.rank THEN ch.payload
                          WHEN excluded.is_deleted THEN excluded.payload
                          WHEN ch.is_deleted THEN ch.payload END,
           is_deleted = CASE WHEN excluded.payload IS NULL OR ch.rank > excluded.rank THEN ch.is_deleted
                             WHEN ch.rank < excluded.rank THEN excluded.is_deleted
                             ELSE ch.is_deleted OR excluded.is_deleted END,
           delivery_id = CASE WHEN ch.rank <= excluded.rank THEN excluded.delivery_id ELSE ch.delivery_id END,
           rank = greatest(ch.rank, excluded.rank),
           is_created = ch.is_created OR excluded.is_created,
           cause = excluded.cause,
           revision = ch.revision + 1,
           due_at = least(ch.due_at, excluded.due_at),
           batch_id = CASE WHEN EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')
                           THEN NULL ELSE ch.batch_id END""")


def fold_webhooks(session: Session, told: Sequence[DeliverySummary]) -> None:
    """Note that these records must be carried over, in one statement and always in one order, so that two who fold never
    wait for each other. A body that may not be used leaves the record to a read, whatever waited before, and so do two of one
    millisecond; a deletion stays, because it is never believed without a read. Each record once.
    """
    if told:
        scope = {
            "ids": bigints(each.delivery_id for each in told),
            "entities": texts(each.entity for each in told),
            "records": texts(each.record_id for each in told),
            "ranks": bigints(each.rank for each in told),
            "usable": texts(str(each.is_usable) for each in told),
            "created": texts(str(each.is_created) for each in told),
            "deleted": texts(str(each.is_deleted) for each in told),
        }
        session.execute(_FOLD_WEBHOOKS, scope)


_STUCK = exists().where(Batch.id == Change.batch_id, Batch.state == "failed")
"""The batch that held the change gave up: a newer delivery takes the change out of it."""

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
"""For so long a batch that no worker has begun keeps changes of its kind waiting: under load they then gather in one batch
instead of many, and Users wait for Accounts that go before them. A batch whose message was lost holds them up no longer."""


def due_groups(session: Session) -> list[tuple[int, str, str]]:
    """(connector, direction, entity) of which changes are due and may go now; organizations come before persons."""
    found = session.execute(_DUE_GROUPS, {"patience_s": PATIENCE_S})
    return [(row.connector_key, row.direction, row.entity) for row in found]


_CLAIM = text("""
    WITH due AS MATERIALIZED (
        SELECT id FROM changes
         WHERE connector_key = :c AND direction = :d AND entity = :e AND batch_id IS NULL AND due_at <= now()
         ORDER BY due_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE changes SET batch_id = :batch_id, claimed_revision = revision, claimed_delivery_id = delivery_id,
           attempts = attempts + 1, waits_for = NULL
     WHERE id = ANY(ARRAY(SELECT id FROM due))""")


def claim_changes(
    session: Session, connector_key: int, direction: str, entity: str, *, batch_id: int, limit: int
) -> int:
    """Put due changes into a batch; returns how many."""
    scope = {"c": connector_key, "d": direction, "e": entity, "batch_id": batch_id, "limit": limit}
    return cast("CursorResult[Any]", session.execute(_CLAIM, scope)).rowcount


def changes_of(session: Session, batch_id: int) -> list[Change]:
    """The changes a batch carries."""
    return list(session.scalars(select(Change).filter_by(batch_id=batch_id).order_by(Change.id)))


def count_in_batch(session: Session, batch_id: int) -> int:
    """Return how many changes a batch still carries."""
    return session.scalar(select(func.count()).select_from(Change).where(Change.batch_id == batch_id)) or 0


def waiting_changes(session: Session, connector_key: int, entity: str, names: Mapping[str, str]) -> list[Change]:
    """The changes of one record that are on their way; `names` are direction → what the record is called there."""
    mine = select(Change).filter_by(connector_key=connector_key, entity=entity)
    either = [and_(Change.direction == direction, Change.record_id == name) for direction, name in names.items()]
    return list(session.scalars(mine.where(or_(*either)).order_by(Change.id))) if either else []


_CAUSE = text("""
    WITH mine AS MATERIALIZED (SELECT id, cause FROM changes WHERE batch_id = :batch_id)
    SELECT cause FROM mine ORDER BY id LIMIT 1""")
"""In two steps: in one, PostgreSQL may walk through all changes by id until it meets one of the batch."""


def cause_of(session: Session, batch_id: int) -> str | None:
    """Return why the first of the batch's changes is carried over; None for a batch without any."""
    return cast("str | None", session.scalar(_CAUSE, {"batch_id": batch_id}))


class Source(NamedTuple):
    """Why a record of a live batch is carried over, and the delivery that told of it, where one did."""

    cause: str
    delivery_id: int | None


def sources_of(session: Session, batch_id: int) -> dict[int, Source]:
    """Pipedrive id → why, for the incoming changes that a batch carries, in the order in which they came."""
    mine = select(Change.record_id, Change.cause, Change.claimed_delivery_id).filter_by(batch_id=batch_id)
    rows = session.execute(mine.where(Change.direction == "incoming").order_by(Change.id))
    return {int(record_id): Source(cause, delivery_id) for record_id, cause, delivery_id in rows}


def created_ids(session: Session, batch_id: int) -> set[int]:
    """Pipedrive ids of the batch's records that a webhook told of as created."""
    mine = select(Change.record_id).filter_by(batch_id=batch_id, direction="incoming", is_created=True)
    return {int(record_id) for record_id in session.scalars(mine)}


_CLEAR = text("""
    WITH mine AS (SELECT id FROM changes WHERE batch_id = :batch_id ORDER BY record_id COLLATE "C" FOR UPDATE)
    DELETE FROM changes ch USING mine WHERE ch.id = mine.id AND revision = claimed_revision""")
"""Locked in the order in which webhooks and messages are folded."""
_RETURN = text("""
    UPDATE changes SET batch_id = NULL, claimed_revision = NULL, due_at = least(due_at, now())
     WHERE batch_id = :batch_id""")


def clear_changes(session: Session, batch_id: int) -> None:
    """The batch is done: its changes are gone, except those that moved on meanwhile, which are due again."""
    session.execute(_CLEAR, {"batch_id": batch_id})
    session.execute(_RETURN, {"batch_id": batch_id})


_PUT_BACK = text("""
    WITH mine AS (SELECT id FROM changes WHERE batch_id = :batch_id AND record_id = ANY(CAST(:ids AS text[]))
                   ORDER BY record_id COLLATE "C" FOR UPDATE)
    UPDATE changes ch SET batch_id = NULL, claimed_revision = NULL, due_at = now() + make_interval(secs => :wait_s),
           waits_for = :waits_for,
           attempts = attempts - CASE WHEN record_id = ANY(CAST(:counted AS text[])) THEN 0 ELSE 1 END
      FROM mine WHERE ch.id = mine.id""")
"""Locked in the order in which webhooks and messages are folded."""


def put_back(
    session: Session,
    batch_id: int,
    record_ids: Sequence[str],
    wait_s: float,
    *,
    counted: Sequence[str],
    waits_for: str | None = None,
) -> None:
    """These records leave the batch and are tried again later; only for those in `counted` it was an attempt."""
    scope = {"batch_id": batch_id, "ids": list(record_ids), "counted": list(counted), "wait_s": wait_s}
    session.execute(_PUT_BACK, scope | {"waits_for": waits_for})


_MAKE_DUE = text("""
    WITH mine AS MATERIALIZED (
        SELECT id FROM changes
         WHERE connector_key = :c AND direction || '' = :d AND entity || '' = :e AND batch_id IS NULL
           AND due_at + interval '0' > now() AND waits_for IS NOT NULL AND waits_for = ANY(CAST(:reasons AS text[]))
         ORDER BY record_id COLLATE "C" FOR UPDATE)
    UPDATE changes ch SET due_at = now() FROM mine WHERE ch.id = mine.id""")
"""Expressions, so that only the index of what is waited for fits: those by record and by time would read every change of the
entity."""


def make_due(session: Session, connector_key: int, direction: str, entity: str, reasons: Sequence[str]) -> int:
    """What these changes waited for has come: they are due now. Returns how many."""
    scope = {"c": connector_key, "d": direction, "e": entity, "reasons": texts(reasons)}
    return cast("CursorResult[Any]", session.execute(_MAKE_DUE, scope)).rowcount


_UNDER_WAY = text("""
    SELECT ch.record_id FROM changes ch
     WHERE ch.connector_key = :c AND ch.direction = :d AND ch.entity = :e AND ch.record_id = ANY(CAST(:ids AS text[]))
       AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')""")


def under_way(session: Session, connector_key: int, direction: str, entity: str, record_ids: Iterable[str]) -> set[str]:
    """Those of the records that are about to be carried over: a change of theirs waits, or is in a batch that has not failed."""
    ids = sorted(set(record_ids))
    if not ids:
        return set()
    return set(session.scalars(_UNDER_WAY, {"c": connector_key, "d": direction, "e": entity, "ids": texts(ids)}))


@dataclass(frozen=True, slots=True)
class WaitingCount:
    """How many changes of an entity wait under a reason code, and since when the oldest of them stands."""

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
