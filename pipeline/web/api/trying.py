"""Settings tried before they are saved: what rows of a mapping do to a real record, when a schedule would come due."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from flask import Response
from pydantic import BaseModel, Field

from db import connector as connectors
from db.connector import Connector
from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight import schedule_words
from pipeline.insight.conversion_words import direction_of, entity_of
from pipeline.insight.fields import fields_of
from pipeline.insight.samples import find_sample
from pipeline.insight.settings_rows import OPPOSITE, attributes_seen, view_rows
from pipeline.insight.settings_text import effective
from pipeline.operations.models import Asked, OfConnector, Shape
from pipeline.operations.values import Short, Text, Value
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find

MappingName = Literal[
    "incoming_user_attributes", "incoming_account_attributes", "outgoing_user_attributes", "outgoing_account_attributes"
]


class MappingShown(Asked):
    """One mapping, on a record; without `record` on one that says something."""

    setting: MappingName
    record: Annotated[str | None, Field(min_length=1, max_length=100, description="An id of either side.")] = None


class MappingTried(MappingShown):
    """With rows of one's own, half written ones too."""

    rows: Annotated[list[dict[str, Any]], Field(max_length=500)]


class SampleShape(Shape):
    """The record on which it was tried; `is_as_told` where Hull has not reported it, so that it is as it was told last."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    name: Text
    is_as_told: bool


class RowWordsShape(Shape):
    """The field by its name, what kind it is, what fits it in Hull, and what becomes of a value."""

    field: Text
    type: str
    hull_type: str
    does: Text


class ConversionShape(Shape):
    """`state` is `changes`, `same`, `nothing` or `problem`, with a problem's `reason`; `beside` is delivered along with it."""

    state: str
    before: Value
    after: Value
    beside: Value
    words: Text
    reason: str


class RowTriedShape(Shape):
    """`words` is null while a row is not written to the end, `conversion` where there is nothing to show it on."""

    position: int
    row: Value
    words: RowWordsShape | None
    conversion: ConversionShape | None
    mistakes: list[Text]
    has_parts: bool
    is_shared: Annotated[bool, Field(description="The field goes the other way as well.")]


class MappingTriedAnswer(BaseModel):
    """`sample` is null where there is no such record; `attributes` are names to choose from."""

    sample: SampleShape | None
    rows: list[RowTriedShape]
    attributes: list[Text]


class ScheduleTried(Asked):
    cron: Annotated[Short, Field(description="Five fields, or `nightly`.")]


class ScheduleTriedAnswer(BaseModel):
    """When it would come due, in words and as the next times; none for what is no schedule."""

    words: str
    next_at: list[datetime]


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/settings/try", show_mapping, MappingTriedAnswer)
    operations.post(
        "/connectors/<connector>/settings/try", try_mapping, MappingTriedAnswer, needs=Role.ADMIN, changes=False
    )
    operations.get("/connectors/<connector>/schedules/try", try_schedule, ScheduleTriedAnswer)


def show_mapping(path: OfConnector, query: MappingShown) -> Response:
    """Say what the mapping in force does to a real record."""
    return _tried(find(path), query, None)


def try_mapping(path: OfConnector, body: MappingTried) -> Response:
    """Say what rows of a mapping would do to a real record; nothing is saved or sent."""
    return _tried(find(path), body, body.rows)


def try_schedule(path: OfConnector, query: ScheduleTried) -> Response:
    """Say when a schedule would come due."""
    connector = find(path)
    times = schedule_words.next_times(query.cron, connector.id, datetime.now(UTC))
    words = schedule_words.cron_words(query.cron, connector.id) if times else ""
    return answer(ScheduleTriedAnswer(words=words, next_at=times))


def _tried(connector: Connector, asked: MappingShown, own: list[dict[str, Any]] | None) -> Response:
    """Without rows of one's own with those in force."""
    entity, direction = entity_of(asked.setting), direction_of(asked.setting)
    with transaction() as session:
        in_force = effective(connectors.settings_in_force(session, connector.key).document)
        catalog = fields_of(session, connector.key, entity).catalog
        sample = find_sample(session, connector.key, entity, direction, asked.record or "")
    rows, others = in_force[asked.setting] if own is None else own, in_force[OPPOSITE[asked.setting]]
    shown = view_rows(asked.setting, rows, catalog, sample=sample, others=others)
    return answer(
        MappingTriedAnswer(
            sample=SampleShape.model_validate(sample) if sample else None,
            rows=[RowTriedShape.model_validate(each) for each in shown],
            attributes=attributes_seen(sample, rows, others),
        )
    )
