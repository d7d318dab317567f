"""Errands: what was asked for over HTTP and needs a remote system before it is done. Written down before anybody says yes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, ForeignKey, Index, Integer, LargeBinary, SmallInteger, delete, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId
from pipeline.errors import LostLease

RETENTION_DAYS = 30


class Errand(Base):
    """kind      `settings`: read them anew from Hull; `export`: fetch a file of Users or Accounts; `adoption`: a new connector;
              `status`: tell Hull how it is; `send`: Users or Accounts to Pipedrive; `verify`: compare a sample;
              `plan`: compute what new settings would do; `replay`: send the items of a replay; `log`: write the log to a file
    key       what makes a repeated request the same one, for as long as it is due
    sealed    what it takes, credentials or an address, sealed as secrets are; gone when it has ended well
    asked     how often it was asked for; what was asked meanwhile is done once more
    token     grows with every claim, and every later write must carry it
    due_at    when it may be begun; for one at work, when its worker has lost it
    progress  lines of the file that are folded already, and `mark` tells which file they were of; of a `send`, pages that are
              folded and how many records there are in all
    """

    __tablename__ = "errands"
    __table_args__ = (
        Index("uq_errands_due", "kind", "key", unique=True, postgresql_where=text("state = 'due'")),
        Index("ix_errands_due", "due_at", postgresql_where=text("state = 'due'")),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int | None] = mapped_column(Integer, ForeignKey("connectors.key"))
    kind: Mapped[str]
    key: Mapped[str]
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(server_default="due")
    """`due`, `done`, `failed` (a Failure is open) or `refused`."""
    reason: Mapped[str | None]
    asked: Mapped[int] = mapped_column(Integer, server_default="1")
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    token: Mapped[int] = mapped_column(Integer, server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    waits_for: Mapped[str | None]
    """As of a batch."""
    woken_at: Mapped[datetime | None]
    progress: Mapped[int] = mapped_column(server_default="0")
    mark: Mapped[str | None]
    created_at: Mapped[Created]
    ended_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedErrand:
    """What a worker may work on for as long as it has the lease."""

    id: int
    connector_key: int | None
    connector_id: str | None
    has_outage: bool
    kind: str
    key: str
    sealed: bytes | None
    asked: int
    attempts: int
    token: int
    progress: int
    mark: str | None
    created_at: datetime


_ASK = text("""
    INSERT INTO errands AS e (connector_key, kind, key, sealed) VALUES (:connector_key, :kind, :key, :sealed)
        ON CONFLICT (kind, key) WHERE state = 'due' DO UPDATE SET asked = e.asked + 1""")


def ask(
    session: Session, kind: str, key: str, *, connector_key: int | None = None, sealed: bytes | None = None
) -> None:
    """Write an errand down; the same one that is due already is done once more after what is at work."""
    session.execute(_ASK, {"connector_key": connector_key, "kind": kind, "key": key, "sealed": sealed})


_TAKE_DUE = text("""
    WITH due AS MATERIALIZED (
        SELECT id FROM errands
         WHERE state = 'due' AND due_at <= now()
           AND (woken_at IS NULL OR woken_at < due_at OR woken_at < now() - make_interval(secs => :patience_s))
         ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE errands SET woken_at = now() WHERE id = ANY(ARRAY(SELECT id FROM due))
 RETURNING id, kind""")


def take_due(session: Session, *, patience_s: float, limit: int = 100) -> list[tuple[int, str]]:
    """(id, kind) of errands somebody must be woken for; of whose message nothing came in `patience_s`, once more."""
    return [(row.id, row.kind) for row in session.execute(_TAKE_DUE, {"patience_s": patience_s, "limit": limit})]


_CLAIM = text("""
    UPDATE errands SET token = token + 1, attempts = attempts + 1, waits_for = NULL,
           due_at = now() + make_interval(secs => :lease_s)
     WHERE id = :id AND state = 'due' AND due_at <= now()
 RETURNING id, connector_key, (SELECT c.id FROM connectors c WHERE c.key = connector_key) AS connector_id,
           EXISTS (SELECT FROM outages o WHERE o.connector_key = errands.connector_key) AS has_outage, kind, key, sealed, asked,
           attempts, token, progress, mark, created_at""")


def claim(session: Session, errand_id: int, *, lease_s: float) -> ClaimedErrand | None:
    """Begin an errand; None when it is not due, or somebody else's."""
    row = session.execute(_CLAIM, {"id": errand_id, "lease_s": lease_s}).one_or_none()
    if row is None:
        return None
    return ClaimedErrand(**{**row._asdict(), "sealed": None if row.sealed is None else bytes(row.sealed)})


def hold(session: Session, errand: ClaimedErrand) -> Errand:
    """The row, locked until the transaction ends. Raises: LostLease."""
    mine = select(Errand).filter_by(id=errand.id, state="due", token=errand.token).with_for_update()
    row = session.scalar(mine.execution_options(populate_existing=True))
    if row is None:
        raise LostLease("lease_lost", f"errand {errand.id}")
    return row


_EXTEND = text("""
    UPDATE errands SET due_at = now() + make_interval(secs => :lease_s)
     WHERE id = :id AND token = :token AND state = 'due' RETURNING id""")


def extend_lease(session: Session, errand: ClaimedErrand, lease_s: float) -> bool:
    """Go on holding the errand; False when it is not ours any more."""
    found = session.execute(_EXTEND, {"lease_s": lease_s, "id": errand.id, "token": errand.token})
    return found.one_or_none() is not None


def put_off(
    session: Session, errand: ClaimedErrand, wait_s: float, *, counted: bool = True, waits_for: str | None = None
) -> None:
    """Go on later; without `counted` it was no attempt. Raises: LostLease."""
    row = hold(session, errand)
    row.waits_for = waits_for
    row.due_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, wait_s)
    row.woken_at = None
    row.attempts = row.attempts if counted else 0


