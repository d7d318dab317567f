"""Sends: chosen Users or Accounts, or a whole segment, that a worker sends to Pipedrive."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from db.session import transaction
from pipeline.domain.kinds import Entity, Role
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
        str | None, Field(min_length=1, max_length=100, description="All members of the segment with this id.")
    ] = None


class SizeAnswer(BaseModel):
    """The number of records, and the maximum of tokens that writing them costs."""

    count: int
    most_tokens: int


class OrderedAnswer(Counted):
    """`missing` counts the ids that do not exist in Hull; nothing is sent for them."""

    missing: int


class SendingShape(Shape):
    """The progress of a send; `of` is null before its first page; `missing` counts the ids that do not exist in Hull."""

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
    """List recent sends with their progress."""
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
    """Count the Users or Accounts that would be sent; Hull counts a segment. Nothing is sent."""
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
    """Have a worker send Users or Accounts to Pipedrive, ignoring all filters. Sending again writes only what changed."""
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
    """Return the chosen records by their Hull ids. Raises OperationError, Impossible."""
    if bool(request.ids) == bool(request.segment):
        raise invalid("malformed", "Give either ids or one segment.")
    entity = Entity(request.entity)
    with transaction() as session:
        ids = sending.as_hull_ids(session, call.connector.key, entity, request.ids)
    return Choice(entity=entity, ids=ids, segment=request.segment)
