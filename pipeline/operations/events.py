"""The log of sync events: list, show and export them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import event_log
from db.deletion import find_merge_sources
from db.event_log import EventFilter, Subject
from db.log_export import RETENTION_HOURS, LogExport, find_export
from db.session import transaction
from db.sync_event import SyncEvent
from pipeline.domain.fields import ALIASES
from pipeline.domain.json_text import Text, Value, read_lenient
from pipeline.domain.kinds import Entity, Role
from pipeline.domain.reasons import advice_of, meaning_of
from pipeline.jobs import log_exports
from pipeline.jobs.log_exports import CSV, NDJSON, facts
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError, not_found
from pipeline.operations.models import (
    LARGEST_ID,
    ConnectorRequest,
    DirectionName,
    EntityName,
    Moment,
    ReasonCode,
    RowId,
    RowRequest,
    Shape,
    Short,
    ShortPageRequest,
    shape_of,
    split_page,
)
from pipeline.operations.registry import Download, operation
from pipeline.operations.search import search
from pipeline.sync.compiled import CompiledSettings, compiled_for

PATH: Final = "/connectors/<connector>/events"
EXPORTS: Final = f"{PATH}/exports"
LOOKED_BACK: Final = timedelta(days=1)
"""How far back the search reads if no index serves the filter, unless the filter has a time."""
Outcome = Literal["success", "skip", "error", "retry", "park"]
WORDS: Final = {
    "success": "synchronized",
    "skip": "left as it was",
    "error": "not synchronized",
    "retry": "to be read again",
    "park": "waiting",
}
"""Outcome → the result for the record."""


class ChangeShape(BaseModel):
    """One changed field. `is_first`: the previous value is not known."""

    name: Text
    label: Text
    before: Value
    after: Value
    is_first: bool


class EventShape(BaseModel):
    """One event of one record; `exchange` is the HTTP call of a write.

    An event with a `field` is about that field only; the record has an event of its own.
    """

    id: int
    at: datetime
    event: str
    direction: str
    outcome: str
    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    cause: str
    reason: str | None
    meaning: str
    advice: str
    detail: Text | None
    field: Text | None
    run_id: int | None
    batch_id: int | None
    settings_version: int | None
    delivery_id: int | None
    exchange: dict[str, Any] | None
    changes: list[ChangeShape]

    @property
    def mark(self) -> str:
        """Return the outcome for an icon: a rejected field is less severe than a record."""
        return "warning" if self.field is not None and self.outcome == "error" else self.outcome

    @property
    def words(self) -> str:
        """Return the outcome as text, to be read after "was"."""
        if self.field is not None and self.outcome == "error":
            return "synchronized without this field"
        return WORDS.get(self.outcome, self.outcome)


class EventsFilter(ConnectorRequest):
    """A filter of events. Omitted fields match everything."""

    direction: DirectionName | None = None
    entity: EntityName | None = None
    outcome: Annotated[Outcome | None, Field(description="The outcome for the record.")] = None
    event: Annotated[Short | None, Field(description="A name; * matches anything: incoming.*.error.")] = None
    reason: ReasonCode | None = None
    cause: Annotated[
        Short | None, Field(description="What caused the event, such as webhook or an operator's name.")
    ] = None
    record: Annotated[
        str | None,
        Field(min_length=1, max_length=300, description="Matches an id of either side, an e-mail or a domain."),
    ] = None
    run: Annotated[RowId | None, Field(description="Only events of this run.")] = None
    batch: Annotated[RowId | None, Field(description="Only events of this batch.")] = None
    since: Moment | None = None
    until: Moment | None = None


class EventsRequest(EventsFilter, ShortPageRequest):
    """A filter of events, and the page to return."""

    after: Annotated[
        int | None, Field(ge=0, le=LARGEST_ID, description="Only events newer than this id, oldest first.")
    ] = None


class NewExport(EventsFilter):
    """A filter of events, and the file format."""

    format: Annotated[Literal["csv", "jsonl"], Field(description="The format of the file.")]
    before: Annotated[RowId | None, Field(description="Only events older than this id.")] = None


class EventsAnswer(BaseModel):
    """`more` is where the next page begins. `since` is how far back the search went, if no index serves the filter."""

    events: list[EventShape]
    more: int | None
    since: datetime | None


class ExportShape(Shape):
    """A file of events. For the next part of the list, export events before `before_id`."""

    id: int
    state: Literal["writing", "done", "cut", "failed", "aborted"]
    file_name: str
    events: int
    before_id: int | None
    requested_by: str
    created_at: datetime
    ended_at: datetime | None


class ExportAnswer(BaseModel):
    export: ExportShape


class EventAnswer(BaseModel):
    """`beside` lists the other events of the same record in the same batch; `stored` is the event as an export has it."""

    event: EventShape
    beside: list[EventShape]
    stored: dict[str, Any]


@operation(
    f"GET {PATH}",
    role=Role.VIEWER,
    command="events list CONNECTOR",
    example="acme --event 'incoming.*.error' --since 2h",
)
def list_events(call: Call, request: EventsRequest) -> EventsAnswer:
    """List the newest sync events that match a filter; with `after`, the events that follow.

    The API returns the newest event first (with `after`: last). The command line always prints the newest event last.
    """
    key, wanted = call.connector.key, _filter(call, request)
    is_bounded = wanted.is_found_soon or request.after is not None
    since = None if is_bounded else datetime.now(UTC) - LOOKED_BACK
    wanted = replace(wanted, since=since) if since else wanted
    with event_log.bounded() as session:
        rows = event_log.page_of_events(
            session, key, wanted, before_id=request.before, after_id=request.after, limit=request.limit + 1
        )
    with event_log.bounded() as session:
        labels = _labels(session, key)
    shown, more = split_page(rows, request.limit)
    return EventsAnswer(events=[describe_event(row, labels) for row in shown], more=more, since=since)


@operation(
    f"POST {EXPORTS}",
    role=Role.VIEWER,
    audit_action="logs.export",
    command="events export CONNECTOR",
    example="acme --format csv --since 24h --wait",
)
def begin_export(call: Call, request: NewExport) -> ExportAnswer:
    """Have a worker write sync events to a file: newest first, 100,000 at most, and safe to open in a spreadsheet."""
    kind, wanted = {"csv": CSV, "jsonl": NDJSON}[request.format], _filter(call, request)
    chosen = [name for name in EventsFilter.model_fields if name != "connector" and getattr(request, name) is not None]
    with call.transaction(f"{request.format}: {', '.join(chosen) or 'everything'}") as session:
        export = log_exports.enqueue(session, call.connector, kind, wanted, request.before, by=call.caller.name)
    return ExportAnswer(export=ExportShape.model_validate(export))


@operation(f"GET {EXPORTS}/<id>", role=Role.VIEWER, command="events export-status CONNECTOR ID", example="acme 3")
def show_export(call: Call, request: RowRequest) -> ExportAnswer:
    """Show the state of a file: `done` and `cut` can be downloaded; `cut` ends early, because the search took too long."""
    return ExportAnswer(export=ExportShape.model_validate(_export(call, request)))


@operation(
    f"GET {EXPORTS}/<id>/file",
    role=Role.VIEWER,
    command="events download CONNECTOR ID",
    content_type="application/octet-stream",
)
def download_export(call: Call, request: RowRequest) -> Download:
    """Download an exported file."""
    export = _export(call, request)
    if not export.is_ready:
        raise OperationError(
            HTTPStatus.CONFLICT, "not_ready", "The file is not written yet.", "Wait until its state is done."
        )
    return Download(export.file_name, export.kind, log_exports.lines_of(export))


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="events show CONNECTOR ID", example="acme 4711")
def show_event(call: Call, request: RowRequest) -> EventAnswer:
    """Show one event, and the other events of its record in the same batch."""
    key = call.connector.key
    with transaction() as session:
        row = event_log.find_event(session, key, request.id)
        if row is None:
            raise not_found("There is no such event of this connector.", "Events are kept for 90 days.")
        labels = _labels(session, key)
        beside = [describe_event(each, labels) for each in event_log.neighbours(session, row)]
        return EventAnswer(event=describe_event(row, labels), beside=beside, stored=facts(row))


def describe_event(row: SyncEvent, labels: Mapping[str, str] | None = None) -> EventShape:
    """Return an event; `labels` are the names of Pipedrive's fields by their keys."""
    direction, _, rest = row.event.partition(".")
    return shape_of(
        EventShape,
        row,
        direction=direction,
        outcome=rest.rpartition(".")[2],
        meaning=meaning_of(row.reason),
        advice=advice_of(row.reason, direction),
        exchange=json.loads(row.exchange) if row.exchange else None,
        changes=_changes(row, labels or {}),
    )


