"""OAuth authorisations in progress: each row is a `state` that a browser takes to Pipedrive and returns within minutes.

An invitation is for one browser. At most one row has the invitation, so the database decides which browser was first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, Integer, LargeBinary, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, changed_rows
from db.connector import ACCESS_TOKEN, API_TOKEN, REFRESH_TOKEN, Connector, Credential

LIFETIME_S = 600
CLAIM_S = 60
"""Longer than an exchange of a code and a call take together."""
KEPT_S = 2 * LIFETIME_S
"""Rows are kept longer than they are valid, so that clock differences do not make a used invitation valid again."""
REFUSED = "refused"
"""Value of `callback` after a refusal: it is no digest, so no callback equals it."""


class OAuthState(Base):
    """One authorisation.

    digest        of the state, so that a reader of this table cannot complete the authorisation of another user
    browser       digest of the cookie of the browser where it began
    invitation    digest of the invitation; None if it began with Hull's credentials
    callback      digest of the callback's query, once received: a callback with another query is refused
    claimed_at    since when a process completes it; after CLAIM_S another process may
    sealed_grant  the tokens of its code, encrypted, until they are stored: a code is valid once
    finished_at   when it connected the connector: a repeated callback gets the same answer
    """

    __tablename__ = "oauth_states"

    digest: Mapped[str] = mapped_column(primary_key=True)
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    created_at: Mapped[Created]
    browser: Mapped[str | None]
    invitation: Mapped[str | None] = mapped_column(unique=True)
    callback: Mapped[str | None]
    claimed_at: Mapped[datetime | None]
    sealed_grant: Mapped[bytes | None] = mapped_column(LargeBinary)
    finished_at: Mapped[datetime | None]


@dataclass(frozen=True, slots=True)
class Begun:
    """An authorisation from which the user has returned.

    is_same_browser  False: it began in another browser, and nothing was claimed
    is_mine          it is not finished, and no other process finishes it
    """

    connector_key: int
    is_same_browser: bool = True
    is_mine: bool = False
    is_finished: bool = False
    sealed_grant: bytes | None = None


def keep_state(
    session: Session, connector_key: int, digest: str, *, browser: str, invitation: str | None = None
) -> bool:
    """Store that this browser began an authorisation. Return False if another browser used the invitation, or it is finished.

    The browser that used an invitation first may begin again until it is finished. This is one statement: if two browsers open an
    invitation at the same moment, the database accepts one.
    """
    drop_old_states(session)
    row = {"digest": digest, "connector_key": connector_key, "browser": browser, "invitation": invitation}
    begun = insert(OAuthState).values(row)
    claim_ended = OAuthState.claimed_at < func.now() - timedelta(seconds=CLAIM_S)
    again = begun.on_conflict_do_update(
        index_elements=[OAuthState.invitation],
        set_={
            "digest": begun.excluded.digest,
            "created_at": func.now(),
            "callback": None,
            "claimed_at": None,
            "sealed_grant": None,
        },
        where=and_(
            OAuthState.browser == begun.excluded.browser,
            OAuthState.finished_at.is_(None),
            or_(OAuthState.claimed_at.is_(None), claim_ended),
        ),
    )
    return session.scalar(again.returning(OAuthState.digest)) is not None


def is_used(session: Session, invitation: str, browser: str) -> bool:
    """Return whether another browser used an invitation, or it is finished."""
    mine = select(OAuthState.browser, OAuthState.finished_at).where(OAuthState.invitation == invitation)
    row = session.execute(mine).one_or_none()
    return row is not None and (row.browser != browser or row.finished_at is not None)


def drop_old_states(session: Session) -> int:
    """Delete rows past KEPT_S; return how many."""
    return changed_rows(
        session, delete(OAuthState).where(OAuthState.created_at < func.now() - timedelta(seconds=KEPT_S))
    )


def claim_state(session: Session, digest: str, callback: str, browser: str) -> Begun | None:
    """Claim the authorisation of a state for the callback of this digest.

    Return None if the state is unknown, is too old, or was returned with another callback before. Another browser claims nothing.
    """
    now = func.now()
    fresh = OAuthState.created_at >= now - timedelta(seconds=LIFETIME_S)
    mine = select(OAuthState).where(OAuthState.digest == digest, fresh).with_for_update()
    row = session.scalar(mine.execution_options(populate_existing=True))
    if row is None:
        return None
    if row.browser != browser:
        return Begun(row.connector_key, is_same_browser=False)
    if row.callback is not None and row.callback != callback:
        return None
    claimed_until = None if row.claimed_at is None else row.claimed_at + timedelta(seconds=CLAIM_S)
    is_free = claimed_until is None or claimed_until < session.execute(select(now)).scalar_one()
    is_mine = row.finished_at is None and is_free
    if is_mine:
        row.callback, row.claimed_at = callback, now
    is_finished = row.finished_at is not None
    return Begun(row.connector_key, is_mine=is_mine, is_finished=is_finished, sealed_grant=row.sealed_grant)


def keep_sealed_grant(session: Session, digest: str, sealed: bytes) -> None:
    session.execute(update(OAuthState).where(OAuthState.digest == digest).values(sealed_grant=sealed))


def release_state(session: Session, digest: str) -> None:
    """End the claim of an authorisation that failed, so that the same callback may continue it."""
    session.execute(update(OAuthState).where(OAuthState.digest == digest).values(claimed_at=None))


def finish_state(session: Session, digest: str) -> bool:
    """Store that an authorisation connected the connector; return False if its row was deleted: then nothing may be connected."""
    mine = update(OAuthState).where(OAuthState.digest == digest)
    return changed_rows(session, mine.values(finished_at=func.now(), claimed_at=None, sealed_grant=None)) == 1


def drop_state(session: Session, digest: str) -> None:
    """End an authorisation that was refused permanently. The browser that used its invitation may begin again."""
    mine = OAuthState.digest == digest
    session.execute(delete(OAuthState).where(mine, OAuthState.invitation.is_(None)))
    session.execute(update(OAuthState).where(mine).values(callback=REFUSED, claimed_at=None, sealed_grant=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connector's access to Pipedrive.

    how         `oauth`, `api_token` or None
    user_id     Pipedrive's id of the user who authorised the app; known for OAuth only
    expires_at  of the access token, which is renewed before; None without one
    """

    how: str | None
    company_id: int | None
    user_id: int | None
    expires_at: datetime | None


def connection_of(session: Session, connector: Connector) -> Connection:
    """Return how a connector is connected to Pipedrive."""
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
    """Return the connectors of a company that are connected by OAuth, by this user if both users are known."""
    by_oauth = select(Credential.connector_key).where(Credential.name == REFRESH_TOKEN)
    query = select(Connector).where(Connector.company_id == company_id, Connector.key.in_(by_oauth))
    if user_id is not None:
        query = query.where(or_(Connector.authorised_by == user_id, Connector.authorised_by.is_(None)))
    return list(session.scalars(query.order_by(Connector.key)))
