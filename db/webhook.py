"""Webhooks of Pipedrive: the subscriptions with the result of their last check, and the newest webhook of each record.

A reading of a record must not be older than its newest webhook. A change is deleted when its record was synchronized, so later
readings are compared with these rows. They are kept for a day: longer than Pipedrive repeats a delivery, and longer than its
readings lag behind its webhooks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Boolean, ForeignKey, Integer, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Count, changed_rows
from db.statement import bigints, texts


class Subscription(Base):
    """One webhook subscription.

    state     `active`, or a problem that is not fixed yet: `missing`, `paused`, `failing`, `moved`, `silent`
    healthy_at  when it was last healthy; later changes may have been missed
    """

    __tablename__ = "webhook_subscriptions"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[int | None]
    state: Mapped[str]
    last_status: Mapped[int | None] = mapped_column(Integer)
    """The status of our answer to the last delivery, as Pipedrive reports it."""
    recreated: Mapped[Count]
    """How often it was recreated."""
    checked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    healthy_at: Mapped[datetime | None]


def subscriptions_of(session: Session, connector_key: int) -> list[Subscription]:
    """Return the webhook subscriptions of a connector, by entity."""
    mine = select(Subscription).filter_by(connector_key=connector_key)
    return list(session.scalars(mine.order_by(Subscription.entity)))


def hold_subscription(session: Session, connector_key: int, entity: str) -> Subscription:
    """Return the row of one entity, locked until the transaction ends. One that was never checked begins as `missing`."""
    new = insert(Subscription).values(connector_key=connector_key, entity=entity, state="missing")
    session.execute(new.on_conflict_do_nothing())
    return session.get_one(Subscription, (connector_key, entity), with_for_update=True, populate_existing=True)


def note_silence(session: Session, connector_key: int, entity: str) -> bool:
    """Mark a subscription as silent: the next check recreates it. Return False if it is not active any more."""
    active = update(Subscription).filter_by(connector_key=connector_key, entity=entity, state="active")
    return session.scalar(active.values(state="silent").returning(Subscription.connector_key)) is not None


_TO_CHECK = text("""
    SELECT c.key FROM connectors c
     WHERE c.state = 'active'
       AND EXISTS (SELECT 1 FROM credentials k WHERE k.connector_key = c.key AND k.name LIKE 'pipedrive%')
       AND NOT EXISTS (SELECT 1 FROM failures f
                        WHERE f.connector_key = c.key AND f.subject = :subject AND f.state = 'open'
                          AND f.updated_at > now() - make_interval(secs => :rest_s))
     ORDER BY c.key""")


def connectors_to_check(session: Session, *, subject: str, rest_s: float) -> list[int]:
    """Return the active connectors with Pipedrive credentials, except those with a check that failed less than `rest_s` ago.

    subject  of the Failure of a failed check
    """
    return list(session.scalars(_TO_CHECK, {"subject": subject, "rest_s": rest_s}))


KEPT_H = 24


class NewestWebhook(Base):
    """The newest webhook about one record.

    sent_at_ms   `meta.timestamp`, the order of webhooks
    version      the record's `update_time` in seconds, from the webhook; None if it has none
    is_deleted   the webhook reports the record's deletion
    delivery_id  the webhook itself; None if two of one millisecond differ
    """

    __tablename__ = "newest_webhooks"

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    entity: Mapped[str] = mapped_column(primary_key=True)
    pipedrive_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sent_at_ms: Mapped[int]
    version: Mapped[int | None]
    is_deleted: Mapped[bool] = mapped_column(Boolean)
    delivery_id: Mapped[int | None]
    noted_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """One row; see `NewestWebhook`."""

    connector_key: int
    entity: str
    pipedrive_id: int
    sent_at_ms: int
    version: int | None
    is_deleted: bool
    delivery_id: int | None


_NOTE = text("""
    INSERT INTO newest_webhooks AS n (connector_key, entity, pipedrive_id, sent_at_ms, version, is_deleted, delivery_id)
    SELECT t.c, t.e, t.id, t.sent, nullif(t.version, -1), t.deleted, nullif(t.delivery, -1)
      FROM unnest(CAST(:keys AS integer[]), CAST(:entities AS text[]), CAST(:ids AS bigint[]), CAST(:sent AS bigint[]),
                  CAST(:versions AS bigint[]), CAST(:deleted AS boolean[]), CAST(:deliveries AS bigint[]))
           AS t(c, e, id, sent, version, deleted, delivery)
     ORDER BY t.c, t.e, t.id
        ON CONFLICT (connector_key, entity, pipedrive_id) DO UPDATE SET
           sent_at_ms = excluded.sent_at_ms, noted_at = now(),
           version = CASE WHEN n.sent_at_ms < excluded.sent_at_ms THEN excluded.version
                          ELSE greatest(n.version, excluded.version) END,
           delivery_id = CASE WHEN n.sent_at_ms < excluded.sent_at_ms THEN excluded.delivery_id
                              WHEN n.delivery_id = excluded.delivery_id THEN n.delivery_id END,
           is_deleted = excluded.is_deleted OR n.is_deleted AND n.sent_at_ms = excluded.sent_at_ms
     WHERE n.sent_at_ms <= excluded.sent_at_ms""")
"""Rows are locked in the same order by all, so that two workers do not deadlock."""

_FIND = text("""
    SELECT connector_key, entity, pipedrive_id, sent_at_ms, version, is_deleted, delivery_id FROM newest_webhooks
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")

