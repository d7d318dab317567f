"""Connectors: each joins one Hull organization to one Pipedrive company. Show, add, pause, resume, rename and remove them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import batch as batches
from db import connector as rows
from db import failure
from db import run as run_rows
from db.authorisation import connection_of
from db.connector import Connector
from db.session import after_commit, transaction
from pipeline.domain.kinds import Role
from pipeline.domain.names import InvalidName, connector_name
from pipeline.errors import PipelineError
from pipeline.operations.call import Call
from pipeline.operations.condition import judge_condition
from pipeline.operations.errors import invalid
from pipeline.operations.models import ConnectorRequest, Done, FromFile, NoRequest, RequestModel, Secret, Shape, Why
from pipeline.operations.registry import operation
from pipeline.sync.connectors import setup
from pipeline.sync.connectors.webhooks import ensure_webhooks, remove_webhooks
from pipeline.tasks import canvases

BY_HAND: Final = "connector_paused"
"""Pause reason set by an operator; new credentials do not end this pause."""
PATH: Final = "/connectors/<connector>"
Name = Annotated[str, Field(min_length=1, max_length=63, description="The connector's name.")]
HullText = Annotated[str, Field(min_length=1, max_length=255)]


class ConnectorShape(Shape):
    """One Hull organization joined to one Pipedrive company."""

    id: str
    name: str
    hull_organization: str
    pipedrive_company: str | None
    state: str
    pause_reason: str | None
    created_at: datetime


class StatusShape(BaseModel):
    """`status` is `ok`, `warning`, `error` or `setupRequired`; `messages` are sorted by severity, the worst first."""

    status: str
    messages: list[str]
    open_failures: int


class ConnectorAnswer(BaseModel):
    connector: ConnectorShape
    status: StatusShape


class ConnectorAdded(ConnectorAnswer):
    """`webhooks` is `ok`, `not_connected`, or the reason why Pipedrive does not send its changes here yet."""

    webhooks: str


class ConnectorsAnswer(BaseModel):
    connectors: list[ConnectorAnswer]


class NewConnector(RequestModel):
    """The connector's data in Hull. Without an API token, connect Pipedrive afterwards (see the credentials)."""

    name: Name
    hull_organization: Annotated[HullText, Field(description="Its host, such as acme.hullapp.io.")]
    hull_id: Annotated[HullText, Field(description="The connector's id in Hull (24 hex digits).")]
    hull_secret: Annotated[Secret, FromFile()]
    pipedrive_token: Annotated[Secret | None, Field(description="API token; leave it out for OAuth."), FromFile()] = (
        None
    )
    settings: Annotated[
        dict[str, Any] | None, Field(description="First settings; by default those stored in Hull.")
    ] = None


class NewName(ConnectorRequest):
    name: Name


class PauseRequest(ConnectorRequest):
    """`why` is part of the query string, so that no body is needed."""

    why: Why | None = None


class RemovalRequest(ConnectorRequest):
    """`name` repeats the connector's name as confirmation."""

    name: Name
    why: Why | None = None


class Removed(Done):
    """`left` is the error if the webhooks could not be deleted in Pipedrive; otherwise empty."""

    left: str


@operation("GET /connectors", role=Role.VIEWER, command="connectors list")
def list_connectors(call: Call, _request: NoRequest) -> ConnectorsAnswer:
    """List the connectors you may see, with their status."""
    with transaction() as session:
        found = [each for each in rows.all_connectors(session) if call.caller.may_see(each.key)]
        return ConnectorsAnswer(connectors=[_described(session, each) for each in found])


@operation(
    "POST /connectors",
    role=Role.ADMIN,
    audit_action="connector.add",
    command="connectors add NAME",
    example="acme --hull-organization acme.hullapp.io --hull-id 65f000000000000000000001 --hull-secret-file hull.secret",
)
def add_connector(call: Call, request: NewConnector) -> ConnectorAdded:
    """Add a connector after Hull has accepted its credentials; settings stored in Hull are imported.

    Without an API token, its work waits until an administrator connects it: pipeline connectors authorize.
    """
    made = setup.add_connector(
        request.name,
        hull_organization=request.hull_organization,
        hull_id=request.hull_id,
        hull_secret=request.hull_secret,
        pipedrive_token=request.pipedrive_token,
        settings=request.settings,
        also=lambda session, connector: call.note(session, connector.name, connector=connector),
    )
    webhooks = _subscribed(made) if request.pipedrive_token else "not_connected"
    with transaction() as session:
        described = _described(session, made)
    return ConnectorAdded(connector=described.connector, status=described.status, webhooks=webhooks)


