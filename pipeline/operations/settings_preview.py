"""Try settings before saving them: apply mapping rows to a real record, and show when a schedule is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.orm import Session

from db import connector as connectors
from db import id_mapping, snapshot, sync_event
from db.id_mapping import IdMapping
from db.session import transaction
from pipeline.domain import cron
from pipeline.domain.fields import FieldCatalog, find_source
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity, Role
from pipeline.domain.settings import AttributeMapping
from pipeline.operations.call import Call
from pipeline.operations.conversions import (
    ConversionShape,
    RowWordsShape,
    convert,
    describe_row,
    direction_of,
    entity_of,
    key_of,
)
from pipeline.operations.fields import fields_of
from pipeline.operations.models import ConnectorRequest, Shape, Short, Text, Value
from pipeline.operations.record_sides import read_report, read_snapshot
from pipeline.operations.registry import operation
from pipeline.operations.settings_differences import effective
from pipeline.operations.settings_editing import MistakeShape
from pipeline.transform.hull_reports import attribute_name

LONGEST_ID: Final = 100
Row = Mapping[str, Any]
USUAL_ATTRIBUTES = ("email", "name", "first_name", "last_name", "phone", "domain", "external_id", "created_at")
MOST_ATTRIBUTES = 500
OPPOSITE: Final = {
    "incoming_user_attributes": "outgoing_user_attributes",
    "incoming_account_attributes": "outgoing_account_attributes",
    "outgoing_user_attributes": "incoming_user_attributes",
    "outgoing_account_attributes": "incoming_account_attributes",
}
"""Mapping → the mapping of the other direction."""

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
    """The sample record. `is_last_delivered`: Hull has not reported it yet, so its report has the values last delivered to Hull."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    name: Text
    is_last_delivered: bool


class Sample(SampleShape):
    """A sample record with its values: Pipedrive's record, and Hull's report with the Account of a User below `account`."""

    record: dict[str, Any] | None
    report: dict[str, Any] | None


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
    return MappingTriedAnswer(sample=sample, rows=shown, attributes=attributes_seen(sample, rows, others))


def find_sample(
    session: Session, connector_key: int, entity: Entity, direction: Direction, wanted: str = ""
) -> Sample | None:
    """Return the record with this Pipedrive id or Hull id; without an id, a record with values in this direction.

    None if there is no such record.
    """
    if wanted:
        found = _mapping(session, connector_key, entity, wanted[:LONGEST_ID])
        return _read(session, connector_key, entity, found) if found else None
    recent = sync_event.find_recently_changed(session, connector_key, entity)
    best: Sample | None = None
    side = "pipedrive" if direction is Direction.INCOMING else "hull"
    any_record = snapshot.any_record(session, connector_key, entity, side)
    for record_id in (str(recent) if recent else None, any_record):
        found = _mapping(session, connector_key, entity, record_id) if record_id else None
        sample = _read(session, connector_key, entity, found) if found else None
        if sample and _has_values(sample, direction):
            return sample
        best = best or sample
    return best


def _has_values(sample: Sample, direction: Direction) -> bool:
    if direction is Direction.INCOMING:
        return sample.record is not None
    return sample.report is not None and not sample.is_last_delivered


def _mapping(session: Session, connector_key: int, entity: Entity, wanted: str) -> IdMapping | None:
    if wanted.isdigit() and not (wanted.isascii() and len(wanted) <= 18):
        return None
    found = id_mapping.find_mapping(session, connector_key, wanted)
    return next((each for each in found if each.entity == entity), None)


def _read(session: Session, connector_key: int, entity: Entity, mapping: IdMapping) -> Sample:
    record, report = None, read_report(session, connector_key, entity, mapping.hull_id)
    if mapping.pipedrive_id is not None:
        record = read_snapshot(session, connector_key, entity, "pipedrive", mapping.pipedrive_id)
    is_last_delivered = report is None and mapping.delivered is not None
    if is_last_delivered:
        delivered = read_lenient(mapping.delivered or b"{}")
        report = delivered if isinstance(delivered, dict) else None
    return Sample(
        entity=entity,
        pipedrive_id=mapping.pipedrive_id,
        hull_id=mapping.hull_id,
        name=next((each["name"] for each in (record, report) if each and isinstance(each.get("name"), str)), ""),
        record=record,
        report=report,
        is_last_delivered=is_last_delivered,
    )


def view_rows(
    setting: str,
    rows: Sequence[Row],
    catalog: FieldCatalog,
    *,
    sample: Sample | None,
    others: Sequence[Row] = (),
    mistakes: Sequence[MistakeShape] = (),
) -> list[RowTriedShape]:
    """Return every row of one setting with its effect on the sample; `others` are the rows of the other direction."""
    direction = direction_of(setting)
    other_keys = {key_of(str(row.get("service", "")), catalog) for row in others} - {None}
    found = []
    for position, row in enumerate(rows):
        source, whole = find_source(str(row.get("service", "")), catalog), _whole(row)
        words = describe_row(whole, direction, catalog) if whole else None
        wrong = [each.words for each in mistakes if (each.setting, each.position) == (setting, position)]
        if words and words.mistake and not wrong:
            wrong = [words.mistake]
        conversion = None
        if sample and whole and words and not words.mistake:
            conversion = convert(whole, direction, catalog, record=sample.record, report=sample.report)
        found.append(
            RowTriedShape(
                position=position,
                row=row,
                words=words,
                conversion=conversion,
                mistakes=wrong,
                has_parts=source is not None and source.type == "address" and source.part is None,
                is_shared=source is not None and source.key in other_keys,
            )
        )
    return found


def attributes_seen(sample: Sample | None, *mapped: Sequence[Row]) -> list[str]:
    """Return names of attributes to choose from: usual ones, those of the sample record, and mapped ones."""
    reported = [attribute_name(name) for name in (sample.report or {}) if name != "account"] if sample else []
    account = sample.report.get("account") if sample and sample.report else None
    below = [f"account.{attribute_name(name)}" for name in account] if isinstance(account, dict) else []
    named = [attribute_name(str(row.get("hull", ""))) for rows in mapped for row in rows]
    names = dict.fromkeys([*USUAL_ATTRIBUTES, *sorted(reported), *sorted(below), *named])
    return [name for name in names if name][:MOST_ATTRIBUTES]


def _whole(row: Row) -> AttributeMapping | None:
    """Return a row as a mapping; None while it is incomplete."""
    try:
        return AttributeMapping.model_validate(dict(row))
    except ValidationError:
        return None
