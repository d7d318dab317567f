"""Authorise a connector in Pipedrive: a person is redirected there, returns, and the connector continues.

    begin → the person at Pipedrive → finish          withdraw: the app was uninstalled there

The person must return in the same browser: a callback in another browser connects nothing, so that no one can be
tricked into completing another person's authorisation. An invitation is used by the button on its page,
not by opening it, because link previews open it too. From then on only that browser may continue, or begin again, until
the connector is connected.

The connector is not changed before the access is verified. A refused access changes nothing, and is not revoked at
Pipedrive: that would also end the access of another connector of the same user. A callback may be delivered twice, and
retried after a temporary error: the tokens of its code are kept, encrypted, until then.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import parse_qs

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from structlog.contextvars import bound_contextvars

from db import authorisation
from db import connector as connectors
from db.authorisation import Begun
from db.connector import ACCESS_TOKEN, API_TOKEN, REFRESH_TOKEN, Connector
from db.schedule import request_catch_up
from db.session import transaction
from pipeline import wiring
from pipeline.clients.oauth import Grant
from pipeline.domain.kinds import Direction
from pipeline.errors import ConfigurationError, PipelineError, Retryable
from pipeline.settings import settings
from pipeline.sync.connectors.company import Company, join, read_company
from pipeline.sync.connectors.setup import end_pause, wake_work
from pipeline.sync.stage import pause_connector
from pipeline.telemetry import logger
from pipeline.vault import Vault

STATE_BYTES = 32
SCOPES: Final = ("base", "contacts:full", "admin")
"""Scopes that the app must request: the connected user; Persons and Organizations with their fields; webhooks.
Source: https://pipedrive.readme.io/docs/marketplace-scopes-and-permissions-explanations
"""
ALWAYS_GRANTED: Final = "base"
"""Not every answer lists this scope; the call for the connected user proves it."""
SEALED_GRANT: Final = "oauth_grant"
INVITATION: Final = "authorise"
INVITATION_S = authorisation.LIFETIME_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorised:
    """The result. `waits_for` is the reason of a pause that credentials do not end."""

    connector: str
    company: str
    user_id: int | None
    waits_for: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A valid link. `digest` names it in the database."""

    connector_key: int
    connector: str
    digest: str


def begin(connector_key: int, browser: str, invitation: Invitation | None = None) -> str:
    """Return the address of Pipedrive's page, with a state that is valid once and for ten minutes.

    browser     the secret in the cookie of the person's browser
    invitation  is marked as used; None for a person with Hull's credentials
    Raises: ConfigurationError("app_missing"); ConfigurationError("invitation_used") if another browser used the invitation, or
        the connector was connected with it.
    """
    client = wiring.oauth_client(connector_key)
    state = secrets.token_urlsafe(STATE_BYTES)
    digest = invitation.digest if invitation is not None else None
    with transaction() as session:
        is_kept = authorisation.keep_state(
            session, connector_key, _digest(state), browser=_digest(browser), invitation=digest
        )
    if not is_kept:
        raise ConfigurationError("invitation_used")
    return client.authorize_url(state)


def new_browser() -> str:
    """Return a secret for the cookie of a browser that has none."""
    return secrets.token_urlsafe(STATE_BYTES)


def invite(connector: Connector) -> str:
    """Return a link for a person without Hull's credentials: valid for ten minutes, for the first browser that uses it.

    Raises: ConfigurationError("app_missing").
    """
    wiring.oauth_client(connector.key)
    secret = f"{connector.id} {secrets.token_urlsafe(STATE_BYTES)}"
    sealed = Vault(settings().secret_keys).seal(connector.key, INVITATION, secret)
    return f"{settings().public_url}/auth/pipedrive?connector={connector.id}&invitation={sealed.decode()}"


def find_invitation(connector_id: str, invitation: str) -> Invitation | None:
    """Return the invitation of this link, which may have been used; None if it is not ours, or too old."""
    if not (connector_id.isprintable() and invitation.isascii()):
        return None
    with transaction() as session:
        connector = connectors.find_connector(session, connector_id)
    if connector is None:
        return None
    vault = Vault(settings().secret_keys)
    try:
        secret = vault.open(connector.key, INVITATION, invitation.encode(), max_age_s=INVITATION_S)
    except ConfigurationError:
        return None
    if secret.partition(" ")[0] != connector.id:
        return None
    # What was sealed names it: the same ciphertext may be written in several ways.
    return Invitation(connector_key=connector.key, connector=connector.name, digest=_digest(secret))


def require_unused(invitation: Invitation, browser: str) -> None:
    """Raises: ConfigurationError("invitation_used") when this browser cannot begin by it."""
    with transaction() as session:
        if authorisation.is_used(session, invitation.digest, _digest(browser)):
            raise ConfigurationError("invitation_used")