_DROP = text("""
    WITH old AS MATERIALIZED (SELECT connector_key, entity, pipedrive_id FROM newest_webhooks
                               WHERE noted_at < now() - make_interval(hours => :hours) LIMIT :limit FOR UPDATE SKIP LOCKED)
    DELETE FROM newest_webhooks n USING old
     WHERE (n.connector_key, n.entity, n.pipedrive_id) = (old.connector_key, old.entity, old.pipedrive_id)""")


def newer_of(earlier: Newest, later: Newest) -> Newest:
    """Return the later of two webhooks about one record; if both have the same millisecond, merge them: a deletion wins."""
    if earlier.sent_at_ms != later.sent_at_ms:
        return max(earlier, later, key=lambda each: each.sent_at_ms)
    versions = [each.version for each in (earlier, later) if each.version is not None]
    return Newest(
        connector_key=later.connector_key,
        entity=later.entity,
        pipedrive_id=later.pipedrive_id,
        sent_at_ms=later.sent_at_ms,
        version=max(versions, default=None),
        is_deleted=earlier.is_deleted or later.is_deleted,
        delivery_id=later.delivery_id if later.delivery_id == earlier.delivery_id else None,
    )


def note_webhooks(session: Session, received: Collection[Newest]) -> None:
    """Store webhooks, one for each record, unless a newer one is stored. One statement."""
    if not received:
        return
    scope = {
        "keys": bigints(each.connector_key for each in received),
        "entities": texts(each.entity for each in received),
        "ids": bigints(each.pipedrive_id for each in received),
        "sent": bigints(each.sent_at_ms for each in received),
        "versions": bigints(-1 if each.version is None else each.version for each in received),
        "deleted": texts(str(each.is_deleted) for each in received),
        "deliveries": bigints(-1 if each.delivery_id is None else each.delivery_id for each in received),
    }
    session.execute(_NOTE, scope)


def find_newest(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> dict[int, Newest]:
    """Return Pipedrive id → the newest webhook about it, if there was one within a day."""
    rows = session.execute(_FIND, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return {row.pipedrive_id: Newest(**row._asdict()) for row in rows}


_BODIES = text("SELECT id, body FROM deliveries WHERE id = ANY(CAST(:ids AS bigint[]))")


def bodies_of(session: Session, newest: Sequence[Newest]) -> dict[int, bytes]:
    """Return Pipedrive id → the body of its newest webhook, if it is known and still stored."""
    wanted = {each.pipedrive_id: each.delivery_id for each in newest if each.delivery_id is not None}
    if not wanted:
        return {}
    bodies = {row.id: bytes(row.body) for row in session.execute(_BODIES, {"ids": bigints(wanted.values())})}
    return {pipedrive_id: bodies[delivery] for pipedrive_id, delivery in wanted.items() if delivery in bodies}


def drop_old(session: Session, limit: int) -> int:
    """Delete at most `limit` rows past their retention; return how many."""
    return changed_rows(session, _DROP, {"hours": KEPT_H, "limit": limit})
