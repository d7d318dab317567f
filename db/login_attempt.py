"""Counts of failed logins by name and by place. After many, the next attempt has to wait, by the rules of
`pipeline.accounts.logins`.

Names and addresses are personal data: only their digests are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Double, LargeBinary, delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, changed_rows

Key = tuple[bytes, bytes]
"""(digest of a name, digest of a place); an empty digest means any."""


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
    """How long an attempt waits after earlier failures.

    free     number of failures without a wait
    decay_s  seconds after which one failure is forgotten
    first_s  the wait after the `free`th failure; each further one doubles it, up to `longest_s`
    """

    free: int
    decay_s: float
    first_s: float
    longest_s: float

    def wait_s(self, failures: float) -> float:
        """Return the seconds to wait after this number of failures."""
        over = round(failures) - self.free
        return 0.0 if over < 0 else min(self.longest_s, self.first_s * 2.0 ** min(over, 30))


Limits = Sequence[tuple[Key, Limit]]
"""The counts of one attempt; the first one is that of the name at its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservedAttempt:
    """An attempt that was counted at `at`, unless `wait_s` is positive."""

    limits: Limits
    at: datetime
    wait_s: float = 0.0


def reserve_attempt(session: Session, limits: Limits) -> ReservedAttempt:
    """Count an attempt as failed before it is tried, so that parallel attempts cannot exceed a limit.

    An attempt that has to wait is not counted and stores nothing, so that a flood of attempts fills no table.
    """
    blocked_until = session.scalar(select(func.max(LoginAttempt.blocked_until)).where(_is_one_of(limits)))
    if (wait_s := _wait_s(blocked_until, now := _now(session))) > 0:
        return ReservedAttempt(limits=limits, at=now, wait_s=wait_s)
    by_key = dict(limits)
    rows = [{"name_digest": name, "place_digest": place, "failures": 0} for name, place in sorted(by_key)]
    session.execute(insert(LoginAttempt).values(rows).on_conflict_do_nothing())
    found = _lock(session, limits)
    now = _now(session)
    if (wait_s := max((_wait_s(each.blocked_until, now) for each in found), default=0.0)) > 0:
        return ReservedAttempt(limits=limits, at=now, wait_s=wait_s)
    for each in found:
        limit = by_key[each.name_digest, each.place_digest]
        each.failures = max(0.0, each.failures - (now - each.last_at).total_seconds() / limit.decay_s) + 1
        wait_s = limit.wait_s(each.failures)
        each.blocked_until = now + timedelta(seconds=wait_s) if wait_s else None
        each.last_at = now
    return ReservedAttempt(limits=limits, at=now)


def forgive(session: Session, reserved: ReservedAttempt) -> None:
    """Delete the failures of a name at a place after a successful login, and subtract them from the other counts."""
    (own, _), *_others = reserved.limits
    found = {(each.name_digest, each.place_digest): each for each in _lock(session, reserved.limits)}
    mine = found.pop(own, None)
    if mine is not None:
        session.delete(mine)
        _take_off(found.values(), reserved, mine.failures)


def give_back(session: Session, reserved: ReservedAttempt) -> None:
    """Subtract an attempt that was not tried from the counts."""
    _take_off(_lock(session, reserved.limits), reserved, 1.0)


def _take_off(found: Iterable[LoginAttempt], reserved: ReservedAttempt, failures: float) -> None:
    """Subtract failures from counts. A wait ends if this attempt caused it, or the count is within its limit now."""
    by_key = dict(reserved.limits)
    for each in found:
        each.failures = max(0.0, each.failures - failures)
        if each.last_at == reserved.at or not by_key[each.name_digest, each.place_digest].wait_s(each.failures):
            each.blocked_until = None


def _lock(session: Session, limits: Limits) -> Sequence[LoginAttempt]:
    """Lock counts, always in the same order, so that two logins of one name from one place do not deadlock."""
    query = select(LoginAttempt).where(_is_one_of(limits)).order_by(LoginAttempt.name_digest, LoginAttempt.place_digest)
    return session.scalars(query.with_for_update().execution_options(populate_existing=True)).all()


def _now(session: Session) -> datetime:
    now: datetime = session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]  # never NULL
    return now


def _wait_s(blocked_until: datetime | None, now: datetime) -> float:
    return 0.0 if blocked_until is None else max(0.0, (blocked_until - now).total_seconds())


def unlock(session: Session, name_digest: bytes) -> int:
    """Delete all failed logins of a name; return how many counts there were."""
    return changed_rows(session, delete(LoginAttempt).filter_by(name_digest=name_digest))


_DELETE_OLD = text("""
    WITH old AS MATERIALIZED (
        SELECT name_digest, place_digest FROM login_attempts WHERE last_at < now() - interval '1 day' LIMIT :at_most
        FOR UPDATE SKIP LOCKED)
    DELETE FROM login_attempts a USING old WHERE (a.name_digest, a.place_digest) = (old.name_digest, old.place_digest)""")


def delete_old_attempts(session: Session, at_most: int) -> int:
    """Delete at most `at_most` counts with their last failure more than a day ago; return how many."""
    return changed_rows(session, _DELETE_OLD, {"at_most": at_most})


def _is_one_of(limits: Limits) -> ColumnElement[bool]:
    return tuple_(LoginAttempt.name_digest, LoginAttempt.place_digest).in_([key for key, _ in limits])
