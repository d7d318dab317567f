"""The log of sync events, in daily partitions that are created a week ahead.

The table has a default partition, so that an event is stored even if its day has no partition. The last skip of each User and
Account is stored too: an equal skip is counted, and not logged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from operator import attrgetter

from sqlalchemy import BigInteger, DateTime, Identity, Index, Integer, LargeBinary, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base
from db.statement import bigints, copy_rows, texts

DAYS_AHEAD = 7
RETENTION_DAYS = 90
LOCK_PATIENCE_MS = 1_000
NOTABLE = "event NOT IN ('incoming.user.success', 'incoming.account.success')"
"""Few events match, so only these have an index for their order."""
HAS_REASON = "reason IS NOT NULL"
"""Skips, errors and other exceptions: still fewer, with indexes by reason and by name."""

ABOUT_WEBHOOKS = (
    "reason IN ('gap_repaired', 'webhook_missing', 'webhook_paused', 'webhook_failing', 'webhook_moved', 'webhook_silent', "
    "'webhook_recreated')"
)
"""Events of the health of webhooks, and of gaps: a few rows among millions."""


class SyncEvent(Base):
    """One event of one record.

    before, after  JSON of the mapped attributes that differ; `before` is null for a record seen for the first time
    cause          `fetch`, `webhook`, `notification`, `replay`, ...
    delivery_id    the webhook or notification about the record, if there is one
    exchange       JSON of the call of an outgoing write: method, path, status, tokens, duration_ms
    field          the field of the event, or several with commas: the record was synchronized or is unchanged, and has another
                   event
    """

    __tablename__ = "sync_events"
    __table_args__ = (
        Index("ix_sync_events_record", "connector_key", "entity", "pipedrive_id"),
        Index("ix_sync_events_at", "at", postgresql_using="brin"),
        Index("ix_sync_events_notable", "connector_key", "id", postgresql_where=text(NOTABLE)),
        Index("ix_sync_events_reason", "connector_key", "reason", "id", postgresql_where=text(HAS_REASON)),
        Index("ix_sync_events_outcome", "connector_key", "event", "id", postgresql_where=text(HAS_REASON)),
        Index(
            "ix_sync_events_hull_alone",
            "connector_key",
            "entity",
            "hull_id",
            postgresql_where=text("pipedrive_id IS NULL AND hull_id IS NOT NULL"),
        ),
        {"postgresql_partition_by": "RANGE (at)"},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), primary_key=True)
    connector_key: Mapped[int]
    event: Mapped[str]
    entity: Mapped[str]
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    pipedrive_id: Mapped[int | None]
    hull_id: Mapped[str | None]
    run_id: Mapped[int | None]
    batch_id: Mapped[int | None]
    settings_version: Mapped[int | None]
    cause: Mapped[str]
    before: Mapped[bytes | None] = mapped_column(LargeBinary)
    after: Mapped[bytes | None] = mapped_column(LargeBinary)
    delivery_id: Mapped[int | None]
    exchange: Mapped[str | None]
    field: Mapped[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """A new event. Successes of a page are written with the page (`db.page`)."""

    connector_key: int
    event: str
    entity: str
    cause: str
    reason: str | None = None
    detail: str | None = None
    pipedrive_id: int | None = None
    hull_id: str | None = None
    run_id: int | None = None
    batch_id: int | None = None
    settings_version: int | None = None
    before: bytes | None = None
    after: bytes | None = None
    delivery_id: int | None = None
    exchange: str | None = None
    field: str | None = None


def log_events(session: Session, events: Sequence[NewEvent]) -> None:
    """Append events by one COPY."""
    if events:
        cells = attrgetter(*NewEvent.__slots__)
        copy_rows(session, "sync_events", NewEvent.__slots__, [cells(event) for event in events])


@dataclass(frozen=True, slots=True)
class HullDelivery:
    """A delivery of one record to Hull: `after` is JSON of the attributes that changed."""

    pipedrive_id: int
    at_s: float
    after: bytes


_RECENT_DELIVERIES = text("""
    SELECT pipedrive_id, extract(epoch FROM at)::float8 AS at_s, after FROM sync_events
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
       AND at > now() - make_interval(secs => :within) AND event LIKE 'incoming.%.success' AND after IS NOT NULL
     ORDER BY id""")


def recent_deliveries(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int], *, within_s: float
) -> list[HullDelivery]:
    """Return recent deliveries to Hull of these records, oldest first."""
    scope = {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids), "within": within_s}
    rows = session.execute(_RECENT_DELIVERIES, scope)
    return [HullDelivery(row.pipedrive_id, row.at_s, bytes(row.after)) for row in rows]


def make_partitions(session: Session, today: date, days_ahead: int = DAYS_AHEAD) -> list[str]:
    """Create the missing partitions of today and the next days; return their names."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('sync_events'))"))  # one process at a time
    wanted = {f"sync_events_{day:%Y%m%d}": day for day in (today + timedelta(days=n) for n in range(days_ahead + 1))}
    present = set(
        session.scalars(text("SELECT relname FROM pg_class WHERE relname = ANY(:names)"), {"names": list(wanted)})
    )
    for name, day in wanted.items():
        if name not in present:
            _make_partition(session, name, day)
    return sorted(set(wanted) - present)


