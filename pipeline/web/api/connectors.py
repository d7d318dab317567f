"""Connectors: how each is doing; pause and resume."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus

from flask import Response
from pydantic import BaseModel

from db import connector as rows
from db import failure as failures
from db.connector import Connector
from db.session import transaction
from pipeline.insight import acts
from pipeline.insight.acts import Impossible
from pipeline.tasks.status import status_of
from pipeline.web.api.door import Nay, Operations, answer
from pipeline.web.api.shapes import Done, OfConnector, Shape, find
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


def add(operations: Operations) -> None:
    operations.get("/connectors", list_connectors, ConnectorsAnswer)
    operations.get("/connectors/<connector>", show_connector, ConnectorAnswer)
    operations.post("/connectors/<connector>/pause", pause_connector, Done)
    operations.post("/connectors/<connector>/resume", resume_connector, Done)


def list_connectors() -> Response:
    """List all connectors, and how each is doing."""
    with transaction() as session:
        found = rows.all_connectors(session)
    return answer(ConnectorsAnswer(connectors=[_described(each) for each in found]))


def show_connector(path: OfConnector) -> Response:
    """Show one connector, and how it is doing."""
    return answer(_described(find(path)))


def pause_connector(path: OfConnector) -> Response:
    """Let a connector's work wait; nothing is lost."""
    acts.pause(find(path), by=who().name)
    return answer(Done(done="paused"))


def resume_connector(path: OfConnector) -> Response:
    """Let a connector go on, whatever it was paused for; what is still wrong pauses it again."""
    try:
        acts.resume(find(path), by=who().name)
    except Impossible as impossible:
        raise Nay(HTTPStatus.CONFLICT, "not_connected", impossible.sentence, impossible.next_step) from None
    return answer(Done(done="resumed"))


def _described(connector: Connector) -> ConnectorAnswer:
    with transaction() as session:
        status = status_of(session, connector)
        count = sum(failures.count_open(session, connector.key).values())
    return ConnectorAnswer(
        connector=ConnectorShape.model_validate(connector),
        status=StatusShape(status=status.status, messages=status.messages, open_failures=count),
    )
