"""Operators: the people who may use the console, their login sessions, and the API keys of their scripts.

Passwords are stored as Argon2id hashes, session tokens and API keys as digests, TOTP secrets encrypted: reading these
tables is not enough to log in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    delete,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId, changed_rows

IDLE_S: Final = 12 * 3600
"""A session ends after this time without a request by the user."""
LONGEST_S: Final = 7 * 24 * 3600
SEEN_EVERY_S: Final = 60
"""How often the use of a session is stored."""
LONGEST_AGENT: Final = 200


class Operator(Base):
    """One person who uses the console. `role` is a `pipeline.domain.kinds.Role`."""

    __tablename__ = "operators"

    id: Mapped[RowId]
    name: Mapped[str] = mapped_column(unique=True)
    """In lower case: an e-mail address, or another name."""
    password_hash: Mapped[str]
    """Empty for an operator who logs in through single sign-on only."""
    role: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="active")
    """`active` or `disabled`. A former operator is disabled: the audit log has the name."""
    connector_keys: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    """The connectors this operator may see and act on; NULL is all of them, as for every admin."""
    totp_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Secret of the second factor, encrypted with SECRET_KEYS."""
    totp_confirmed_at: Mapped[datetime | None]
    """When the first code was entered; before that no login needs a code."""
    totp_step: Mapped[int | None] = mapped_column(BigInteger)
    """Time step of the last accepted code: no code is accepted twice."""
    recovery_digests: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary), server_default="{}")
    created_at: Mapped[Created]

    @property
    def has_second_factor(self) -> bool:
        """Whether a login needs a code."""
        return self.totp_confirmed_at is not None