_MOVE_ROWS = """
    WITH moved AS (DELETE FROM sync_events_other
                    WHERE at >= CAST(:begin AS timestamptz) AND at < CAST(:end AS timestamptz) RETURNING *)
    INSERT INTO {name} SELECT * FROM moved"""


def _make_partition(session: Session, name: str, day: date) -> None:
    """Create the table, move rows of the day from the default partition, and attach it: attaching fails while such rows are
    elsewhere.
    """
    begin, end = f"{day:%Y-%m-%d}", f"{day + timedelta(days=1):%Y-%m-%d}"
    session.execute(text(f"CREATE TABLE {name} (LIKE sync_events INCLUDING DEFAULTS)"))
    session.execute(text(_MOVE_ROWS.format(name=name)), {"begin": begin, "end": end})
    session.execute(text(f"ALTER TABLE sync_events ATTACH PARTITION {name} FOR VALUES FROM ('{begin}') TO ('{end}')"))


_OLD = text("""
    SELECT c.relname, EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhrelid = c.oid) AS is_attached
      FROM pg_class c
     WHERE c.relkind = 'r' AND c.relname ~ '^sync_events_[0-9]{8}$' AND c.relname < :oldest ORDER BY c.relname""")


def old_partitions(session: Session, today: date) -> dict[str, bool]:
    """Return partition → whether it is attached, for those past their retention."""
    oldest = f"sync_events_{today - timedelta(days=RETENTION_DAYS):%Y%m%d}"
    return {row.relname: row.is_attached for row in session.execute(_OLD, {"oldest": oldest})}


def detach_partition(session: Session, name: str) -> None:
    """Detach a partition, which locks the whole table for a moment.

    CONCURRENTLY is not allowed with a default partition, so writers wait for this lock for LOCK_PATIENCE_MS at most.
    Raises OperationalError if another transaction reads the table for longer than that.
    """
    limit_lock_wait(session)
    session.execute(text(f"ALTER TABLE sync_events DETACH PARTITION {name}"))


def drop_partition(session: Session, name: str) -> None:
    """Drop a detached partition: no other transaction uses it."""
    session.execute(text(f"DROP TABLE {name}"))


def limit_lock_wait(session: Session) -> None:
    """Cancel lock requests of this transaction after LOCK_PATIENCE_MS, because all later writers wait behind them."""
    session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_PATIENCE_MS}ms'"))


