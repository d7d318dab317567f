"""Webhook subscriptions: what Pipedrive was asked to tell us, and how it stood when we last looked."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, func
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, Count


class Subscription(Base):
    """state  `active`, or what was found and not healed yet: `missing`, `paused`, `failing`"""

    __tablename__ = "webhook_subscriptions"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[int | None]
    state: Mapped[str]
    last_status: Mapped[int | None] = mapped_column(Integer)
    """What our answer to the last delivery was, as Pipedrive tells it."""
    healed: Mapped[Count]
    """How often it had to be made again."""
    checked_at: Mapped[datetime] = mapped_column(server_default=func.now())
