"""The token ledger: what was spent of Pipedrive's daily budget, by day, lane and kind of call."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Date, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class TokenSpending(Base):
    """lane       `live`, `bulk`, `control` or `verify`: who spent
    operation  the kind of call, as in `pipeline.clients.pipedrive_calls.TOKEN_COSTS`
    """

    __tablename__ = "token_ledger"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    lane: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str] = mapped_column(primary_key=True)
    calls: Mapped[int] = mapped_column(Integer)
    tokens: Mapped[int] = mapped_column(Integer)
