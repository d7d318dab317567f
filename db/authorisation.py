"""Authorisations under way: the `state` a person takes along to Pipedrive and brings back, once and within minutes."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Integer, delete, func
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created

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
