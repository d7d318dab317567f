"""Connectors: how each is doing; pause and resume."""

from __future__ import annotations

from datetime import datetime

from flask import Response
from pydantic import BaseModel

from db import audit
from db import connector as rows
from db import failure as failures
from db.connector import Connector
from db.session import transaction
from pipeline.tasks import control
from pipeline.tasks.status import status_of
from pipeline.web.api.door import Operations, answer
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
    connector = find(path)
    with transaction() as session:
        rows.pause(session, connector.key, "connector_paused")
        audit.note(session, who().name, "connector.pause", connector.name, connector_key=connector.key)
    return answer(Done(done="paused"))


def resume_connector(path: OfConnector) -> Response:
    """Let a connector go on, whatever it was paused for; what is still wrong pauses it again."""
    connector = find(path)
    with transaction() as session:
        row = rows.lock_connector(session, connector.key)
        row.state, row.pause_reason = "active", None
        audit.note(session, who().name, "connector.resume", connector.name, connector_key=connector.key)
    control.wake_control("sweep")
    return answer(Done(done="resumed"))


def _described(connector: Connector) -> ConnectorAnswer:
    with transaction() as session:
        status = status_of(session, connector)
        count = sum(failures.count_open(session, connector.key).values())
    return ConnectorAnswer(
        connector=ConnectorShape.model_validate(connector),
        status=StatusShape(status=status.status, messages=status.messages, open_failures=count),
    )
