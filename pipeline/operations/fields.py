"""What settings refer to: Pipedrive's fields, Hull's segments, and suggested mapping rows."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import BaseModel

from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.insight.fields import fields_of
from pipeline.insight.hull_segments import ask_segments
from pipeline.insight.suggestions import suggested
from pipeline.operations.cached_answers import Shared
from pipeline.operations.call import Call
from pipeline.operations.models import ConnectorRequest, Done, OfEntity, Shape
from pipeline.operations.registry import operation
from pipeline.operations.values import Text
from pipeline.sync import definitions

SEGMENTS_S: Final = 60.0


class FieldChoiceShape(Shape):
    """A field that can be mapped; `options` are its option labels, if it has options."""

    code: str
    name: Text
    type: str
    kind: str
    is_custom: bool
    is_writable: bool
    options: list[Text]


class FieldsAnswer(BaseModel):
    """Pipedrive's fields as of `read_at`."""

    fields: list[FieldChoiceShape]
    read_at: datetime | None


class SegmentShape(Shape):
    id: str
    name: Text


class SegmentsAnswer(Shape):
    """`trouble` says why Hull's segments could not be read; empty if they were."""

    users: list[SegmentShape]
    accounts: list[SegmentShape]
    trouble: str


class SuggestionShape(Shape):
    """A suggested mapping row. `is_usual`: most customers map it; the others are the company's own fields."""

    hull: Text
    service: str
    field: Text
    type: str
    does: Text
    is_usual: bool


class SuggestionsAnswer(BaseModel):
    """Setting → suggested rows, without fields that are already mapped."""

    suggestions: dict[str, list[SuggestionShape]]


class FieldsOfEntity(ConnectorRequest, OfEntity):
    """The fields of Persons or of Organizations."""


@operation(
    "GET /connectors/<connector>/fields",
    role=Role.VIEWER,
    command="fields list CONNECTOR ENTITY",
    example="acme person",
)
def list_fields(call: Call, request: FieldsOfEntity) -> FieldsAnswer:
    """List Pipedrive's fields of one entity, as they were last read."""
    with transaction() as session:
        found = fields_of(session, call.connector.key, request.kind)
    shown = [FieldChoiceShape.model_validate(each) for each in found.choices]
    return FieldsAnswer(fields=shown, read_at=found.read_at)


@operation(
    "POST /connectors/<connector>/fields/read",
    role=Role.ADMIN,
    audit_action="fields.read",
    command="fields read CONNECTOR",
)
def read_fields(call: Call, _request: ConnectorRequest) -> Done:
    """Read Pipedrive's fields again. Costs 10 tokens for each entity."""
    found = definitions.ask_fields(call.connector.key)
    with call.transaction() as session:
        definitions.keep_fields(session, call.connector.key, found)
    return Done(done="read")


@operation("GET /connectors/<connector>/segments", role=Role.VIEWER, command="segments list CONNECTOR")
def list_segments(call: Call, _request: ConnectorRequest) -> SegmentsAnswer:
    """List Hull's segments by name; they are read from Hull at most once a minute."""
    return SegmentsAnswer.model_validate(segments_of(call.connector.key))


@operation("GET /connectors/<connector>/suggestions", role=Role.VIEWER, command="settings suggest CONNECTOR")
def suggest_mappings(call: Call, _request: ConnectorRequest) -> SuggestionsAnswer:
    """Suggest mapping rows for both directions: usual fields, and the company's own fields."""
    with transaction() as session:
        found = suggested(session, call.connector.key)
    return SuggestionsAnswer(
        suggestions={name: [SuggestionShape.model_validate(each) for each in rows] for name, rows in found.items()}
    )


segments_of: Final = Shared(ask_segments, fresh_s=SEGMENTS_S)
"""Hull's segments by connector key, requested at most once a minute."""