def values_of(body: bytes | None) -> dict[str, Any]:
    """Return `before` or `after` of an event, with custom fields on the same level."""
    if not body:
        return {}
    read = read_lenient(bytes(body))
    if not isinstance(read, dict):
        return {}
    custom = read.get("custom_fields")
    if not isinstance(custom, dict):
        return read
    return {**{name: value for name, value in read.items() if name != "custom_fields"}, **custom}


def _changes(row: SyncEvent, labels: Mapping[str, str]) -> list[ChangeShape]:
    before, after = values_of(row.before), values_of(row.after)
    is_outgoing = row.event.startswith("outgoing")
    return [
        ChangeShape(
            name=name,
            label=labels.get(name, name) if is_outgoing else name,
            before=before.get(name),
            after=after.get(name),
            is_first=row.before is None,
        )
        for name in {**before, **after}
    ]


def labels_of(plan: CompiledSettings) -> dict[str, str]:
    """Return key of a field in a record → its name in Pipedrive."""
    names = {code: definition.name for code, definition in plan.catalog.by_code.items()}
    return {**{ALIASES[code]: name for code, name in names.items() if code in ALIASES}, **names}


def _export(call: Call, request: RowRequest) -> LogExport:
    with transaction() as session:
        export = find_export(session, call.connector.key, request.id)
    if export is None:
        raise not_found("There is no such export of this connector.", f"Files are kept for {RETENTION_HOURS} hours.")
    return export