def finish(query: str, browser: str) -> Authorised:
    """Complete an authorisation with the parameters of Pipedrive's redirect.

    query    of the callback URL
    browser  the secret in the cookie of their browser; empty without one
    The settings are not changed. Waiting work continues, webhooks are checked and a fetch begins immediately.
    Raises: ConfigurationError, Rejected or Retryable with a reason; SQLAlchemyError. After
    Retryable and SQLAlchemyError the same query can be used again, and continues where it stopped.
    """
    given = parse_qs(query).get("state", [""])
    digest = _digest(given[0])
    with transaction() as session:
        begun = (
            authorisation.claim_state(session, digest, _digest(query), _digest(browser)) if len(given) == 1 else None
        )
    if begun is None:
        raise ConfigurationError("authorisation_expired")
    if not begun.is_same_browser:
        raise ConfigurationError("other_browser")
    if begun.is_finished:
        with transaction() as session:
            return _result(connectors.get_connector(session, begun.connector_key))
    if not begun.is_mine:
        raise Retryable("authorisation_in_progress")
    try:
        return _finish(begun, digest, query)
    except (Retryable, SQLAlchemyError):
        with suppress(SQLAlchemyError), transaction() as session:  # otherwise it expires after a minute
            authorisation.release_state(session, digest)
        raise
    except PipelineError:
        with transaction() as session:
            authorisation.drop_state(session, digest)
        raise


def _finish(begun: Begun, digest: str, query: str) -> Authorised:
    connector_key = begun.connector_key
    grant = _grant(begun, digest, query)
    _require_scopes(grant)
    company = read_company(wiring.try_grant(connector_key, grant).me())
    if not company.is_administrator:
        raise ConfigurationError("not_administrator")
    connector = _keep_for_sure(connector_key, digest, grant, company)
    logger().info(
        "connector.authorised", connector_id=connector.id, company_id=company.id, pipedrive_user_id=company.user_id
    )
    wake_work()
    return _result(connector)


def _result(connector: Connector) -> Authorised:
    return Authorised(
        connector=connector.name,
        company=str(connector.pipedrive_company),
        user_id=connector.authorised_by,
        waits_for=connector.pause_reason if connector.state == "paused" else None,
    )


def _grant(begun: Begun, digest: str, query: str) -> Grant:
    """Return the tokens of the code: exchanged now, or by an earlier attempt. They are stored immediately, because a
    code works once."""
    vault = Vault(settings().secret_keys)
    if begun.sealed_grant is not None:
        held = json.loads(vault.open(begun.connector_key, SEALED_GRANT, begun.sealed_grant))
        return Grant(**held | {"scopes": None if held["scopes"] is None else frozenset(held["scopes"])})
    grant = wiring.oauth_client(begun.connector_key).exchange(query)
    held = asdict(grant) | {"scopes": None if grant.scopes is None else sorted(grant.scopes)}
    with transaction() as session:
        authorisation.keep_sealed_grant(
            session, digest, vault.seal(begun.connector_key, SEALED_GRANT, json.dumps(held))
        )
    return grant


def _keep_for_sure(connector_key: int, digest: str, grant: Grant, company: Company) -> Connector:
    """Retry immediately after a conflict with another transaction, such as a deadlock."""
    for is_last in (False, False, True):
        try:
            with transaction() as session:
                connector = _keep(session, connector_key, grant, company)
                end_pause(session, connector, "pipedrive")
                request_catch_up(session, connector_key)  # so that it shows within minutes that data flows again
                if not authorisation.finish_state(session, digest):
                    raise ConfigurationError("authorisation_expired")
                return connector
        except OperationalError as failed:
            logger().warning("connector.authorisation.again", error=type(failed.orig).__name__)
            if is_last:
                raise
    raise AssertionError("the last attempt returns or raises")


def withdraw(company_id: int, user_id: int | None) -> list[str]:
    """Pause the connectors of a user who uninstalled the app in this company; return their ids.

    The tokens stay: they are invalid, unless the message is older than a new authorisation.
    """
    with transaction() as session:
        found = authorisation.authorised_connectors(session, company_id, user_id)
        for connector in found:
            with bound_contextvars(connector_id=connector.id):
                pause_connector(session, connector.key, Direction.INCOMING, ConfigurationError("uninstalled"))
    return [connector.id for connector in found]


def is_known_app(client_id: str, client_secret: str) -> bool:
    """Return whether these are the credentials of this installation's app, compared in constant time."""
    chosen = settings()
    if not (chosen.pipedrive_client_id and chosen.pipedrive_client_secret):
        return False
    ours = f"{chosen.pipedrive_client_id}:{chosen.pipedrive_client_secret}".encode()
    return secrets.compare_digest(ours, f"{client_id}:{client_secret}".encode("utf-8", "surrogatepass"))


def _require_scopes(grant: Grant) -> None:
    """Raises: ConfigurationError("scope_missing"). An answer without scopes is accepted: a call without a scope gets a 403."""
    if grant.scopes is None:
        return
    if missing := [scope for scope in SCOPES if scope not in grant.scopes | {ALWAYS_GRANTED}]:
        raise ConfigurationError("scope_missing", ", ".join(missing))


def _keep(session: Session, connector_key: int, grant: Grant, company: Company) -> Connector:
    # No other worker renews the old tokens at the same time.
    connectors.lock_credentials(session, connector_key, ACCESS_TOKEN, REFRESH_TOKEN)
    connector = connectors.lock_connector(session, connector_key)
    join(connector, company)
    connector.pipedrive_company = wiring.granted_origin(grant) or company.origin
    connector.authorised_by = company.user_id
    wiring.keep_grant(session, connector_key, grant)
    connectors.drop_credentials(session, connector_key, API_TOKEN)
    return connector


def _digest(state: str) -> str:
    return hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()
