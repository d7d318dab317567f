"""Webhook subscriptions: what was requested from Pipedrive, and the result of the last check."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Count


class Subscription(Base):
    """state     `active`, or a problem that is not fixed yet: `missing`, `paused`, `failing`, `moved`, `silent`
    sound_at  when it was last healthy; later changes may have been missed
    """

    __tablename__ = "webhook_subscriptions"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[int | None]
    state: Mapped[str]
    last_status: Mapped[int | None] = mapped_column(Integer)
    """The status of our answer to the last delivery, as Pipedrive reports it."""
    healed: Mapped[Count]
    """How often it was recreated."""
    checked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    sound_at: Mapped[datetime | None]


def subscriptions_of(session: Session, connector_key: int) -> list[Subscription]:
    """Return the webhook subscriptions of a connector, by entity."""
    mine = select(Subscription).filter_by(connector_key=connector_key)
    return list(session.scalars(mine.order_by(Subscription.entity)))


def hold_subscription(session: Session, connector_key: int, entity: str) -> Subscription:
    """The row of one entity, locked until the transaction ends; one that was never checked begins as `missing`."""
    new = insert(Subscription).values(connector_key=connector_key, entity=entity, state="missing")
    session.execute(new.on_conflict_do_nothing())
    return session.get_one(Subscription, (connector_key, entity), with_for_update=True, populate_existing=True)


def note_silence(session: Session, connector_key: int, entity: str) -> bool:
    """Records changed without a webhook: the next check recreates the subscription. Return False if that is known."""
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
    """Return active connectors with Pipedrive credentials, except those with a check that failed less than `rest_s` ago.

    subject  of the Failure of a failed check
    """
    return list(session.scalars(_TO_CHECK, {"subject": subject, "rest_s": rest_s}))
