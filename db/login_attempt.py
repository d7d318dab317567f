"""Counts of failed logins, by account and by place; who guesses has to wait. `pipeline.accounts.logins` has the rules.

Names and addresses are personal: only digests of them are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Double, LargeBinary, delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created

Key = tuple[bytes, bytes]
"""(digest of a name, digest of a place); an empty one means any."""


class LoginAttempt(Base):
    """Failed logins of one name, of one place, or of one name from one place."""

    __tablename__ = "login_attempts"

    name_digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    place_digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    failures: Mapped[float] = mapped_column(Double)
    """Decays with time, see `Limit`."""
    blocked_until: Mapped[datetime | None]
    last_at: Mapped[Created] = mapped_column(index=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many failures are free, and how long the next attempt waits after more.

    decay_s  seconds after which one failure is forgotten
    first_s  the wait after the `free`th failure; it doubles with each further one up to `longest_s`
    """

    free: int
    decay_s: float
    first_s: float
    longest_s: float

    def wait_s(self, failures: float) -> float:
        """Return the seconds to wait after so many failures."""
        over = round(failures) - self.free
        return 0.0 if over < 0 else min(self.longest_s, self.first_s * 2.0 ** min(over, 30))


def reserve_attempt(session: Session, limits: Sequence[tuple[Key, Limit]]) -> float:
    """Count one attempt as failed before it is tried, so that parallel attempts cannot exceed a limit.

    Returns the seconds to wait; 0 means that the attempt may be tried. An attempt that has to wait is not counted.
    """
    by_key = dict(sorted(limits, key=lambda each: each[0]))
    rows = [{"name_digest": name, "place_digest": place, "failures": 0} for name, place in by_key]
    session.execute(insert(LoginAttempt).values(rows).on_conflict_do_nothing())
    query = select(LoginAttempt).where(_is_one_of(by_key)).order_by(LoginAttempt.name_digest, LoginAttempt.place_digest)
    found = session.scalars(query.with_for_update()).all()
    now: datetime = session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]  # never NULL
    waits = [(each.blocked_until - now).total_seconds() for each in found if each.blocked_until is not None]
    if waits and max(waits) > 0:
        return max(waits)
    for each in found:
        limit = by_key[each.name_digest, each.place_digest]
        each.failures = max(0.0, each.failures - (now - each.last_at).total_seconds() / limit.decay_s) + 1
        wait_s = limit.wait_s(each.failures)
        each.blocked_until = now + timedelta(seconds=wait_s) if wait_s else None
        each.last_at = now
    return 0.0


def forgive(session: Session, own: Key, others: Iterable[Key]) -> None:
    """Forget the failures of one name at one place after a successful login, and take them off the counts they are part of."""
    name, place = own
    failures = session.scalar(
        delete(LoginAttempt).filter_by(name_digest=name, place_digest=place).returning(LoginAttempt.failures)
    )
    if failures is None:
        return
    query = select(LoginAttempt).where(_is_one_of(others)).order_by(LoginAttempt.name_digest, LoginAttempt.place_digest)
    for each in session.scalars(query.with_for_update()):
        each.failures = max(0.0, each.failures - failures)
        each.blocked_until = None


def unlock(session: Session, name_digest: bytes) -> int:
    """Forget every failed login of a name; returns how many counts there were."""
    forgotten = session.execute(delete(LoginAttempt).filter_by(name_digest=name_digest))
    return cast("CursorResult[Any]", forgotten).rowcount


_DELETE_OLD = text("""
    WITH old AS MATERIALIZED (
        SELECT name_digest, place_digest FROM login_attempts WHERE last_at < now() - interval '1 day' LIMIT :at_most
        FOR UPDATE SKIP LOCKED)
    DELETE FROM login_attempts a USING old WHERE (a.name_digest, a.place_digest) = (old.name_digest, old.place_digest)""")


def delete_old_attempts(session: Session, at_most: int) -> int:
    """Delete counts of which the last failure is a day ago; returns how many."""
    return cast("CursorResult[Any]", session.execute(_DELETE_OLD, {"at_most": at_most})).rowcount


def _is_one_of(keys: Iterable[Key]) -> ColumnElement[bool]:
    return tuple_(LoginAttempt.name_digest, LoginAttempt.place_digest).in_(list(keys))
