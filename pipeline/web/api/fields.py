"""What settings are made of: Pipedrive's fields by name and type, and Hull's segments."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from flask import Response
from pydantic import BaseModel

from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight.fields import fields_of
from pipeline.insight.hull_segments import ask_segments
from pipeline.operations.models import Done, OfConnector, OfEntity, Shape
from pipeline.operations.values import Text
from pipeline.sync.connectors import field_lists
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.shared import Shared

SEGMENTS_S: Final = 60.0


class FieldChoiceShape(Shape):
    """A field that may be mapped; `options` are the labels of one that has any."""

    code: str
    name: Text
    type: str
    kind: str
    is_custom: bool
    is_writable: bool
    options: list[Text]


class FieldsAnswer(BaseModel):
    """As Pipedrive last told of them, at `read_at`."""

    fields: list[FieldChoiceShape]
    read_at: datetime | None


class SegmentShape(Shape):
    id: str
    name: Text


class SegmentsAnswer(Shape):
    """`trouble` says why Hull did not tell; empty when it did."""

    users: list[SegmentShape]
    accounts: list[SegmentShape]
    trouble: str


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/fields", list_fields, FieldsAnswer)
    operations.post("/connectors/<connector>/fields/read", read_fields, Done, needs=Role.ADMIN)
    operations.get("/connectors/<connector>/segments", list_segments, SegmentsAnswer)


def list_fields(path: OfConnector, query: OfEntity) -> Response:
    """List Pipedrive's fields of one entity, as they were last read."""
    connector = find(path)
    with transaction() as session:
        found = fields_of(session, connector.key, query.kind)
    shown = [FieldChoiceShape.model_validate(each) for each in found.choices]
    return answer(FieldsAnswer(fields=shown, read_at=found.read_at))


def read_fields(path: OfConnector) -> Response:
    """Ask Pipedrive for its fields again: 10 tokens for each entity."""
    field_lists.read_anew(find(path).key)
    return answer(Done(done="read"))


def list_segments(path: OfConnector) -> Response:
    """List Hull's segments by name; Hull is asked at most once a minute."""
    return answer(SegmentsAnswer.model_validate(_segments(find(path).key)))


_segments = Shared(ask_segments, fresh_s=SEGMENTS_S)
