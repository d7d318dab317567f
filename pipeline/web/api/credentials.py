"""Credentials of a connector: how it is let into both systems, whether that works, and others. Secrets are only ever taken."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from flask import Response
from pydantic import BaseModel, Field

from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight import connections
from pipeline.sync.connectors import authorisation, field_lists, setup
from pipeline.web.api.door import Operations, answer
from pipeline.web.api.shapes import Asked, Done, OfConnector, Shape, find
from pipeline.web.console.guard import who

Secret = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[!-~]+$", description="Never shown again.")]


class ConnectionShape(Shape):
    """How Pipedrive lets us in: by `oauth`, by an `api_token`, or not."""

    how: str | None
    company_id: int | None
    user_id: int | None
    expires_at: datetime | None


class CredentialsAnswer(Shape):
    """`kept` tells when each secret was last given; `callback_url` and `scopes` are what the app at Pipedrive must name."""

    connection: ConnectionShape
    company: str
    kept: dict[str, datetime]
    has_app: bool
    callback_url: str
    scopes: list[str]


class CheckedShape(Shape):
    """What one system said; `trouble` is a reason code, and empty where all is well."""

    system: str
    sentence: str
    trouble: str
    advice: str


class ChecksAnswer(BaseModel):
    checks: list[CheckedShape]


class NewSecret(Asked):
    secret: Secret


class InvitationAnswer(BaseModel):
    """A link for an administrator of Pipedrive; good for ten minutes, in the first browser that uses it."""

    link: str


def add(operations: Operations) -> None:
    base = "/connectors/<connector>/credentials"
    operations.get(base, show_credentials, CredentialsAnswer)
    operations.post(f"{base}/check", check_credentials, ChecksAnswer, needs=Role.ADMIN, changes=False)
    operations.put(f"{base}/hull", put_hull_secret, Done)
    operations.put(f"{base}/pipedrive", put_api_token, Done)
    operations.post(f"{base}/invite", invite, InvitationAnswer, needs=Role.ADMIN)


def show_credentials(path: OfConnector) -> Response:
    """Show how a connector is connected on both sides; never a secret."""
    connector = find(path)
    with transaction() as session:
        return answer(CredentialsAnswer.model_validate(connections.entrances(session, connector)))


def check_credentials(path: OfConnector) -> Response:
    """Ask both systems now whether they accept the credentials; 2 tokens of Pipedrive's day."""
    found = connections.check_credentials(find(path).key)
    return answer(ChecksAnswer(checks=[CheckedShape.model_validate(each) for each in found]))


def put_hull_secret(path: OfConnector, body: NewSecret) -> Response:
    """Replace the connector's secret of Hull, once Hull has accepted it."""
    connector = find(path)
    setup.change_credentials(connector, hull_secret=body.secret)
    connections.note(connector.key, who().name, "credentials.hull")
    return answer(Done(done="replaced"))


def put_api_token(path: OfConnector, body: NewSecret) -> Response:
    """Connect to Pipedrive by an API token, once Pipedrive has accepted it."""
    connector = find(path)
    setup.change_credentials(connector, pipedrive_token=body.secret)
    connections.note(connector.key, who().name, "credentials.pipedrive_token")
    field_lists.see_that_known(connector.key)
    return answer(Done(done="replaced"))


def invite(path: OfConnector) -> Response:
    """Make a link by which an administrator of Pipedrive authorises the connector."""
    connector = find(path)
    link = authorisation.invite(connector)
    connections.note(connector.key, who().name, "credentials.invite")
    return answer(InvitationAnswer(link=link))