def _labels(session: Session, connector_key: int) -> dict[str, str]:
    """Return key → name of Pipedrive's fields, for both entities."""
    return {
        key: name for entity in Entity for key, name in labels_of(compiled_for(session, connector_key, entity)).items()
    }


def _filter(call: Call, request: EventsFilter) -> EventFilter:
    wanted = EventFilter(
        direction=request.direction,
        entity=request.entity,
        outcome=request.outcome,
        event=request.event,
        reason=request.reason,
        cause=request.cause,
        run_id=request.run,
        batch_id=request.batch,
        since=request.since,
        until=request.until,
    )
    if request.record is None:
        return wanted
    with event_log.bounded() as session:
        return replace(wanted, subjects=_subjects(session, call.connector.key, request.entity, request.record))


def _subjects(session: Session, connector_key: int, entity: str | None, record: str) -> tuple[Subject, ...]:
    """Return every record that matches an id, e-mail, domain or external id, and the records merged into it."""
    found = [each for each in search(session, connector_key, record) if entity in (None, each.entity)]
    if not found:
        text = record.strip()
        is_number = text.isascii() and text.isdigit() and len(text) <= 18
        return (Subject(entity=entity, pipedrive_id=int(text)) if is_number else Subject(entity=entity, hull_id=text),)
    subjects = [Subject(entity=each.entity, pipedrive_id=each.pipedrive_id, hull_id=each.hull_id) for each in found]
    subjects += [
        Subject(entity=merged_entity, pipedrive_id=merged)
        for each in found
        if each.pipedrive_id is not None
        for merged_entity, merged in find_merge_sources(session, connector_key, each.pipedrive_id)
        if merged_entity == each.entity
    ]
    return tuple(subjects)
