"""Connectors: how each is doing; add, pause, resume, rename, remove."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from flask import Response
from pydantic import BaseModel, Field

from db import connector as rows
from db import failure_count
from db.connector import Connector
from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight import connections
from pipeline.insight.overview import condition
from pipeline.operations.errors import OperationError
from pipeline.operations.models import Asked, Done, OfConnector, Shape
from pipeline.operations.values import Why
from pipeline.sync.connectors import setup
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who


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
    """`ok`, `warning`, `error` or `setupRequired`, and what there is to say, the worst first."""

    status: str
    messages: list[str]
    open_failures: int


class ConnectorAnswer(BaseModel):
    connector: ConnectorShape
    status: StatusShape


class ConnectorsAnswer(BaseModel):
    connectors: list[ConnectorAnswer]


class NewConnector(Asked):
    """What stands in Hull; Pipedrive is connected next, see the credentials."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    hull_organization: Annotated[str, Field(min_length=1, max_length=255)]
    hull_id: Annotated[str, Field(min_length=1, max_length=255)]
    hull_secret: Annotated[str, Field(min_length=1, max_length=1000)]


class NewName(Asked):
    name: Annotated[str, Field(min_length=1, max_length=63)]


class Pausing(Asked):
    """In the address, so that nothing need be sent along."""

    why: Why | None = None


class Removal(Asked):
    """`name` is the connector's, typed once more."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    why: Why | None = None


class Removed(Done):
    """`left` says why the webhooks are still there in Pipedrive; empty when they are not."""

    left: str


def add(operations: Operations) -> None:
    operations.get("/connectors", list_connectors, ConnectorsAnswer)
    operations.post("/connectors", add_connector, ConnectorAnswer, needs=Role.ADMIN)
    operations.get("/connectors/<connector>", show_connector, ConnectorAnswer)
    operations.post("/connectors/<connector>/pause", pause_connector, Done)
    operations.post("/connectors/<connector>/resume", resume_connector, Done)
    operations.post("/connectors/<connector>/rename", rename_connector, Done, needs=Role.ADMIN)
    operations.post("/connectors/<connector>/remove", remove_connector, Removed, needs=Role.ADMIN)


def list_connectors() -> Response:
    """List the connectors you may see, and how each is doing."""
    with transaction() as session:
        found = rows.all_connectors(session)
    return answer(ConnectorsAnswer(connectors=[_described(each) for each in found if who().may_see(each.key)]))


def add_connector(body: NewConnector) -> Response:
    """Add a connector, once Hull has accepted its credentials; what Hull holds of settings is taken over."""
    made = setup.add_connector(
        body.name, hull_organization=body.hull_organization, hull_id=body.hull_id, hull_secret=body.hull_secret
    )
    connections.note(made.key, who().name, "connector.add")
    return answer(_described(made))


def show_connector(path: OfConnector) -> Response:
    """Show one connector, and how it is doing."""
    return answer(_described(find(path)))


def pause_connector(path: OfConnector, query: Pausing) -> Response:
    """Let a connector's work wait; nothing is lost."""
    connections.pause(find(path).key, by=who().name, why=query.why)
    return answer(Done(done="paused"))


def resume_connector(path: OfConnector) -> Response:
    """Let a connector go on, whatever it was paused for; what is still wrong pauses it again."""
    connections.resume(find(path).key, by=who().name)
    return answer(Done(done="resumed"))


def rename_connector(path: OfConnector, body: NewName) -> Response:
    """Give a connector another name; its id, and what Hull and Pipedrive know of it, stay."""
    connections.rename(find(path).key, body.name, by=who().name)
    return answer(Done(done="renamed"))


def remove_connector(path: OfConnector, body: Removal) -> Response:
    """Forget a connector with everything kept of it. Neither Hull nor Pipedrive loses a record."""
    connector = find(path)
    if body.name != connector.name:
        raise OperationError(HTTPStatus.BAD_REQUEST, "not_confirmed", f"Send the name {connector.name} to remove it.")
    left = connections.remove(connector, by=who().name, why=body.why)
    return answer(Removed(done="removed", left=left))


def _described(connector: Connector) -> ConnectorAnswer:
    with transaction() as session:
        judged = condition(session, connector)
        count = sum(failure_count.count_open(session, connector.key).values())
    return ConnectorAnswer(
        connector=ConnectorShape.model_validate(connector),
        status=StatusShape(status=judged.level, messages=list(judged.messages), open_failures=count),
    )
