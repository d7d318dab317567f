"""Replays: failures that an operator replays, and their outcomes. The list of items is fixed at the start.

An item is sent once: its failure is closed and its work is stored in one transaction. Its outcome follows later from its changes,
batches, events and failures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, delete, func, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId, changed_rows
from db.statement import bigints, texts
from db.sync_event import NOTABLE

RETENTION_DAYS: Final = 90
WAITING: Final = "waiting"
SENT: Final = "sent"
OUTCOMES: Final = ("came_through", "already_applied", "superseded", "skipped", "failed_again", "refused", "aborted")
"""`skipped`: the settings filter the record. `refused`: it could not be replayed. `aborted`: it was not sent."""


class Replay(Base):
    """One replay.

    chosen      the filter of its failures, as text
    per_second  maximum of items that are sent in a second
    sent_until  up to when this maximum is used: the next item is due a moment later
    """

    __tablename__ = "replays"
    __table_args__ = (Index("ix_replays_latest", "connector_key", "id"),)

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer)
    requested_by: Mapped[str]
    why: Mapped[str]
    chosen: Mapped[dict[str, Any]]
    per_second: Mapped[float] = mapped_column(Float)
    state: Mapped[str] = mapped_column(server_default="running")
    """`running`, `aborted`, `done`, or `stopped` (its job failed, and items still wait). A pause is a state of its job."""
    reason: Mapped[str | None]
    """Why its job failed, until the replay is resumed."""
    detail: Mapped[str | None]
    total: Mapped[int] = mapped_column(Integer, server_default="0")
    sent_until: Mapped[datetime | None]
    created_at: Mapped[Created]
    ended_at: Mapped[datetime | None]
    """When all items had an outcome, or outcomes were no longer awaited."""


class ReplayItem(Base):
    """One failure of a replay. An edited `payload` replaces that of the failure, until the item is sent."""

    __tablename__ = "replay_items"
    __table_args__ = (
        Index("ix_replay_items_state", "replay_id", "state", "id"),
        Index("ix_replay_items_failure", "failure_id"),
    )

    id: Mapped[RowId]
    replay_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("replays.id", ondelete="CASCADE"))
    failure_id: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(server_default=WAITING)
    """`waiting`, `sent`, or one of OUTCOMES."""
    detail: Mapped[str | None]
    payload: Mapped[bytes | None]
    sent_at: Mapped[datetime | None]
    after_event: Mapped[int | None] = mapped_column(BigInteger)
    """Events of the replay have higher ids."""
    finished_at: Mapped[datetime | None]
    batch_id: Mapped[int | None] = mapped_column(BigInteger)
    """The batch of the item, once it is known."""
    new_failure_id: Mapped[int | None] = mapped_column(BigInteger)


def find_replay(session: Session, replay_id: int) -> Replay | None:
    return session.get(Replay, replay_id)


def lock_replay(session: Session, replay_id: int) -> Replay | None:
    """Return the replay, locked until the transaction ends."""
    query = select(Replay).filter_by(id=replay_id).with_for_update(key_share=True)
    return session.scalar(query.execution_options(populate_existing=True))


def latest_replays(
    session: Session, connector_key: int | None = None, *, before_id: int | None = None, limit: int = 50
) -> list[Replay]:
    """Return replays, newest first."""
    query = select(Replay).order_by(Replay.id.desc()).limit(limit)
    if connector_key is not None:
        query = query.filter_by(connector_key=connector_key)
    if before_id is not None:
        query = query.where(Replay.id < before_id)
    return list(session.scalars(query))


def take_waiting(session: Session, replay_id: int, limit: int) -> list[ReplayItem]:
    """Return the next items to send, in the order of their failures. The replay must be locked."""
    query = select(ReplayItem).filter_by(replay_id=replay_id, state=WAITING).order_by(ReplayItem.id)
    return list(session.scalars(query.limit(limit)))


def items_sent(session: Session, replay_id: int, limit: int) -> list[ReplayItem]:
    """Return sent items without an outcome, in the order of sending."""
    query = select(ReplayItem).filter_by(replay_id=replay_id, state=SENT).order_by(ReplayItem.id)
    return list(session.scalars(query.limit(limit)))


def items_of(
    session: Session, replay_id: int, *, state: str | None = None, after_id: int | None = None, limit: int = 50
) -> list[ReplayItem]:
    """Return items in the order of sending."""
    query = select(ReplayItem).filter_by(replay_id=replay_id).order_by(ReplayItem.id).limit(limit)
    if state is not None:
        query = query.filter_by(state=state)
    if after_id is not None:
        query = query.where(ReplayItem.id > after_id)
    return list(session.scalars(query))


def items_for(session: Session, failure_ids: Sequence[int]) -> list[ReplayItem]:
    """Return the replay items of failures, newest first."""
    query = select(ReplayItem).where(ReplayItem.failure_id.in_(failure_ids)).order_by(ReplayItem.id.desc())
    return list(session.scalars(query.limit(100)))


def item_counts(session: Session, replay_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """Return replay → state → number of its items."""
    query = (
        select(ReplayItem.replay_id, ReplayItem.state, func.count())
        .where(ReplayItem.replay_id.in_(replay_ids))
        .group_by(ReplayItem.replay_id, ReplayItem.state)
    )
    counts: dict[int, dict[str, int]] = {each: {} for each in replay_ids}
    for replay_id, state, count in session.execute(query):
        counts[replay_id][state] = count
    return counts


def abort_waiting(session: Session, replay_id: int) -> None:
    """Abort the items that were not sent yet; their failures stay open."""
    mine = update(ReplayItem).filter_by(replay_id=replay_id, state=WAITING)
    session.execute(mine.values(state="aborted", payload=None, finished_at=func.now()))


@dataclass(frozen=True, slots=True)
class Trace:
    """What is stored of a sent item; each field may be None.

    change_id       its change, if it was not processed yet
    batch_id        the batch of that change
    batch_state     the state of that batch
    new_failure_id  a failure of the same subject since
    """

    item_id: int
    change_id: int | None
    batch_id: int | None
    batch_state: str | None
    new_failure_id: int | None


_TRACES = text("""
    SELECT i.id AS item_id, ch.id AS change_id, ch.batch_id, b.state AS batch_state, again.id AS new_failure_id
      FROM replay_items i
      JOIN failures f ON f.id = i.failure_id
      LEFT JOIN changes ch ON f.kind IN ('record', 'field') AND ch.connector_key = f.connector_key AND ch.direction = f.direction
                          AND ch.entity = f.entity AND ch.record_id = f.record_id AND ch.created_at <= i.sent_at
      LEFT JOIN batches b ON b.id = CASE WHEN f.kind = 'batch' THEN f.batch_id ELSE ch.batch_id END
      LEFT JOIN LATERAL (SELECT n.id FROM failures n
                          WHERE n.connector_key = f.connector_key AND n.id > f.id
                            AND n.subject = CASE WHEN f.kind IN ('record', 'field') AND b.state = 'failed'
                                                 THEN 'batch:' || b.id ELSE f.subject END
                            AND n.created_at >= i.sent_at
                          ORDER BY n.id LIMIT 1) again ON true
     WHERE i.id = ANY(CAST(:ids AS bigint[]))""")


def traces(session: Session, item_ids: Sequence[int]) -> dict[int, Trace]:
    """Return item → what is stored of it."""
    rows = session.execute(_TRACES, {"ids": bigints(item_ids)})
    return {row.item_id: Trace(*row) for row in rows}


@dataclass(frozen=True, slots=True)
class ReplayEvent:
    """One event of a record since it was replayed."""

    at: datetime
    event: str
    reason: str | None
    batch_id: int | None
    pipedrive_id: int | None
    hull_id: str | None


_INCOMING = text("""
    SELECT at, event, reason, batch_id, pipedrive_id, hull_id FROM sync_events
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[])) AND at >= :since AND id > :after
       AND event LIKE 'incoming.%'
     ORDER BY id LIMIT 20000""")

_OUTGOING = text(f"""
    SELECT at, event, reason, batch_id, pipedrive_id, hull_id FROM sync_events
     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:ids AS text[])) AND at >= :since AND id > :after
       AND event LIKE 'outgoing.%' AND {NOTABLE}
     ORDER BY id LIMIT 20000""")  # noqa: S608 - a constant of ours
"""By the index of events other than incoming successes: the id map may not have the Hull id for a while."""


def incoming_events(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int], *, since: datetime, after: int
) -> list[ReplayEvent]:
    """Return incoming events of these records, oldest first."""
    scope = {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids), "since": since, "after": after}
    return [ReplayEvent(*row) for row in session.execute(_INCOMING, scope)]


def outgoing_events(
    session: Session, connector_key: int, entity: str, hull_ids: Sequence[str], *, since: datetime, after: int
) -> list[ReplayEvent]:
    """Return outgoing events of these Users or Accounts, oldest first."""
    scope = {"c": connector_key, "e": entity, "ids": texts(hull_ids), "since": since, "after": after}
    return [ReplayEvent(*row) for row in session.execute(_OUTGOING, scope)]


def last_event_id(session: Session) -> int:
    """Return the highest id of an event: later events have higher ids."""
    query = text("SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('sync_events', 'id')), 0)")
    return int(session.execute(query).scalar_one())


_UNWATCHED = text("""
    SELECT r.id FROM replays r
     WHERE r.ended_at IS NULL
       AND NOT EXISTS (SELECT FROM jobs j WHERE j.kind = 'replay' AND j.dedupe_key = r.id::text AND j.state = 'due')
       AND (r.state = 'aborted' OR EXISTS (SELECT FROM replay_items i WHERE i.replay_id = r.id AND i.state = 'sent'))""")


def find_unwatched(session: Session) -> list[int]:
    """Return the ids of replays with sent items and no job that records their outcomes: it was paused or aborted."""
    return list(session.scalars(_UNWATCHED))


def drop_old_replays(session: Session) -> int:
    """Delete replays past their retention, with their items; return how many. The audit log keeps who started them, and why."""
    old = func.now() - timedelta(days=RETENTION_DAYS)
    return changed_rows(session, delete(Replay).where(Replay.ended_at < old))


def moment(session: Session) -> datetime:
    """Return the time of the database."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now


def facts_of_batches(session: Session, batch_ids: Sequence[int]) -> Mapping[int, tuple[str | None, str]]:
    """Return batch → (id of its last Celery task, its state)."""
    query = text("SELECT id, task_id, state FROM batches WHERE id = ANY(CAST(:ids AS bigint[]))")
    return {row.id: (row.task_id, row.state) for row in session.execute(query, {"ids": bigints(batch_ids)})}


_NEWER_CHANGE = text("""
    SELECT f.id FROM failures f
      JOIN changes ch ON ch.connector_key = f.connector_key AND ch.direction = f.direction AND ch.entity = f.entity
                     AND ch.record_id = f.record_id
      LEFT JOIN batches b ON b.id = ch.batch_id
     WHERE f.id = ANY(CAST(:ids AS bigint[])) AND f.kind IN ('record', 'field') AND b.state IS DISTINCT FROM 'failed'
       AND (f.direction = 'incoming' OR ch.payload IS NOT NULL AND ch.cause <> 'replay')""")


def with_newer_change(session: Session, failure_ids: Sequence[int]) -> set[int]:
    """Return those of the failures with a newer change of their record, which the replay must not override."""
    return set(session.scalars(_NEWER_CHANGE, {"ids": bigints(failure_ids)}))