def events_about_webhooks(session: Session, connector_key: int, limit: int = 20) -> list[SyncEvent]:
    """Return events of webhook health and of repaired gaps, newest first."""
    query = select(SyncEvent).where(SyncEvent.connector_key == connector_key, text(ABOUT_WEBHOOKS))
    return list(session.scalars(query.order_by(SyncEvent.id.desc()).limit(limit)))


@dataclass(frozen=True, slots=True)
class LateRecords:
    """Records without a webhook: their number, and when the first and the last one changed in Pipedrive."""

    records: int
    first: datetime
    last: datetime


_LATE = text("""
    SELECT count(*), to_timestamp(min(m.version)), to_timestamp(max(m.version))
      FROM (SELECT DISTINCT connector_key, entity, pipedrive_id FROM sync_events
             WHERE run_id = :run_id AND at >= :started_at AND event LIKE 'incoming.%.success' AND pipedrive_id IS NOT NULL) e
     CROSS JOIN LATERAL (SELECT version, state FROM id_mappings o
                          WHERE o.connector_key = e.connector_key AND o.entity = e.entity AND o.pipedrive_id = e.pipedrive_id
                          LIMIT 1) m
     WHERE m.version < extract(epoch FROM CAST(:started_at AS timestamptz)) - :grace_s AND m.state = 'full'""")


def find_late(session: Session, run_id: int, started_at: datetime, grace_s: float) -> LateRecords | None:
    """Return the records that a run read and that changed more than `grace_s` seconds before it began; None without such a
    record.
    """
    scope = {"run_id": run_id, "started_at": started_at, "grace_s": grace_s}
    row = session.execute(_LATE, scope).one()
    return LateRecords(*row) if row[0] else None


RECENT_EVENTS = 5_000
"""How many events back `find_recently_changed` looks: of all connectors together, so that it costs the same on a quiet one."""

_RECENTLY_CHANGED = text("""
    SELECT pipedrive_id
      FROM (SELECT id, connector_key, entity, event, pipedrive_id FROM sync_events ORDER BY id DESC LIMIT :back) newest
     WHERE connector_key = :c AND entity = :e AND pipedrive_id IS NOT NULL AND event LIKE '%.success'
     ORDER BY id DESC LIMIT 1""")


def find_recently_changed(session: Session, connector_key: int, entity: str) -> int | None:
    """Return the Pipedrive id of a recently synchronized record, in either direction; None without such a record."""
    found: int | None = session.scalar(_RECENTLY_CHANGED, {"c": connector_key, "e": entity, "back": RECENT_EVENTS})
    return found


def count_events(session: Session, connector_key: int, *, hours: int) -> dict[tuple[str, str | None], int]:
    """Return (event, reason) → number of events in the last hours."""
    query = (
        select(SyncEvent.event, SyncEvent.reason, func.count())
        .where(SyncEvent.connector_key == connector_key, SyncEvent.at > func.now() - timedelta(hours=hours))
        .group_by(SyncEvent.event, SyncEvent.reason)
    )
    return {(event, reason): count for event, reason, count in session.execute(query)}


def last_event(session: Session, connector_key: int, event: str) -> datetime | None:
    """Return the time of the last event with this name; `*` matches anything."""
    query = select(func.max(SyncEvent.at)).where(
        SyncEvent.connector_key == connector_key, SyncEvent.event.like(event.replace("*", "%"))
    )
    return session.scalar(query)


class LastSkip(Base):
    """Why a User or Account was last not sent."""

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
    """Store Hull id → reason why it is not sent; return those with a new reason."""
    if not reasons:
        return set()
    scope = {"c": connector_key, "e": entity, "ids": texts(reasons), "reasons": texts(reasons.values())}
    return set(session.scalars(_NOTE, scope))


def forget_skips(session: Session, connector_key: int, entity: str, hull_ids: Iterable[str]) -> None:
    """Delete the last skips of Hull ids that were sent, so that their next skip is logged."""
    ids = sorted(hull_ids)
    if ids:
        session.execute(_FORGET, {"c": connector_key, "e": entity, "ids": texts(ids)})
