"""API keys: scripts use `/api/v1` with them for an operator. Only their digests are stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CursorResult,
    ForeignKey,
    LargeBinary,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId
from db.operator import Operator

USED_EVERY_S: Final = 60
"""How often the use of a key is written down."""
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
    """Find a key that has not expired, of an active operator; note its use."""
    is_due = or_(ApiKey.used_at.is_(None), ApiKey.used_at < _ago(USED_EVERY_S))
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
    """Delete every key of an operator; returns how many."""
    return cast("CursorResult[Any]", session.execute(delete(ApiKey).filter_by(operator_id=operator_id))).rowcount


def delete_expired_keys(session: Session) -> int:
    """Delete keys that expired a month ago: until then lists show why a script stopped. Returns how many."""
    gone = delete(ApiKey).where(ApiKey.expires_at < _ago(KEPT_EXPIRED_DAYS * 86_400))
    return cast("CursorResult[Any]", session.execute(gone)).rowcount


def _ago(seconds: float) -> ColumnElement[datetime]:
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
