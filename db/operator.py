"""Operators: the people who may look and act, their sessions, their keys for scripts, and what guards the door.

Passwords are kept as Argon2id hashes, session tokens and keys as digests: whoever reads these tables gets in nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    LargeBinary,
    SmallInteger,
    delete,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId

IDLE_S: Final = 12 * 3600
"""A session that nobody used for so long is over."""
LONGEST_S: Final = 7 * 24 * 3600
SEEN_EVERY_S: Final = 60
"""How often a session in use is written down as such."""


class Operator(Base):
    """One person. `role` is a `pipeline.domain.roles.Role`."""

    __tablename__ = "operators"

    id: Mapped[RowId]
    name: Mapped[str] = mapped_column(unique=True)
    """In lower case: an e-mail address, or whatever the person goes by."""
    password_hash: Mapped[str]
    role: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="active")
    """`active` or `disabled`: one who has left stays in the audit log by name."""
    created_at: Mapped[Created]


class OperatorSession(Base):
    """Somebody who is logged in."""

    __tablename__ = "operator_sessions"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    operator_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("operators.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[Created]
    seen_at: Mapped[Created]


class ApiKey(Base):
    """What a script shows instead of a password; it may do what its owner may."""

    __tablename__ = "api_keys"

    id: Mapped[RowId]
    operator_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("operators.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    created_at: Mapped[Created]
    used_at: Mapped[datetime | None]


class LoginAttempt(Base):
    """Logins that went wrong in a row, by account and by address: `subject` is `name:<digest>` or `address:<digest>`."""

    __tablename__ = "login_attempts"

    subject: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(SmallInteger)
    locked_until: Mapped[datetime | None]
    last_at: Mapped[Created]


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Who asks."""

    id: int
    name: str
    role: str


def any_operator(session: Session) -> bool:
    """Whether somebody was ever let in."""
    return session.scalar(select(Operator.id).limit(1)) is not None


def lock_operators(session: Session) -> None:
    """One at a time changes who there is, until the transaction ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('operators'))"))


def all_operators(session: Session) -> list[Operator]:
    return list(session.scalars(select(Operator).order_by(Operator.name)))


def find_operator(session: Session, name: str) -> Operator | None:
    return session.scalar(select(Operator).filter_by(name=name.lower()))


def count_admins(session: Session) -> int:
    """Active ones."""
    return session.scalar(select(func.count()).select_from(Operator).filter_by(role="admin", state="active")) or 0


def open_session(session: Session, operator_id: int, digest: bytes) -> None:
    """Somebody has logged in; what is over by now is forgotten."""
    session.execute(delete(OperatorSession).where(_is_over()))
    session.add(OperatorSession(digest=digest, operator_id=operator_id))


def find_session(session: Session, digest: bytes) -> Present | None:
    """Who is logged in under this digest; None when nobody is, or is no longer."""
    query = (
        select(Operator.id, Operator.name, Operator.role, OperatorSession.seen_at < _ago(SEEN_EVERY_S))
        .join(OperatorSession, OperatorSession.operator_id == Operator.id)
        .where(OperatorSession.digest == digest, ~_is_over(), Operator.state == "active")
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    if row[3]:
        session.execute(update(OperatorSession).filter_by(digest=digest).values(seen_at=func.now()))
    return Present(id=row[0], name=row[1], role=row[2])


def close_session(session: Session, digest: bytes) -> None:
    session.execute(delete(OperatorSession).filter_by(digest=digest))


def close_sessions_of(session: Session, operator_id: int, *, but: bytes = b"") -> None:
    """Somebody's password or role has changed: whoever is logged in as them logs in again."""
    session.execute(
        delete(OperatorSession).where(OperatorSession.operator_id == operator_id, OperatorSession.digest != but)
    )


def find_key(session: Session, digest: bytes) -> Present | None:
    """Whose key this is."""
    query = (
        select(Operator.id, Operator.name, Operator.role, ApiKey.id, _was_unused())
        .join(ApiKey, ApiKey.operator_id == Operator.id)
        .where(ApiKey.digest == digest, Operator.state == "active")
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    if row[4]:
        session.execute(update(ApiKey).filter_by(id=row[3]).values(used_at=func.now()))
    return Present(id=row[0], name=row[1], role=row[2])


def keys_of(session: Session, operator_id: int) -> list[ApiKey]:
    return list(session.scalars(select(ApiKey).filter_by(operator_id=operator_id).order_by(ApiKey.id)))


def drop_key(session: Session, operator_id: int, key_id: int) -> bool:
    """Whether there was such a key of theirs."""
    gone = session.scalar(delete(ApiKey).filter_by(id=key_id, operator_id=operator_id).returning(ApiKey.id))
    return gone is not None


def locked_s(session: Session, subjects: list[str]) -> float:
    """Seconds until the next login is heard."""
    left = func.max(func.extract("epoch", LoginAttempt.locked_until - func.now()))
    return max(0.0, float(session.scalar(select(left).where(LoginAttempt.subject.in_(subjects))) or 0))


_FAILED = text("""
    INSERT INTO login_attempts AS a (subject, failures, locked_until, last_at)
    SELECT s, 1, NULL, now() FROM unnest(CAST(:subjects AS text[])) AS s ORDER BY s
    ON CONFLICT (subject) DO UPDATE
       SET failures = CASE WHEN a.last_at < now() - interval '1 day' THEN 1 ELSE least(a.failures + 1, 30) END,
           locked_until = CASE WHEN a.last_at >= now() - interval '1 day' AND a.failures + 1 >= :free
                               THEN now() + make_interval(secs => least(:longest, power(2, a.failures + 1 - :free) * :first))
                          END,
           last_at = now()""")


def note_failed_login(session: Session, subjects: list[str], *, free: int, first_s: float, longest_s: float) -> None:
    """From the `free`th failure in a row on, the door stays shut: `first_s` seconds, then twice as long each time."""
    session.execute(_FAILED, {"subjects": subjects, "free": free, "first": first_s, "longest": longest_s})


def forget_failed_logins(session: Session, subject: str) -> None:
    session.execute(delete(LoginAttempt).filter_by(subject=subject))


def put_operator(session: Session, name: str, password_hash: str, role: str) -> int:
    """Add somebody. Raises: ValueError when the name is taken."""
    row = insert(Operator).values(name=name.lower(), password_hash=password_hash, role=role)
    operator_id: int | None = session.scalar(row.on_conflict_do_nothing().returning(Operator.id))
    if operator_id is None:
        raise ValueError(f"there is an operator {name.lower()!r} already")
    return operator_id


def _is_over() -> ColumnElement[bool]:
    return or_(OperatorSession.seen_at < _ago(IDLE_S), OperatorSession.created_at < _ago(LONGEST_S))


def _was_unused() -> ColumnElement[bool]:
    return or_(ApiKey.used_at.is_(None), ApiKey.used_at < _ago(SEEN_EVERY_S))


def _ago(seconds: float) -> ColumnElement[datetime]:
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
