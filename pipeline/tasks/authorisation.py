"""Authorising a connector in Pipedrive: a person is sent there, comes back, and the connector goes on.

    begin → the person at Pipedrive → finish          withdraw: the app was uninstalled there

Nothing is stored before it is known whose access it is. What is refused was not changed, and the access Pipedrive gave is
left to it: taking it back would also end that of another connector of the same user.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from sqlalchemy.orm import Session
from structlog.contextvars import bound_contextvars

from db import authorisation
from db import connector as connectors
from db.connector import ACCESS_TOKEN, API_TOKEN, REFRESH_TOKEN, Connector
from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Direction
from pipeline.errors import ConfigurationError
from pipeline.settings import settings
from pipeline.tasks.company import Company, join, read_company
from pipeline.tasks.schedules import request_catch_up
from pipeline.tasks.setup import go_on, heal
from pipeline.tasks.stage import pause_connector
from pipeline.telemetry import logger
from pipeline.vault import Vault
from pipeline.wiring import Grant

STATE_BYTES = 32
SCOPES: Final = ("base", "contacts:full", "admin")
"""What the app must ask for: who is connected; Persons and Organizations with their fields; webhooks.
Source: https://pipedrive.readme.io/docs/marketplace-scopes-and-permissions-explanations"""
ALWAYS_GRANTED: Final = "base"
"""Not every answer lists it; that we may ask who is connected proves it."""
INVITATION: Final = "authorise"
INVITATION_S = authorisation.LIFETIME_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorised:
    """What came of it. `waits_for` is the reason of a pause that credentials do not end."""

    connector: str
    company: str
    user_id: int | None
    waits_for: str | None


def begin(connector_key: int) -> str:
    """Where to send the person: Pipedrive's page, with a state that is good once and for ten minutes.

    Raises: ConfigurationError("app_missing").
    """
    client = wiring.oauth_client(connector_key)
    state = secrets.token_urlsafe(STATE_BYTES)
    with transaction() as session:
        authorisation.keep_state(session, connector_key, _digest(state))
    return client.authorize_url(state)


def invite(connector: Connector) -> str:
    """A link to `begin` for a person whom Hull does not vouch for; good for ten minutes, by anybody who has it.

    Raises: ConfigurationError("app_missing").
    """
    wiring.oauth_client(connector.key)
    sealed = Vault(settings().secret_keys).seal(connector.key, INVITATION, connector.id)
    return f"{settings().public_url}/auth/pipedrive?connector={connector.id}&invitation={sealed.decode()}"


def invited(connector_id: str, invitation: str) -> int | None:
    """The key of the connector that somebody was invited to authorise; None when the invitation is not ours, or too old."""
    if not (connector_id.isprintable() and invitation.isascii()):
        return None
    with transaction() as session:
        connector = connectors.find_connector(session, connector_id)
    if connector is None:
        return None
    vault = Vault(settings().secret_keys)
    try:
        named = vault.open(connector.key, INVITATION, invitation.encode(), max_age_s=INVITATION_S)
    except ConfigurationError:
        return None
    return connector.key if named == connector.id else None


def finish(query: str) -> Authorised:
    """Take up what a person came back from Pipedrive with: the query of the callback URL.

    The settings stay as they are. Waiting work goes on, webhooks are looked at and a fetch begins at once.
    Raises: ConfigurationError, Rejected or Retryable, whose reasons say what the person can do.
    """
    connector_key = _take_state(query)
    grant = wiring.oauth_client(connector_key).exchange(query)
    _require_scopes(grant)
    company = read_company(wiring.try_grant(connector_key, grant).me())
    if not company.is_administrator:
        raise ConfigurationError("not_administrator")
    with transaction() as session:
        connector = _keep(session, connector_key, grant, company)
        heal(session, connector, "pipedrive")
        request_catch_up(session, connector_key)  # so that it shows within minutes that data flows again
    logger().info(
        "connector.authorised", connector_id=connector.id, company_id=company.id, pipedrive_user_id=company.user_id
    )
    go_on()
    return Authorised(
        connector=connector.name,
        company=str(connector.pipedrive_company),
        user_id=company.user_id,
        waits_for=connector.pause_reason if connector.state == "paused" else None,
    )


def withdraw(company_id: int, user_id: int | None) -> list[str]:
    """The app was uninstalled: pause what this user had connected in this company; returns the connectors' ids.

    The tokens are kept: they open nothing any more, unless the message is older than a new authorisation.
    """
    with transaction() as session:
        found = authorisation.authorised_connectors(session, company_id, user_id)
        for connector in found:
            with bound_contextvars(connector_id=connector.id):
                pause_connector(session, connector.key, Direction.INCOMING, ConfigurationError("uninstalled"))
    return [connector.id for connector in found]


def is_known_app(client_id: str, client_secret: str) -> bool:
    """Whether these are the credentials of this installation's app; compared in constant time."""
    chosen = settings()
    if not (chosen.pipedrive_client_id and chosen.pipedrive_client_secret):
        return False
    ours = f"{chosen.pipedrive_client_id}:{chosen.pipedrive_client_secret}".encode()
    return secrets.compare_digest(ours, f"{client_id}:{client_secret}".encode("utf-8", "surrogatepass"))


def _take_state(query: str) -> int:
    """The state is used up by whatever becomes of it. Raises: ConfigurationError("authorisation_expired")."""
    given = parse_qs(query).get("state", [""])
    with transaction() as session:
        connector_key = authorisation.take_state(session, _digest(given[0])) if len(given) == 1 else None
    if connector_key is None:
        raise ConfigurationError("authorisation_expired")
    return connector_key


def _require_scopes(grant: Grant) -> None:
    """An answer that does not tell scopes is believed: a call that needs a missing one is answered with 403."""
    if grant.scopes is None:
        return
    if missing := [scope for scope in SCOPES if scope not in grant.scopes | {ALWAYS_GRANTED}]:
        raise ConfigurationError("scope_missing", ", ".join(missing))


def _keep(session: Session, connector_key: int, grant: Grant, company: Company) -> Connector:
    """Nobody renews the tokens of before meanwhile."""
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
