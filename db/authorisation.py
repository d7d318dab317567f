"""Authorisations: the `state` a person takes along to Pipedrive and brings back, once and within minutes, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, ForeignKey, Integer, LargeBinary, delete, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created
from db.connector import ACCESS_TOKEN, API_TOKEN, REFRESH_TOKEN, Connector, Credential

LIFETIME_S = 600
CLAIM_S = 60
"""Longer than finishing takes: an exchange and a question, of which each ends after some seconds."""


class OAuthState(Base):
    """digest       of the state, so that whoever reads this table cannot finish what somebody else began
    callback     digest of what the person came back with, once they have: with nothing else does it go on
    claimed_at   since when somebody finishes it; it goes on after CLAIM_S, should that process have died
    sealed_grant what the code was exchanged for, encrypted, until it is kept: a code is good once
    finished_at  when the connector was connected by it: a second delivery of the same callback is told so
    """

    __tablename__ = "oauth_states"

    digest: Mapped[str] = mapped_column(primary_key=True)
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    created_at: Mapped[Created]
    callback: Mapped[str | None]
    claimed_at: Mapped[datetime | None]
    sealed_grant: Mapped[bytes | None] = mapped_column(LargeBinary)
    finished_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """An authorisation that a person came back from. `is_mine`: nobody else finishes it, and it is not finished."""

    connector_key: int
    is_mine: bool
    is_finished: bool
    sealed_grant: bytes | None


def keep_state(session: Session, connector_key: int, digest: str) -> None:
    """Remember that an authorisation of this connector was begun; what is past its time is forgotten."""
    drop_old_states(session)
    session.add(OAuthState(digest=digest, connector_key=connector_key))
    session.flush()


def drop_old_states(session: Session) -> int:
    """Delete what is past its time; return how many."""
    old = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, LIFETIME_S)
    gone = session.execute(delete(OAuthState).where(OAuthState.created_at < old))
    return cast("CursorResult[Any]", gone).rowcount


def claim_state(session: Session, digest: str, callback: str) -> Begun | None:
    """Claim what was begun under this state for the callback of this digest; None for a state that is not ours, too old, or
    was brought back with something else before."""
    now = func.now()
    fresh = OAuthState.created_at >= now - func.make_interval(0, 0, 0, 0, 0, 0, LIFETIME_S)
    mine = select(OAuthState).where(OAuthState.digest == digest, fresh).with_for_update()
    row = session.scalar(mine.execution_options(populate_existing=True))
    if row is None or (row.callback is not None and row.callback != callback):
        return None
    claimed_until = None if row.claimed_at is None else row.claimed_at + timedelta(seconds=CLAIM_S)
    is_free = claimed_until is None or claimed_until < session.execute(select(now)).scalar_one()
    is_mine = row.finished_at is None and is_free
    if is_mine:
        row.callback, row.claimed_at = callback, now
    return Begun(
        connector_key=row.connector_key,
        is_mine=is_mine,
        is_finished=row.finished_at is not None,
        sealed_grant=row.sealed_grant,
    )


def keep_sealed_grant(session: Session, digest: str, sealed: bytes) -> None:
    session.execute(update(OAuthState).where(OAuthState.digest == digest).values(sealed_grant=sealed))


def release_state(session: Session, digest: str) -> None:
    """It did not come to its end: the same callback may go on from here."""
    session.execute(update(OAuthState).where(OAuthState.digest == digest).values(claimed_at=None))


def finish_state(session: Session, digest: str) -> None:
    """The connector is connected by it."""
    mine = update(OAuthState).where(OAuthState.digest == digest)
    session.execute(mine.values(finished_at=func.now(), claimed_at=None, sealed_grant=None))


def drop_state(session: Session, digest: str) -> None:
    """It was refused for good."""
    session.execute(delete(OAuthState).where(OAuthState.digest == digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a connector is let into Pipedrive.

    how         `oauth`, `api_token` or None
    user_id     Pipedrive's number of who authorised us; known of OAuth only
    expires_at  of the access token, which is renewed before; None without one
    """

    how: str | None
    company_id: int | None
    user_id: int | None
    expires_at: datetime | None


def connection_of(session: Session, connector: Connector) -> Connection:
    """How this connector is connected, if it is."""
    mine = select(Credential.name, Credential.expires_at).filter_by(connector_key=connector.key)
    expiry = {row.name: row.expires_at for row in session.execute(mine)}
    how = "oauth" if REFRESH_TOKEN in expiry else "api_token" if API_TOKEN in expiry else None
    return Connection(
        how=how,
        company_id=connector.company_id,
        user_id=connector.authorised_by if how == "oauth" else None,
        expires_at=expiry.get(ACCESS_TOKEN) if how == "oauth" else None,
    )


def authorised_connectors(session: Session, company_id: int, user_id: int | None) -> list[Connector]:
    """The connectors of a company that are connected by OAuth, by this user where both sides know who it was."""
    by_oauth = select(Credential.connector_key).where(Credential.name == REFRESH_TOKEN)
    query = select(Connector).where(Connector.company_id == company_id, Connector.key.in_(by_oauth))
    if user_id is not None:
        query = query.where(or_(Connector.authorised_by == user_id, Connector.authorised_by.is_(None)))
    return list(session.scalars(query.order_by(Connector.key)))
