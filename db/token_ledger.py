"""The daily budgets of Pipedrive companies, and the ledger of spent tokens by day, lane and kind of call.

    record_pending  stores a call in this process
    flush_pending   writes pending calls as the last statement of the next transaction
    flush_rest      writes them in a separate transaction, when a task or a command ends

So no caller can forget it, it costs one statement for each stage with calls, and the row is locked during the commit only. A killed
process loses the calls of its current stage.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Date, ForeignKey, Integer, event, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import session as sessions
from db.base import Base
from db.statement import Statement
from pipeline.domain.budget import Allowance

COMPANY = """coalesce(
    c.company_id::text,
    (SELECT min(o.company_id)::text FROM connectors o WHERE o.pipedrive_company = c.pipedrive_company),
    c.pipedrive_company, c.id)"""
"""Key of the company of connectors `c`: its id, taken from another connector of it if necessary, or its origin."""

TERMS = (
    f"{COMPANY} AS company, v.document -> 'daily_tokens' AS daily_tokens, v.document -> 'live_reserve' AS live_reserve"
)
IN_FORCE = """LEFT JOIN LATERAL (SELECT document FROM settings_versions WHERE connector_key = c.key
                                   ORDER BY version DESC LIMIT 1) v ON true"""
"""Settings `v` of connectors `c`, for TERMS."""

_TERMS = text(f"SELECT {TERMS} FROM connectors c {IN_FORCE} WHERE c.key = :key")  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class Terms:
    """The budget of a connector.

    company  key of a Pipedrive company; its connectors share its daily budget
    """

    company: str
    allowance: Allowance


def terms(session: Session, connector_key: int) -> Terms:
    """Return the company of a connector, and the budget by the settings in force."""
    return terms_of(*session.execute(_TERMS, {"key": connector_key}).one())


def terms_of(company: str, daily_tokens: int | None, live_reserve: int | None) -> Terms:
    """Return the terms by the columns of TERMS."""
    given = {"daily_tokens": daily_tokens, "live_reserve": live_reserve}
    return Terms(company, Allowance(**{name: value for name, value in given.items() if value is not None}))


class TokenSpending(Base):
    """Calls of one kind on one day.

    lane       `live`, `bulk`, `control` or `verify`
    operation  the kind of call, as in `pipeline.domain.budget.TOKEN_COSTS`
    """

    __tablename__ = "token_ledger"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    """In UTC."""
    lane: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str] = mapped_column(primary_key=True)
    calls: Mapped[int] = mapped_column(Integer)
    tokens: Mapped[int] = mapped_column(Integer)


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call that is not written yet."""

    connector_key: int
    lane: str
    operation: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens that a company spent today in one lane on one kind of call."""

    lane: str
    operation: str
    calls: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Day:
    day: date
    calls: int
    tokens: int


pending: deque[PendingCall] = deque()
"""Threads append and pop without a lock: both are atomic."""
os.register_at_fork(after_in_child=pending.clear)

_WRITE = Statement("""
    INSERT INTO token_ledger AS kept (connector_key, day, lane, operation, calls, tokens)
    SELECT c.key, (now() AT TIME ZONE 'UTC')::date, new.lane, new.operation, new.calls, new.tokens
      FROM unnest(CAST(:keys AS int[]), CAST(:lanes AS text[]), CAST(:operations AS text[]), CAST(:calls AS int[]),
                  CAST(:tokens AS int[])) AS new (key, lane, operation, calls, tokens)
      JOIN connectors c ON c.key = new.key
     ORDER BY c.key, new.lane, new.operation
    ON CONFLICT (connector_key, day, lane, operation)
    DO UPDATE SET calls = kept.calls + excluded.calls, tokens = kept.tokens + excluded.tokens""")

_MINE = f"token_ledger l JOIN connectors c ON c.key = l.connector_key AND {COMPANY} = :company"
_TODAY = "l.day = (now() AT TIME ZONE 'UTC')::date"

_SPENT = text(f"SELECT coalesce(sum(l.tokens), 0) FROM {_MINE} WHERE {_TODAY}")  # noqa: S608 - as above
_BY_LANE = text(f"""
    SELECT l.lane, l.operation, sum(l.calls) AS calls, sum(l.tokens) AS tokens FROM {_MINE} WHERE {_TODAY}
     GROUP BY 1, 2 ORDER BY 1, 4 DESC, 2""")  # noqa: S608 - as above
_DAYS = text(f"""
    SELECT l.day, sum(l.calls) AS calls, sum(l.tokens) AS tokens FROM {_MINE}
     WHERE l.day > (now() AT TIME ZONE 'UTC')::date - :days GROUP BY 1 ORDER BY 1 DESC""")  # noqa: S608 - as above


def record_pending(connector_key: int, lane: str, operation: str, tokens: int) -> None:
    """Record a call; the next commit of this process writes it."""
    pending.append(PendingCall(connector_key, lane, operation, tokens))


def flush_pending(session: Session) -> None:
    """Write the pending calls of this process; a rollback makes them pending again. Those of deleted connectors are left out."""
    taken = _take()
    if not taken:
        return
    event.listen(session, "after_rollback", lambda _session: pending.extend(taken), once=True)
    _WRITE.run(session, _columns(taken))


def flush_rest() -> None:
    """Write the remaining pending calls."""
    if pending:
        with sessions.transaction():
            pass  # the transaction writes them before it commits


sessions.before_commit(flush_pending)


def spent_today(session: Session, company: str) -> int:
    """Return the tokens that all connectors of a company spent since midnight UTC."""
    return int(session.execute(_SPENT, {"company": company}).scalar_one())


def read_spent_today(company: str) -> int:
    """Return the same, for callers in a transaction: a separate session reads it, without locks."""
    with Session(sessions.engine()) as session:
        return spent_today(session, company)


def spent_by_lane(session: Session, company: str) -> list[Spent]:
    """Return the tokens of today by lane; in a lane the most expensive operation first."""
    return [Spent(*row) for row in session.execute(_BY_LANE, {"company": company})]


def last_days(session: Session, company: str, days: int) -> list[Day]:
    """Return the last days with calls, today included, newest first."""
    return [Day(*row) for row in session.execute(_DAYS, {"company": company, "days": days})]


def moment(session: Session) -> datetime:
    """Return the time of the database, which decides which day it is."""
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    return now


def _take() -> list[PendingCall]:
    taken = []
    while pending:
        try:
            taken.append(pending.popleft())
        except IndexError:  # another thread was faster
            break
    return taken


def _columns(taken: Iterable[PendingCall]) -> dict[str, list[object]]:
    sums: dict[tuple[int, str, str], tuple[int, int]] = {}
    for each in taken:
        key = each.connector_key, each.lane, each.operation
        calls, tokens = sums.get(key, (0, 0))
        sums[key] = calls + 1, tokens + each.tokens
    rows = [(*key, *counted) for key, counted in sorted(sums.items())]
    names = ("keys", "lanes", "operations", "calls", "tokens")
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
