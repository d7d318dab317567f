"""Try settings before saving them: apply mapping rows to a real record, show when a schedule is due."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from db import connector as connectors
from db.session import transaction
from pipeline.domain import cron
from pipeline.domain.kinds import Role
from pipeline.insight.conversion_words import direction_of, entity_of
from pipeline.insight.fields import fields_of
from pipeline.insight.samples import find_sample
from pipeline.insight.settings_rows import OPPOSITE, attributes_seen, view_rows
from pipeline.insight.settings_text import effective
from pipeline.operations.call import Call
from pipeline.operations.models import ConnectorRequest, Shape
from pipeline.operations.registry import operation
from pipeline.operations.values import Short, Text, Value

MappingName = Literal[
    "incoming_user_attributes", "incoming_account_attributes", "outgoing_user_attributes", "outgoing_account_attributes"
]


class MappingShown(ConnectorRequest):
    """One mapping, applied to a record; without `record`, to one that has values."""

    setting: MappingName
    record: Annotated[str | None, Field(min_length=1, max_length=100, description="A Pipedrive id or a Hull id.")] = (
        None
    )


class MappingTried(MappingShown):
    """The same with your own rows, which may be incomplete."""

    rows: Annotated[list[dict[str, Any]], Field(max_length=500)]


class SampleShape(Shape):
    """The sample record. `is_as_told`: Hull has not reported it yet, so it has the values last delivered to Hull."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    name: Text
    is_as_told: bool


class RowWordsShape(Shape):
    """The field's name and type, the matching type in Hull, and how a value is converted."""

    field: Text
    type: str
    hull_type: str
    does: Text


class ConversionShape(Shape):
    """`state` is `changes`, `same`, `nothing` or `problem`, with a problem's `reason`; `beside` is delivered with it."""

    state: str
    before: Value
    after: Value
    beside: Value
    words: Text
    reason: str


class RowTriedShape(Shape):
    """`words` is null while a row is incomplete, `conversion` if there is no value to show it with."""

    position: int
    row: Value
    words: RowWordsShape | None
    conversion: ConversionShape | None
    mistakes: list[Text]
    has_parts: bool
    is_shared: Annotated[bool, Field(description="The field is mapped in the other direction too.")]


class MappingTriedAnswer(BaseModel):
    """`sample` is null if there is no such record; `attributes` are names to choose from."""

    sample: SampleShape | None
    rows: list[RowTriedShape]
    attributes: list[Text]


class ScheduleTried(ConnectorRequest):
    cron: Annotated[Short, Field(description="Five fields, or `nightly`.")]


class ScheduleTriedAnswer(BaseModel):
    """When the schedule is due, in words and as the next times; empty for an invalid schedule."""

    words: str
    next_at: list[datetime]


@operation(
    "GET /connectors/<connector>/settings/try",
    role=Role.VIEWER,
    command="settings try CONNECTOR SETTING",
    example="acme outgoing_user_attributes --record 12",
)
def show_mapping(call: Call, request: MappingShown) -> MappingTriedAnswer:
    """Show what the mapping in force does to a real record."""
    return _tried(call, request, None)


@operation(
    "POST /connectors/<connector>/settings/try",
    role=Role.ADMIN,
    changes=False,
    command="settings try-rows CONNECTOR SETTING ROWS",
    example="acme outgoing_user_attributes rows.json",
)
def try_mapping(call: Call, request: MappingTried) -> MappingTriedAnswer:
    """Show what mapping rows would do to a real record; nothing is saved or sent."""
    return _tried(call, request, request.rows)


@operation(
    "GET /connectors/<connector>/schedules/try",
    role=Role.VIEWER,
    command="settings try-schedule CONNECTOR CRON",
    example="acme '15 2 * * *'",
)
def try_schedule(call: Call, request: ScheduleTried) -> ScheduleTriedAnswer:
    """Show when a schedule would be due."""
    times = cron.next_times(request.cron, call.connector.id, datetime.now(UTC))
    words = cron.cron_words(request.cron, call.connector.id) if times else ""
    return ScheduleTriedAnswer(words=words, next_at=times)


def _tried(call: Call, request: MappingShown, own: list[dict[str, Any]] | None) -> MappingTriedAnswer:
    """Apply the rows `own`; None means those in force."""
    entity, direction, key = entity_of(request.setting), direction_of(request.setting), call.connector.key
    with transaction() as session:
        in_force = effective(connectors.settings_in_force(session, key).document)
        catalog = fields_of(session, key, entity).catalog
        sample = find_sample(session, key, entity, direction, request.record or "")
    rows, others = in_force[request.setting] if own is None else own, in_force[OPPOSITE[request.setting]]
    shown = view_rows(request.setting, rows, catalog, sample=sample, others=others)
    return MappingTriedAnswer(
        sample=SampleShape.model_validate(sample) if sample else None,
        rows=[RowTriedShape.model_validate(each) for each in shown],
        attributes=attributes_seen(sample, rows, others),
    )
