"""Send to Pipedrive by hand: some Users or Accounts, or as many as a segment holds, by a worker."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.roles import Role
from pipeline.insight import sending
from pipeline.insight.acts import require_active
from pipeline.insight.sending import Choice
from pipeline.jobs import sends
from pipeline.operations.call import Call
from pipeline.operations.errors import invalid
from pipeline.operations.models import ConnectorRequest, Counted, EntityName, Shape
from pipeline.operations.registry import operation
from pipeline.operations.values import HullId

PATH = "/connectors/<connector>/sends"


class NewSend(ConnectorRequest):
    """Which Users or Accounts: by their Hull ids, or a whole segment."""

    entity: EntityName
    ids: Annotated[
        list[HullId],
        Field(max_length=sends.MOST_IDS, description="A Hull id, or the e-mail of a known User; several may be given."),
    ] = Field(default_factory=list)
    segment: Annotated[
        str | None, Field(min_length=1, max_length=100, description="Everybody in the segment of this id.")
    ] = None


class SizeAnswer(BaseModel):
    """How many it would be, and the most that writing them takes of Pipedrive's day."""

    count: int
    most_tokens: int


class OrderedAnswer(Counted):
    """`missing` of the ids are not known to Hull, so nothing is sent for them."""

    missing: int


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


@operation(f"GET {PATH}", role=Role.VIEWER, command="sends list CONNECTOR")
def list_sends(call: Call, _request: ConnectorRequest) -> SendsAnswer:
    """List what workers were lately asked to send by hand, and how far each is."""
    with transaction() as session:
        found = sending.latest(session, call.connector.key)
    return SendsAnswer(sends=[SendingShape.model_validate(each) for each in found])


@operation(
    f"POST {PATH}/count",
    role=Role.OPERATOR,
    changes=False,
    command="sends count CONNECTOR ENTITY",
    example="acme person --segment 59ad2e8d30e9a0b5c1000123",
)
def count_send(call: Call, request: NewSend) -> SizeAnswer:
    """Count how many Users or Accounts would be sent; a segment is counted by Hull. Nothing is sent."""
    size = sending.count(call.connector, _choice(call, request))
    return SizeAnswer(count=size, most_tokens=size * sending.WRITE_TOKENS)


@operation(
    f"POST {PATH}",
    role=Role.OPERATOR,
    audit_action="send",
    command="sends order CONNECTOR ENTITY",
    example="acme person --ids 5bd329ebe0a1d8b9c8b0e3f1",
)
def order_send(call: Call, request: NewSend) -> OrderedAnswer:
    """Have a worker send Users or Accounts to Pipedrive, past every filter. Sending again changes nothing that has not changed."""
    choice = _choice(call, request)
    size = sending.count(call.connector, choice)
    require_active(call.connector)
    rank_ms = int(time.time() * 1000)
    wanted = sends.SendOrder(entity=choice.entity, ids=choice.ids, segment=choice.segment, rank=rank_ms)
    noun = choice.entity.hull.capitalize() + ("" if size == 1 else "s")
    whom = f"segment {choice.segment}, " if choice.segment else ""
    with call.transaction(f"{whom}{size} {noun}") as session:
        sends.enqueue(session, call.connector.key, wanted)
    return OrderedAnswer(done="asked", count=size, missing=max(0, len(choice.ids) - size))


def _choice(call: Call, request: NewSend) -> Choice:
    """Return what is chosen, by Hull ids alone. Raises OperationError, Impossible."""
    if bool(request.ids) == bool(request.segment):
        raise invalid("malformed", "Name either ids or one segment.")
    entity = Entity(request.entity)
    with transaction() as session:
        ids = sending.as_hull_ids(session, call.connector.key, entity, request.ids)
    return Choice(entity=entity, ids=ids, segment=request.segment)
