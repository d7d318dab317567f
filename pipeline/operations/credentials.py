"""Credentials of a connector: show, check and replace them on both sides. No answer contains a secret."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel

from db import connector as connectors
from db.authorisation import connection_of
from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Role
from pipeline.domain.reasons import REASONS, advice_of, meaning_of
from pipeline.errors import PipelineError
from pipeline.operations.call import Call
from pipeline.operations.models import ConnectorRequest, Done, NoRequest, Secret, Shape
from pipeline.operations.registry import operation
from pipeline.settings import settings
from pipeline.sync import definitions
from pipeline.sync.connectors import authorisation, setup
from pipeline.sync.connectors.company import read_company

PATH: Final = "/connectors/<connector>/credentials"
DEADLINE_S: Final = 10.0
"""Deadline of each call: a person waits for the answer."""


class ConnectionShape(Shape):
    """How the connector is connected to Pipedrive: `how` is `oauth`, `api_token` or null."""

    how: str | None
    company_id: int | None
    user_id: int | None
    expires_at: datetime | None


class CredentialsAnswer(Shape):
    """`kept`: name of each secret → when it was last stored; the app at Pipedrive must list `callback_url` and `scopes`."""

    connection: ConnectionShape
    company: str
    kept: dict[str, datetime]
    has_app: bool
    callback_url: str
    scopes: list[str]


class CredentialCheckShape(Shape):
    """The result for one system; `trouble` is a reason code, empty if the credentials work."""

    system: str
    sentence: str
    trouble: str
    advice: str


class ChecksAnswer(BaseModel):
    checks: list[CredentialCheckShape]


class NewSecret(ConnectorRequest):
    secret: Secret


class TokenReplaced(Done):
    """`warning` is the error if Pipedrive's fields could not be read with the new token; otherwise empty."""

    warning: str


class InvitationAnswer(BaseModel):
    """A link for an administrator of Pipedrive; valid for ten minutes, in the first browser that uses it.

    The app at Pipedrive must list `callback_url` and `scopes`.
    """

    link: str
    expires_in_s: int
    callback_url: str
    scopes: list[str]


class RotatedAnswer(BaseModel):
    renewed: int
    keys_no_longer_needed: int


@operation(f"GET {PATH}", role=Role.VIEWER, command="credentials show CONNECTOR")
def show_credentials(call: Call, _request: ConnectorRequest) -> CredentialsAnswer:
    """Show how a connector is connected on both sides, without secrets."""
    with transaction() as session:
        connection = connection_of(session, call.connector)
        kept = connectors.credentials_given(session, call.connector.key)
    chosen = settings()
    return CredentialsAnswer(
        connection=ConnectionShape.model_validate(connection),
        company=urlsplit(call.connector.pipedrive_company or "").netloc,
        kept=kept,
        has_app=bool(chosen.pipedrive_client_id and chosen.pipedrive_client_secret),
        callback_url=_callback_url(),
        scopes=list(authorisation.SCOPES),
    )


@operation(f"POST {PATH}/check", role=Role.ADMIN, changes=False, command="credentials check CONNECTOR")
def check_credentials(call: Call, _request: ConnectorRequest) -> ChecksAnswer:
    """Check now whether both systems accept the credentials. Costs 2 tokens of Pipedrive's daily budget."""
    try:
        with transaction() as session:
            wired = wiring.open_connector(session, call.connector.key, deadline_s=DEADLINE_S)
    except PipelineError as error:
        return ChecksAnswer(checks=[_trouble("Hull", error)])
    return ChecksAnswer(
        checks=[
            _check("Hull", lambda: f"Hull accepts the secret of connector {_title(wired.hull.app())}."),
            _check("Pipedrive", lambda: _user_and_company(wired.pipedrive.me())),
        ]
    )


@operation(
    f"PUT {PATH}/hull",
    role=Role.ADMIN,
    audit_action="credentials.hull",
    command="credentials replace-hull-secret CONNECTOR",
    example="acme --secret-file hull.secret",
)
def put_hull_secret(call: Call, request: NewSecret) -> Done:
    """Replace the connector's Hull secret after Hull has accepted the new one."""
    proven = setup.prove_credentials(call.connector, hull_secret=request.secret)
    with call.transaction() as session:
        setup.store_credentials(session, call.connector.key, proven)
    return Done(done="replaced")


@operation(
    f"PUT {PATH}/pipedrive",
    role=Role.ADMIN,
    audit_action="credentials.pipedrive_token",
    command="credentials replace-api-token CONNECTOR",
    example="acme --secret-file pipedrive.token",
)
def put_api_token(call: Call, request: NewSecret) -> TokenReplaced:
    """Connect to Pipedrive with an API token after Pipedrive has accepted it."""
    proven = setup.prove_credentials(call.connector, pipedrive_token=request.secret)
    with call.transaction() as session:
        setup.store_credentials(session, call.connector.key, proven)
    return TokenReplaced(done="replaced", warning=definitions.ensure_fields_known(call.connector.key))


@operation(
    f"POST {PATH}/invite",
    role=Role.ADMIN,
    audit_action="credentials.invite",
    command="connectors authorize CONNECTOR",
)
def invite(call: Call, _request: ConnectorRequest) -> InvitationAnswer:
    """Create a link with which an administrator of Pipedrive authorises the connector.

    The administrator opens it, presses the button, signs in to Pipedrive and agrees. Reconnecting to the same company
    keeps the settings and ends a pause that lost access had caused. Credentials in Hull's dashboard does the same.
    """
    link = authorisation.invite(call.connector)
    with call.transaction():
        pass  # write only the audit entry: the link contains everything it needs
    return InvitationAnswer(
        link=link,
        expires_in_s=int(authorisation.INVITATION_S),
        callback_url=_callback_url(),
        scopes=list(authorisation.SCOPES),
    )


@operation("", role=Role.ADMIN, audit_action="secrets.renew", command="rotate-keys")
def rotate_keys(call: Call, _request: NoRequest) -> RotatedAnswer:
    """Encrypt every stored secret again with the first of SECRET_KEYS.

    First put the new key before the old one and restart everything; then run this; then remove the old key.
    """
    with call.transaction("secrets") as session:
        renewed = setup.renew_secrets(session)
    return RotatedAnswer(renewed=renewed, keys_no_longer_needed=len(settings().secret_keys) - 1)


def _callback_url() -> str:
    return f"{settings().public_url}/auth/callback"


def _check(system: str, ask: Callable[[], str]) -> CredentialCheckShape:
    try:
        return CredentialCheckShape(system=system, sentence=ask(), trouble="", advice="")
    except PipelineError as error:
        return _trouble(system, error)


def _trouble(system: str, error: PipelineError) -> CredentialCheckShape:
    sentence = meaning_of(error.reason) if error.reason in REASONS else str(error)
    return CredentialCheckShape(system=system, sentence=sentence, trouble=error.reason, advice=advice_of(error.reason))


def _title(app: dict[str, Any]) -> str:
    name = app.get("name")
    return name if isinstance(name, str) else str(app.get("id"))


def _user_and_company(me: dict[str, Any]) -> str:
    company = read_company(me)
    user = "an administrator" if company.is_administrator else "not an administrator"
    host = urlsplit(company.origin).netloc
    return f"Pipedrive accepts the credentials of user {company.user_id} of {host}, {user}."