class OperatorSession(Base):
    """The login of an operator in one browser."""

    __tablename__ = "operator_sessions"

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity(), unique=True)
    """Id of the session on pages, which must not show its digest."""
    operator_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("operators.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[Created]
    seen_at: Mapped[Created]
    proved_at: Mapped[Created]
    """When the operator was last authenticated: at the login, or by the password since."""
    address: Mapped[str] = mapped_column(server_default="")
    agent: Mapped[str] = mapped_column(server_default="")
    """The browser's `User-Agent`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The operator who makes a request, with the role of the request."""

    id: int
    name: str
    role: str
    key: str = ""
    """Name of the API key that makes the request; empty for a browser."""
    connector_keys: frozenset[int] | None = None
    """None is every connector."""

    def may_see(self, connector_key: int | None) -> bool:
        """Return whether this operator may see a connector; None is the installation itself, which all may see."""
        return connector_key is None or self.connector_keys is None or connector_key in self.connector_keys


def present(operator: Operator, *, role: str | None = None, key: str = "") -> Present:
    """Return the operator of a request, with their own role or that of a key."""
    allowed = operator.connector_keys
    limit = None if allowed is None or operator.role == "admin" else frozenset(allowed)
    return Present(id=operator.id, name=operator.name, role=role or operator.role, key=key, connector_keys=limit)


def any_operator(session: Session) -> bool:
    """Return whether there is an operator."""
    return session.scalar(select(Operator.id).limit(1)) is not None


def lock_operators(session: Session) -> None:
    """Lock the operators, so that one transaction at a time changes them."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtext('operators'))"))


def all_operators(session: Session) -> list[Operator]:
    """List operators by name."""
    return list(session.scalars(select(Operator).order_by(Operator.name)))


def find_operator(session: Session, name: str) -> Operator | None:
    """Find an operator by name."""
    return session.scalar(select(Operator).filter_by(name=name.lower()))


def lock_operator(session: Session, operator_id: int) -> Operator:
    """Return the current row of an operator, locked until the transaction ends."""
    return session.get_one(Operator, operator_id, with_for_update={"read": True}, populate_existing=True)


def count_admins(session: Session) -> int:
    """Return the number of active admins."""
    return session.scalar(select(func.count()).select_from(Operator).filter_by(role="admin", state="active")) or 0


def put_operator(session: Session, name: str, password_hash: str, role: str) -> int:
    """Add an operator and return the id. Raises ValueError if the name exists."""
    row = insert(Operator).values(name=name.lower(), password_hash=password_hash, role=role)
    operator_id: int | None = session.scalar(row.on_conflict_do_nothing().returning(Operator.id))
    if operator_id is None:
        raise ValueError(f"there is an operator {name.lower()!r} already")
    return operator_id


def lock_sealed_secrets(session: Session) -> list[Operator]:
    """Return the operators with a second factor, locked until the transaction ends."""
    return list(session.scalars(select(Operator).where(Operator.totp_sealed.is_not(None)).with_for_update()))


def open_session(session: Session, operator_id: int, digest: bytes, *, address: str = "", agent: str = "") -> None:
    """Store a new session."""
    session.add(OperatorSession(digest=digest, operator_id=operator_id, address=address, agent=agent[:LONGEST_AGENT]))


def find_session(session: Session, digest: bytes, *, renews: bool = True) -> Present | None:
    """Return the operator logged in with this digest.

    renews  False for an automatic request, such as the refresh of a page: it does not extend the session
    """
    query = (
        select(Operator, OperatorSession.seen_at < func.now() - timedelta(seconds=SEEN_EVERY_S))
        .join(OperatorSession, OperatorSession.operator_id == Operator.id)
        .where(OperatorSession.digest == digest, ~_is_over(), Operator.state == "active")
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    if row[1] and renews:
        session.execute(update(OperatorSession).filter_by(digest=digest).values(seen_at=func.now()))
    return present(row[0])


def sessions_of(session: Session, operator_id: int) -> list[OperatorSession]:
    """Return the active sessions of an operator, the last used one first."""
    query = select(OperatorSession).where(OperatorSession.operator_id == operator_id, ~_is_over())
    return list(session.scalars(query.order_by(OperatorSession.seen_at.desc(), OperatorSession.id)))


def note_proof(session: Session, digest: bytes) -> None:
    """Store that the operator of a session was authenticated just now."""
    session.execute(update(OperatorSession).filter_by(digest=digest).values(proved_at=func.now()))


def proof_age_s(session: Session, digest: bytes) -> float | None:
    """Return the seconds since the operator of a session was last authenticated; None if there is no such session."""
    age = func.extract("epoch", func.now() - OperatorSession.proved_at)
    found = session.scalar(select(age).where(OperatorSession.digest == digest, ~_is_over()))
    return None if found is None else float(found)


def renew_session(session: Session, old: bytes, new: bytes) -> None:
    """Replace the digest of a session, so that a copy of its old token is invalid."""
    session.execute(update(OperatorSession).filter_by(digest=old).values(digest=new))


def close_session(session: Session, digest: bytes) -> None:
    """Delete a session."""
    session.execute(delete(OperatorSession).filter_by(digest=digest))


def close_session_by_id(session: Session, operator_id: int, session_id: int) -> bool:
    """Delete a session of an operator; return whether there was one."""
    gone = delete(OperatorSession).filter_by(operator_id=operator_id, id=session_id)
    return session.scalar(gone.returning(OperatorSession.id)) is not None


def close_sessions_of(session: Session, operator_id: int, *, but: bytes = b"") -> int:
    """Delete the sessions of an operator, except the one with the digest `but`; return how many."""
    gone = delete(OperatorSession).where(OperatorSession.operator_id == operator_id, OperatorSession.digest != but)
    return changed_rows(session, gone)


def delete_ended_sessions(session: Session) -> int:
    """Delete sessions that have ended; return how many."""
    return changed_rows(session, delete(OperatorSession).where(_is_over()))


def _is_over() -> ColumnElement[bool]:
    return or_(
        OperatorSession.seen_at < func.now() - timedelta(seconds=IDLE_S),
        OperatorSession.created_at < func.now() - timedelta(seconds=LONGEST_S),
    )


USED_EVERY_S: Final = 60
"""How often the use of a key is stored."""
KEPT_EXPIRED_DAYS: Final = 30


class ApiKey(Base):
    """One key. It may do what its role allows, and never more than its owner."""

    __tablename__ = "api_keys"

    id: Mapped[RowId]
    operator_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("operators.id", ondelete="CASCADE"), index=True)
    name: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    role: Mapped[str]
    expires_at: Mapped[datetime]
    created_at: Mapped[Created]
    used_at: Mapped[datetime | None]


def find_key(session: Session, digest: bytes) -> tuple[Operator, ApiKey] | None:
    """Return an active operator and their key by its digest, unless it has expired; store its use."""
    is_due = or_(ApiKey.used_at.is_(None), ApiKey.used_at < func.now() - timedelta(seconds=USED_EVERY_S))
    query = (
        select(Operator, ApiKey, is_due)
        .join(ApiKey, ApiKey.operator_id == Operator.id)
        .where(ApiKey.digest == digest, ApiKey.expires_at > func.now(), Operator.state == "active")
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    if row[2]:
        session.execute(update(ApiKey).filter_by(id=row[1].id).values(used_at=func.now()))
    return row[0], row[1]


def keys_of(session: Session, operator_id: int) -> list[ApiKey]:
    """List an operator's keys, the oldest first."""
    return list(session.scalars(select(ApiKey).filter_by(operator_id=operator_id).order_by(ApiKey.id)))


def all_keys(session: Session) -> list[tuple[Operator, ApiKey]]:
    """List every key with its owner, by owner."""
    query = select(Operator, ApiKey).join(ApiKey, ApiKey.operator_id == Operator.id).order_by(Operator.name, ApiKey.id)
    return [(row[0], row[1]) for row in session.execute(query)]


def revoke_key(session: Session, key_id: int, *, operator_id: int | None = None) -> str | None:
    """Delete a key, of this operator if one is given. Return its name; None if there is no such key."""
    gone = delete(ApiKey).where(ApiKey.id == key_id)
    if operator_id is not None:
        gone = gone.where(ApiKey.operator_id == operator_id)
    return session.scalar(gone.returning(ApiKey.name))


def revoke_keys_of(session: Session, operator_id: int) -> int:
    """Delete all keys of an operator; return how many."""
    return changed_rows(session, delete(ApiKey).filter_by(operator_id=operator_id))


def delete_expired_keys(session: Session) -> int:
    """Delete keys that expired KEPT_EXPIRED_DAYS ago; return how many. Until then lists show why a script was rejected."""
    gone = delete(ApiKey).where(ApiKey.expires_at < func.now() - timedelta(seconds=KEPT_EXPIRED_DAYS * 86_400))
    return changed_rows(session, gone)
