"""The log: every sync event, newest first, by filter, page by page or as a file."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

from flask import Response
from pydantic import BaseModel, Field
from werkzeug.wrappers import Response as WholeResponse

from db import event_log
from db.event_log import EventFilter
from db.log_export import RETENTION_HOURS, LogExport
from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight import log
from pipeline.insight.events import described
from pipeline.jobs.log_lines import CSV, NDJSON
from pipeline.operations.errors import OperationError, not_found
from pipeline.operations.event_shapes import EventShape
from pipeline.operations.models import Asked, DirectionName, EntityName, ListedWhole, OfConnector, OfRow, Shape
from pipeline.operations.values import Moment, RowId, Short
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console import log_export


class EventsChosen(Asked):
    """What is not named does not matter."""

    direction: DirectionName | None = None
    entity: EntityName | None = None
    outcome: Literal["success", "skip", "error", "retry", "park"] | None = None
    reason: Short | None = None
    cause: Short | None = None
    record: Annotated[
        str | None, Field(min_length=1, max_length=300, description="An id of either side, an e-mail, a domain.")
    ] = None
    run: RowId | None = None
    batch: RowId | None = None
    since: Moment | None = None
    until: Moment | None = None


class EventsAsked(EventsChosen, ListedWhole):
    """A page of them."""


class NewExport(EventsChosen):
    """Which events, and as what."""

    format: Literal["csv", "jsonl"]
    before: Annotated[RowId | None, Field(description="Only what is older than this id.")] = None


class EventsAnswer(Shape):
    """`more` is where the next page begins; `since` how far back was looked, where the filter finds nothing soon."""

    events: list[EventShape]
    more: int | None
    since: datetime | None


class ExportShape(Shape):
    """A file of events; the next one begins before the event `before_id`."""

    id: int
    state: Literal["writing", "done", "cut", "failed"]
    file_name: str
    events: int
    before_id: int | None
    created_at: datetime
    ended_at: datetime | None


class ExportAnswer(BaseModel):
    export: ExportShape


class EventAnswer(BaseModel):
    """`beside` is what happened to the same record in the same batch."""

    event: EventShape
    beside: list[EventShape]


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/events", list_events, EventsAnswer)
    exports = "/connectors/<connector>/events/exports"
    operations.post(exports, begin_export, ExportAnswer, needs=Role.VIEWER)
    operations.get(f"{exports}/<id>", show_export, ExportAnswer)
    operations.file(f"{exports}/<id>/file", download_export, "application/octet-stream")
    operations.get("/connectors/<connector>/events/<id>", show_event, EventAnswer)


def list_events(path: OfConnector, query: EventsAsked) -> Response:
    """List sync events, newest first, by filter."""
    connector = find(path)
    wanted = _filter(connector.key, query)
    found = log.read_log(connector.key, wanted, query.before, query.limit)
    return answer(EventsAnswer.model_validate(found))


def begin_export(path: OfConnector, body: NewExport) -> Response:
    """Have a worker write sync events to a file, newest first, 100,000 at most; no spreadsheet takes a value for a formula."""
    connector = find(path)
    chosen = [name for name in EventsChosen.model_fields if getattr(body, name) is not None]
    kind = {"csv": CSV, "jsonl": NDJSON}[body.format]
    return _shown(log_export.order(connector, kind, _filter(connector.key, body), body.before, chosen=chosen))


def show_export(path: OfRow) -> Response:
    """Show whether a file is written: `done` and `cut` may be downloaded, `cut` ends before its filter does."""
    return _shown(_export(path))


def download_export(path: OfRow) -> WholeResponse:
    """Download a file that is written."""
    export = _export(path)
    if not export.is_ready:
        raise OperationError(
            HTTPStatus.CONFLICT, "not_ready", "The file is not written yet.", "Ask for its state until it is done."
        )
    return log_export.download(export)


def show_event(path: OfRow) -> Response:
    """Show one event, and what else its batch did to the record."""
    connector = find(path)
    with transaction() as session:
        row = event_log.find_event(session, connector.key, path.id)
        if row is None:
            raise not_found("There is no such event of this connector.", "Events are kept for 90 days.")
        labels = log.all_labels(session, connector.key)
        beside = [described(each, labels) for each in event_log.neighbours(session, row)]
    return answer(
        EventAnswer(
            event=EventShape.model_validate(described(row, labels)),
            beside=[EventShape.model_validate(each) for each in beside],
        )
    )


def _export(path: OfRow) -> LogExport:
    export = log_export.find(find(path), path.id)
    if export is None:
        raise not_found("There is no such export of this connector.", f"Files are kept for {RETENTION_HOURS} hours.")
    return export


def _shown(export: LogExport) -> Response:
    return answer(ExportAnswer(export=ExportShape.model_validate(export)))


def _filter(connector_key: int, query: EventsChosen) -> EventFilter:
    wanted = EventFilter(
        direction=query.direction,
        entity=query.entity,
        outcome=query.outcome,
        reason=query.reason,
        cause=query.cause,
        run_id=query.run,
        batch_id=query.batch,
        since=query.since,
        until=query.until,
    )
    if query.record is None:
        return wanted
    with event_log.bounded() as session:
        return log.about(session, connector_key, wanted, query.record)