@operation(f"GET {PATH}", role=Role.VIEWER, command="connectors status CONNECTOR")
def show_connector(call: Call, _request: ConnectorRequest) -> ConnectorAnswer:
    """Show one connector and its status."""
    with transaction() as session:
        return _described(session, call.connector)


@operation(
    f"POST {PATH}/pause",
    role=Role.OPERATOR,
    audit_action="connector.pause",
    query=("why",),
    command="connectors pause CONNECTOR",
)
def pause_connector(call: Call, request: PauseRequest) -> Done:
    """Pause a connector: its work waits, and nothing is lost."""
    with call.transaction(why=request.why) as session:
        row = rows.lock_connector(session, call.connector.key)
        row.state, row.pause_reason = "paused", BY_HAND
    return Done(done="paused")


@operation(
    f"POST {PATH}/resume", role=Role.OPERATOR, audit_action="connector.resume", command="connectors resume CONNECTOR"
)
def resume_connector(call: Call, _request: ConnectorRequest) -> Done:
    """Resume a paused connector. If the cause of the pause persists, the connector is paused again."""
    with call.transaction() as session:
        row = rows.lock_connector(session, call.connector.key)
        if connection_of(session, row).how is None:
            sentence = f"{row.name} is not connected to Pipedrive: connect it under Credentials."
            raise invalid("refused", sentence, f"Or: pipeline connectors authorize {row.name}")
        row.state, row.pause_reason = "active", None
        after_commit(session, lambda: canvases.wake_control("sweep"))
    return Done(done="resumed")


@operation(
    f"POST {PATH}/rename",
    role=Role.ADMIN,
    audit_action="connector.rename",
    command="connectors rename CONNECTOR NAME",
    example="acme acme-emea",
)
def rename_connector(call: Call, request: NewName) -> Done:
    """Rename a connector; its id and its data in Hull and Pipedrive stay the same."""
    try:
        connector_name(request.name)
        with call.transaction(request.name, why=f"was {call.connector.name}") as session:
            rows.lock_connector(session, call.connector.key).name = request.name
    except InvalidName as error:
        raise invalid("refused", str(error)) from None
    except IntegrityError:
        raise invalid("refused", f"a connector named {request.name} already exists") from None
    return Done(done="renamed")


@operation(
    f"POST {PATH}/remove",
    role=Role.ADMIN,
    audit_action="connector.remove",
    command="connectors remove CONNECTOR",
    example="acme --yes",
)
def remove_connector(call: Call, request: RemovalRequest) -> Removed:
    """Remove a connector and everything stored about it. No record is deleted in Hull or Pipedrive.

    Its id map, events, failures and credentials are deleted, and its webhooks in Pipedrive.
    """
    connector = call.connector
    if request.name != connector.name:
        raise invalid("not_confirmed", f"Send the name {connector.name} to remove it.")
    left = ""
    try:
        remove_webhooks(connector.key)
    except PipelineError as error:
        left = str(error)
    with call.transaction(why=request.why) as session:
        for run in run_rows.find_runs(session, connector.key, limit=20):
            if run.state == "running":
                batches.cancel_open(session, run.id)
        rows.remove_rows_of(session, connector.key)
    return Removed(done="removed", left=left)


def _described(session: Session, connector: Connector) -> ConnectorAnswer:
    judged = judge_condition(session, connector)
    count = sum(failure.count_open(session, connector.key).values())
    return ConnectorAnswer(
        connector=ConnectorShape.model_validate(connector),
        status=StatusShape(status=judged.level, messages=list(judged.messages), open_failures=count),
    )


def _subscribed(connector: Connector) -> str:
    """Create the webhooks in Pipedrive and return `ok` or the error; without webhooks, fetches still work."""
    try:
        ensure_webhooks(connector.key)
    except PipelineError as error:
        return str(error)
    return "ok"
