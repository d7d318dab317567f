"""Authorisations: the `state` a person takes along to Pipedrive and brings back, once and within minutes, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ForeignKey, Integer, delete, func, or_, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created
from db.connector import ACCESS_TOKEN, API_TOKEN, REFRESH_TOKEN, Connector, Credential

LIFETIME_S = 600


class OAuthState(Base):
    """digest  of the state, so that whoever reads this table cannot finish what somebody else began"""

    __tablename__ = "oauth_states"

    digest: Mapped[str] = mapped_column(primary_key=True)
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    created_at: Mapped[Created]


def keep_state(session: Session, connector_key: int, digest: str) -> None:
    """Remember that an authorisation of this connector was begun; what is past its time is forgotten."""
    old = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, LIFETIME_S)
    session.execute(delete(OAuthState).where(OAuthState.created_at < old))
    session.add(OAuthState(digest=digest, connector_key=connector_key))
    session.flush()


def take_state(session: Session, digest: str) -> int | None:
    """The connector whose authorisation was begun under this state, which is used up now; None for any other state."""
    fresh = OAuthState.created_at >= func.now() - func.make_interval(0, 0, 0, 0, 0, 0, LIFETIME_S)
    return session.scalar(
        delete(OAuthState).where(OAuthState.digest == digest, fresh).returning(OAuthState.connector_key)
    )


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
