"""Alerts, open and resolved. Each sink receives an alert once when it is raised and once when it is resolved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Index, Integer, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Count, Created, RowId, changed_rows

RETENTION_DAYS = 180
CLAIMED_S = 120
"""How long sending an alert may take; if the process dies, another one sends it again."""


class Alert(Base):
    """One alert of one connector or, with no connector, of the whole installation.

    seen_at      when the rule last matched, or could not be evaluated
    sink_states  sink → the state it last received
    sent_state   the state that every sink has received
    """

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_open",
            "connector_key",
            "rule",
            unique=True,
            postgresql_where=text("state = 'open'"),
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_alerts_unsent", "next_try_at", postgresql_where=text("sent_state IS DISTINCT FROM state")),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int | None] = mapped_column(Integer)
    rule: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="open")
    """`open` or `resolved`."""
    sentence: Mapped[str]
    raised_at: Mapped[Created]
    seen_at: Mapped[Created]
    resolved_at: Mapped[datetime | None]
    sink_states: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    sent_state: Mapped[str | None]
    sent_at: Mapped[datetime | None]
    attempts: Mapped[Count]
    next_try_at: Mapped[Created]
    last_error: Mapped[str | None]


def try_lock_evaluation(session: Session) -> bool:
    """Return whether no other process is evaluating the rules; the lock is held until the transaction ends."""
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('alerts'))")))


def raise_alert(session: Session, connector_key: int | None, rule: str, sentence: str) -> None:
    """Open an alert for a rule that matches, or update the open one with the new sentence."""
    row = insert(Alert).values(connector_key=connector_key, rule=rule, sentence=sentence)
    session.execute(
        row.on_conflict_do_update(
            index_elements=["connector_key", "rule"],
            index_where=text("state = 'open'"),
            set_={"seen_at": func.now(), "sentence": row.excluded.sentence},
        )
    )


def keep_open(session: Session, connector_key: int | None, rules: Collection[str]) -> None:
    """Keep alerts of these rules open, because the rules cannot be evaluated now."""
    mine = Alert.connector_key.is_(None) if connector_key is None else Alert.connector_key == connector_key
    renewed = update(Alert).where(mine, Alert.state == "open", Alert.rule.in_(rules))
    session.execute(renewed.values(seen_at=func.now()))


def resolve_calm(session: Session, calm_s: float) -> None:
    """Resolve alerts with rules that have not matched for `calm_s` seconds."""
    calm = update(Alert).where(Alert.state == "open", Alert.seen_at < func.now() - timedelta(seconds=calm_s))
    session.execute(
        calm.values(state="resolved", resolved_at=func.now(), attempts=0, next_try_at=func.now(), last_error=None)
    )


def claim_unsent(session: Session, limit: int = 20) -> list[Alert]:
    """Claim alerts to send for CLAIMED_S seconds, and return them, oldest first."""
    due = (
        select(Alert.id)
        .where(Alert.sent_state.is_distinct_from(Alert.state), Alert.next_try_at <= func.now())
        .order_by(Alert.next_try_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    taken = (
        update(Alert)
        .where(Alert.id.in_(select(due.c.id)))
        .values(attempts=Alert.attempts + 1, next_try_at=func.now() + timedelta(seconds=CLAIMED_S))
        .returning(Alert)
    )
    return sorted(session.scalars(taken), key=lambda each: each.id)


def record_sent(
    session: Session, alert: Alert, sink_states: Mapping[str, str], *, error: str | None, again_in_s: float | None
) -> None:
    """Store which sinks received the state that the alert was claimed in.

    again_in_s  when the rest is retried; None: no sink is left
    """
    values: dict[str, Any] = {"sink_states": dict(sink_states), "last_error": error}
    if any(sink_states.get(sink) != alert.sink_states.get(sink) for sink in sink_states):
        values["sent_at"] = func.now()
    if again_in_s is None:
        values["sent_state"] = alert.state
    same_state = update(Alert).where(Alert.id == alert.id, Alert.state == alert.state)
    wait = timedelta(seconds=again_in_s or 0)
    if not changed_rows(session, same_state.values(**values, next_try_at=func.now() + wait)):
        # It was resolved since: the new state must be sent too.
        session.execute(
            update(Alert).where(Alert.id == alert.id).values(sink_states=dict(sink_states), next_try_at=func.now())
        )


def open_alerts(session: Session) -> list[Alert]:
    """Return open alerts, newest first."""
    return list(session.scalars(select(Alert).filter_by(state="open").order_by(Alert.id.desc())))


def past_alerts(
    session: Session, *, connector_keys: Collection[int] | None = None, before_id: int | None = None, limit: int = 50
) -> list[Alert]:
    """List resolved alerts, newest first.

    connector_keys  only those of these connectors and of the installation itself; None is all
    """
    query = select(Alert).filter_by(state="resolved").order_by(Alert.id.desc()).limit(limit)
    if connector_keys is not None:
        query = query.where(or_(Alert.connector_key.is_(None), Alert.connector_key.in_(connector_keys)))
    return list(session.scalars(query if before_id is None else query.where(Alert.id < before_id)))


def drop_old_alerts(session: Session) -> None:
    old = func.now() - timedelta(days=RETENTION_DAYS)
    session.execute(delete(Alert).where(Alert.state == "resolved", Alert.resolved_at < old))