def end(session: Session, errand: ClaimedErrand, state: str = "done", reason: str | None = None) -> None:
    """It has ended; one that was asked for again meanwhile is due again. Raises: LostLease."""
    row = hold(session, errand)
    if state == "done" and row.asked > errand.asked:
        row.due_at, row.woken_at, row.attempts = func.now(), None, 0
        return
    row.state, row.reason, row.ended_at = state, reason, func.now()
    if state != "failed":
        row.sealed = None


def revive(session: Session, errand_id: int) -> bool:
    """One that failed is due again; False when it is not there any more, or asked for anew."""
    row = session.scalar(select(Errand).filter_by(id=errand_id, state="failed").with_for_update())
    if row is None or not is_revivable(session, errand_id):
        return False
    row.state, row.reason, row.attempts, row.due_at, row.woken_at = "due", None, 0, func.now(), None
    row.ended_at = None
    return True


def is_revivable(session: Session, errand_id: int) -> bool:
    """Whether one that failed is still there, and was not asked for anew."""
    row = session.scalar(select(Errand).filter_by(id=errand_id, state="failed"))
    if row is None:
        return False
    return session.scalar(select(Errand.id).filter_by(kind=row.kind, key=row.key, state="due")) is None


def find_due(session: Session, kind: str, key: str) -> int | None:
    """The id of the errand of this name that is due or at work."""
    return session.scalar(select(Errand.id).filter_by(kind=kind, key=key, state="due"))


def last_failed(session: Session, kind: str, key: str) -> int | None:
    """The id of the newest errand of this name that gave up."""
    mine = select(Errand.id).filter_by(kind=kind, key=key, state="failed")
    return session.scalar(mine.order_by(Errand.id.desc()).limit(1))


def state_of(session: Session, errand_id: int) -> str | None:
    return session.scalar(select(Errand.state).filter_by(id=errand_id))


def count_due(session: Session, kind: str) -> int:
    return session.scalar(select(func.count(Errand.id)).filter_by(kind=kind, state="due")) or 0


def latest_errands(session: Session, connector_key: int, kinds: Sequence[str], limit: int = 10) -> list[Errand]:
    """Newest first, whatever became of them."""
    mine = select(Errand).where(Errand.connector_key == connector_key, Errand.kind.in_(kinds))
    return list(session.scalars(mine.order_by(Errand.id.desc()).limit(limit)))


def was_refused(session: Session, kind: str, key: str, *, within_s: float) -> bool:
    """Whether the very same thing was asked for and refused not long ago."""
    recently = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, within_s)
    found = select(Errand.id).where(
        Errand.kind == kind, Errand.key == key, Errand.state == "refused", Errand.ended_at > recently
    )
    return session.scalar(found.limit(1)) is not None


def drop_old_errands(
    session: Session, keep_days: int = RETENTION_DAYS, states: Sequence[str] = ("done", "refused")
) -> int:
    """Forget errands past their retention; returns how many. Those that failed are kept with their Failure."""
    old = func.now() - func.make_interval(0, 0, 0, keep_days)
    gone = session.execute(delete(Errand).where(Errand.ended_at < old, Errand.state.in_(states)))
    return cast("CursorResult[Any]", gone).rowcount
