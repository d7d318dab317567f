"""Deliveries: webhooks and notifications as received, stored before they are acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import cast

from sqlalchemy import ForeignKey, Index, Integer, LargeBinary, TextClause, UniqueConstraint, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId, changed_rows
from db.statement import bigints, texts

RETENTION_DAYS = 30


class Delivery(Base):
    """One webhook or notification.

    key  the id of the webhook's event or of the notification: a repeated delivery has the same one
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("connector_key", "source", "key"),
        Index("ix_deliveries_new", "id", postgresql_where=text("state = 'new'")),
        Index("ix_deliveries_received", "connector_key", "source", "received_at"),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    source: Mapped[str]
    """`pipedrive` or `hull`."""
    key: Mapped[str]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(server_default="new")
    """`new`, `processed` (its changes are stored; a reason states what was wrong with it) or `refused` for a reason."""
    reason: Mapped[str | None]
    received_at: Mapped[Created]


_KEEP = """
    INSERT INTO deliveries (connector_key, source, key, body) VALUES (:connector_key, :source, :key, :body)
        ON CONFLICT DO NOTHING RETURNING id"""


@cache
def _keep(timeout_ms: int | None) -> TextClause:
    """Return one statement for the insert and its time limit: the sender waits for it."""
    limit = "" if timeout_ms is None else f"SET LOCAL statement_timeout = {timeout_ms:d};"
    return text(limit + _KEEP)


def keep_delivery(
    session: Session, connector_key: int, source: str, key: str, body: bytes, *, timeout_ms: int | None = None
) -> int | None:
    """Store a delivery and return its id; None if the same one is stored already.

    timeout_ms  limit for each statement of this transaction from now on
    """
    scope = {"connector_key": connector_key, "source": source, "key": key, "body": body}
    return cast("int | None", session.scalar(_keep(timeout_ms), scope))


_TAKE = text("""
    WITH waiting AS MATERIALIZED (
              SELECT id, octet_length(body) AS size FROM deliveries WHERE state = 'new'
               ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED),
         taken AS (SELECT id, sum(size) OVER (ORDER BY id) - size AS before FROM waiting)
    SELECT d.* FROM deliveries d JOIN taken ON taken.id = d.id WHERE taken.before < :most_bytes ORDER BY d.id""")


def claim_new_deliveries(session: Session, limit: int, most_bytes: int) -> list[Delivery]:
    """Return new deliveries, oldest first, locked until the transaction ends: at least one, as many as `most_bytes` allow."""
    taken = select(Delivery).from_statement(_TAKE)
    return list(session.scalars(taken, {"limit": limit, "most_bytes": most_bytes}))


_MARK = text("""
    UPDATE deliveries d SET state = m.state, reason = nullif(m.reason, '')
      FROM unnest(CAST(:ids AS bigint[]), CAST(:states AS text[]), CAST(:reasons AS text[])) AS m(id, state, reason)
     WHERE d.id = m.id""")


def mark_deliveries(session: Session, marks: Mapping[int, tuple[str, str | None]]) -> None:
    """Store the state of deliveries, id → (state, reason), in one statement."""
    if marks:
        scope = {
            "ids": bigints(marks),
            "states": texts(state for state, _ in marks.values()),
            "reasons": texts(reason or "" for _, reason in marks.values()),
        }
        session.execute(_MARK, scope)


def count_new_deliveries(session: Session, connector_key: int) -> int:
    return session.scalar(select(func.count(Delivery.id)).filter_by(connector_key=connector_key, state="new")) or 0


def last_delivery(session: Session, connector_key: int, source: str) -> datetime | None:
    """Return when the last delivery of `pipedrive` or `hull` was received."""
    query = select(func.max(Delivery.received_at)).where(
        Delivery.connector_key == connector_key, Delivery.source == source
    )
    return session.scalar(query)


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery without its body."""

    id: int
    source: str
    state: str
    reason: str | None
    received_at: datetime
    size_bytes: int


_LATEST = text("""
    SELECT id, source, state, reason, received_at, octet_length(body) FROM deliveries
     WHERE connector_key = :key AND source = :source
       AND (CAST(:before AS bigint) IS NULL
            OR (received_at, id) < (SELECT received_at, id FROM deliveries WHERE id = :before AND connector_key = :key))
     ORDER BY received_at DESC, id DESC LIMIT :limit""")


def latest_deliveries(
    session: Session, connector_key: int, source: str, *, before_id: int | None = None, limit: int = 50
) -> list[DeliveryRow]:
    """Return deliveries, newest first."""
    scope = {"key": connector_key, "source": source, "before": before_id, "limit": limit}
    return [DeliveryRow(*row) for row in session.execute(_LATEST, scope)]


_COUNT_LATELY = text("""
    SELECT state, reason, count(*) FROM
           (SELECT state, reason FROM deliveries
             WHERE connector_key = :key AND source = :source AND received_at > now() - make_interval(hours => :hours)
             ORDER BY received_at DESC LIMIT :most) d
     GROUP BY state, reason ORDER BY count(*) DESC""")


def count_lately(
    session: Session, connector_key: int, source: str, *, hours: int, most: int
) -> list[tuple[str, str | None, int]]:
    """Return (state, reason, number) of the deliveries of the last hours; at most the newest `most` are counted."""
    scope = {"key": connector_key, "source": source, "hours": hours, "most": most}
    return [(state, reason, count) for state, reason, count in session.execute(_COUNT_LATELY, scope)]


_DROP_OLD = text("""
    DELETE FROM deliveries
     WHERE id = ANY(ARRAY(SELECT id FROM deliveries
                           WHERE received_at < now() - make_interval(days => :days) AND state <> 'new' LIMIT :limit))""")


def drop_old_deliveries(session: Session, limit: int) -> int:
    """Delete at most `limit` processed deliveries past their retention; return how many."""
    return changed_rows(session, _DROP_OLD, {"days": RETENTION_DAYS, "limit": limit})


PER_NOTIFICATION = 100
"""Messages per notification by Hull's default; new notifications are not parsed to count them."""

_WAITING = text("""
    SELECT (SELECT count(*) FROM (SELECT 1 FROM deliveries
                                   WHERE state = 'new' AND connector_key = :key AND source = 'hull' LIMIT :notifications) d)
           * :each
         + (SELECT count(*) FROM (SELECT 1 FROM changes
                                   WHERE connector_key = :key AND direction = 'outgoing' LIMIT :most) c)""")


def waiting_outgoing(session: Session, connector_key: int, *, most: int) -> int:
    """Return the estimated number of messages to coalesce plus changes to send; each is counted up to `most`."""
    scope = {
        "key": connector_key,
        "most": most,
        "notifications": most // PER_NOTIFICATION + 1,
        "each": PER_NOTIFICATION,
    }
    return int(session.execute(_WAITING, scope).scalar_one())
