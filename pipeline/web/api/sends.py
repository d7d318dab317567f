"""Send to Pipedrive by hand: some Users or Accounts, or as many as a segment holds, by a worker."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from flask import Response
from pydantic import BaseModel, Field

from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.insight import sending
from pipeline.insight.sending import Choice
from pipeline.operations.errors import OperationError
from pipeline.operations.models import Asked, Counted, EntityName, OfConnector, Shape
from pipeline.operations.values import HullId
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who


class NewSend(Asked):
    """Which Users or Accounts: by their Hull ids, or a whole segment."""

    entity: EntityName
    ids: tuple[HullId, ...] = Field(default=(), max_length=1000)
    segment: Annotated[str | None, Field(min_length=1, max_length=100)] = None

    def choice(self) -> Choice:
        """The same as the rooms below have it. Raises: OperationError."""
        if bool(self.ids) == bool(self.segment):
            raise OperationError(HTTPStatus.BAD_REQUEST, "malformed", "Name either ids or one segment.")
        return Choice(entity=Entity(self.entity), ids=self.ids, segment=self.segment)


class SizeAnswer(BaseModel):
    """How many it would be, and the most that writing them takes of Pipedrive's day."""

    count: int
    most_tokens: int


class SendingShape(Shape):
    """How far an order is; `of` is not known before its first page; `missing` are ids that Hull does not have."""

    id: int
    state: str
    reason: str | None
    done: int
    of: int | None
    missing: int
    asked_at: datetime
    ended_at: datetime | None


class SendsAnswer(BaseModel):
    sends: list[SendingShape]


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/sends", list_sends, SendsAnswer)
    operations.post("/connectors/<connector>/sends/count", count_send, SizeAnswer, changes=False)
    operations.post("/connectors/<connector>/sends", order_send, Counted)


def list_sends(path: OfConnector) -> Response:
    """List what workers were lately asked to send by hand, and how far each is."""
    connector = find(path)
    with transaction() as session:
        found = sending.latest(session, connector.key)
    return answer(SendsAnswer(sends=[SendingShape.model_validate(each) for each in found]))


def count_send(path: OfConnector, body: NewSend) -> Response:
    """Count how many Users or Accounts would be sent; a segment is counted by Hull. Nothing is sent."""
    connector = find(path)
    size = sending.count(connector, _known(connector, body.choice()))
    return answer(SizeAnswer(count=size, most_tokens=size * sending.WRITE_TOKENS))


def order_send(path: OfConnector, body: NewSend) -> Response:
    """Have a worker send Users or Accounts to Pipedrive, past every filter. Sending again changes nothing that has not changed."""
    connector = find(path)
    chosen = _known(connector, body.choice())
    size = sending.count(connector, chosen)
    sending.order(connector, chosen, by=who().name, size=size)
    return answer(Counted(done="asked", count=size))


def _known(connector: Connector, choice: Choice) -> Choice:
    """The same by Hull ids alone. Raises: Impossible."""
    with transaction() as session:
        return replace(choice, ids=sending.as_hull_ids(session, connector.key, choice.entity, choice.ids))
