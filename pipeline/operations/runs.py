"""Runs: full and incremental fetches and backfills. Start, list, show, cancel and estimate them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import connector as connectors
from db import failure_filter, figures, id_mapping, watermark
from db import run as rows
from db.authorisation import connection_of
from db.failure import Failure
from db.failure_filter import FailureFilter
from db.run import Run, Slice
from db.session import transaction
from pipeline.domain import budget
from pipeline.domain.kinds import Entity, Role
from pipeline.domain.reasons import REASONS, describe
from pipeline.operations import run_progress
from pipeline.operations.call import Call
from pipeline.operations.errors import conflict, impossible, not_found
from pipeline.operations.models import (
    ConnectorRequest,
    Done,
    EntityName,
    Moment,
    PageRequest,
    RowId,
    RowRequest,
    Shape,
    shape_of,
    split_page,
)
from pipeline.operations.registry import operation
from pipeline.operations.run_progress import FetchShape
from pipeline.settings import settings
from pipeline.sync.runs import runs, spending
from pipeline.sync.runs.schedules import OVERLAP

PATH: Final = "/connectors/<connector>/runs"
PAGE: Final = 50
"""Batches of a run in one answer."""
LARGE: Final = 0.5
"""A fetch is large above this share of the tokens that fetches may still spend today."""
WALKS: Final = {
    "ascending": "from the lowest id up",
    "descending": "from the highest id down",
    "catch_up": "by time: changes since the start",
    "stored": "through what is stored",
}
RunState = Literal["running", "held", "done", "stopped", "cancelled"]
BatchState = Literal["waiting", "ready", "running", "done", "failed", "cancelled"]


class RunShape(Shape):
    """One full or incremental fetch of one entity, or a backfill, with its counters."""

    id: int
    entity: str
    kind: str
    state: str
    phase: str
    reason: str | None
    cause: str
    changed_only: bool
    since: datetime | None
    settings_version: int
    started_at: datetime
    finished_at: datetime | None
    pages: int
    read: int
    new: int
    changed: int
    same: int
    skipped: int
    failed: int
    rejected_fields: int
    shells: int
    links: int
    messages: int
    requests: int
    tokens: int


class RunsAnswer(BaseModel):
    runs: list[RunShape]


class PreviewAnswer(Shape):
    """`known` is null before the first fetch. `left` is how many tokens fetches may still spend today.

    `entity` is null for the sum of both entities.
    """

    entity: str | None
    known: int | None
    is_guess: bool
    pages: int | None
    tokens: int | None
    left: int | None
    took_s: float | None
    ends_at: datetime | None
    under_way: int | None
    is_large: bool
    waits_for_tomorrow: bool


class StartedRunsAnswer(BaseModel):
    """Ids of the started runs, without those that were already in flight."""

    runs: list[int]


class BatchShape(Shape):
    """`task_id` is the last Celery task of the batch."""

    id: int
    direction: str
    entity: str
    queue: str
    stage: str
    state: str
    attempts: int
    records: int
    created_at: datetime
    due_at: datetime
    task_id: str | None


class RunFailureShape(Shape):
    """An open failure; `record_id` is a Pipedrive id if it is incoming, a Hull id if it is outgoing.

    With a `field`, only this field was left out.
    """

    id: int
    direction: str
    entity: str
    record_id: str | None
    stage: str
    reason: str
    meaning: str
    field: str | None
    updated_at: datetime


class WalkShape(Shape):
    """One cursor of a run; `frontier` is the id it has reached."""

    words: str
    state: str
    frontier: int | None
    pages: int


class RunDetailsAnswer(Shape):
    """A run with all details. For the next page of batches, send `more` as `before`."""

    run: FetchShape
    walks: list[WalkShape]
    settings_author: str | None
    batch_states: dict[str, int]
    batches: list[BatchShape]
    more: int | None
    failures: list[RunFailureShape]


class BatchAnswer(Shape):
    """A batch with all details; the byte counts are the data stored between two stages."""

    batch: BatchShape
    cause: str | None
    enqueued_at: datetime | None
    lease_until: datetime | None
    is_abandoned: bool
    run_id: int | None
    walk: str | None
    read_back_id: int | None
    extracted_bytes: int | None
    transformed_bytes: int | None
    failures: list[RunFailureShape]


class RunsRequest(ConnectorRequest, PageRequest):
    """Omitted filters match everything."""

    entity: EntityName | None = None
    kind: Annotated[Literal["full", "incremental", "backfill"] | None, Field(description="The kind of run.")] = None
    state: Annotated[RunState | None, Field(description="The state of the run.")] = None


class NewFetch(ConnectorRequest):
    """What to fetch: everything, or with `since` only what changed after that moment."""

    entity: EntityName
    changed_only: Annotated[
        bool, Field(description="Send only changed records to Hull; by default all records are sent.")
    ] = False
    since: Moment | None = None


class FetchPreviewRequest(ConnectorRequest):
    entity: Annotated[EntityName | None, Field(description="Omit it for both.")] = None


class FirstFetches(ConnectorRequest):
    entities: Annotated[list[EntityName], Field(min_length=1, max_length=2, description="By default both.")] = Field(
        default=["organization", "person"]
    )


class RunDetailsRequest(RowRequest):
    state: Annotated[BatchState | None, Field(description="Only batches in this state.")] = None
    before: Annotated[RowId | None, Field(description="Only batches older than this id.")] = None


@operation("GET /connectors/<connector>/fetch-preview", role=Role.VIEWER, command="fetch preview CONNECTOR [ENTITY]")
def preview_fetch(call: Call, request: FetchPreviewRequest) -> PreviewAnswer:
    """Estimate the pages, tokens and time of a full fetch of one entity, or of both."""
    entities = [Entity(request.entity)] if request.entity else list(Entity)
    with transaction() as session:
        return estimate_fetch(session, call.connector.key, *entities)


@operation(
    "POST /connectors/<connector>/fetch-changes",
    role=Role.OPERATOR,
    audit_action="fetch.start",
    command="fetch changes CONNECTOR",
)
def fetch_changes(call: Call, _request: ConnectorRequest) -> StartedRunsAnswer:
    """Start an incremental fetch of both entities: what changed since the watermark. Runs in flight continue."""
    call.require_active()
    entities = (Entity.ORGANIZATION, Entity.PERSON)
    with transaction() as session:
        since = {entity: watermark.walked_to(session, call.connector, entity) - OVERLAP for entity in entities}
    return _start_missing(call, since)


@operation(
    "POST /connectors/<connector>/first-fetches",
    role=Role.OPERATOR,
    audit_action="fetch.start",
    command="fetch first CONNECTOR",
)
def start_first_fetches(call: Call, request: FirstFetches) -> StartedRunsAnswer:
    """Start a full fetch of each entity that has none in flight, Organizations first. `fetch all --wait` shows progress."""
    with transaction() as session:
        is_connected = connection_of(session, call.connector).how is not None
    if not is_connected or call.connector.state != "active":
        message = f"{call.connector.name} cannot fetch yet."
        raise impossible(message, "Connect it to Pipedrive, or resume it under Credentials.")
    return _start_missing(call, dict.fromkeys(sorted(map(Entity, request.entities))), why="first fetch")


@operation(f"GET {PATH}", role=Role.VIEWER, command="runs list CONNECTOR", example="acme --kind full --state stopped")
def list_runs(call: Call, request: RunsRequest) -> RunsAnswer:
    """List runs, newest first."""
    chosen = {"entity": request.entity, "kind": request.kind, "state": request.state}
    with transaction() as session:
        found = rows.find_runs(session, call.connector.key, before=request.before, limit=request.limit, **chosen)
    return RunsAnswer(runs=[RunShape.model_validate(each) for each in found])


@operation(
    f"POST {PATH}",
    role=Role.OPERATOR,
    audit_action="fetch.start",
    command="fetch start CONNECTOR ENTITY",
    example="acme person --changed-only",
)
def start_fetch(call: Call, request: NewFetch) -> RunShape:
    """Start a fetch; the workers complete it in the background."""
    call.require_active()
    run_id = _start(call, Entity(request.entity), changed_only=request.changed_only, since=request.since)
    with transaction() as session:
        return RunShape.model_validate(session.get_one(Run, run_id))


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="runs status CONNECTOR ID", example="acme 12")
def show_run(call: Call, request: RowRequest) -> RunShape:
    """Show one run."""
    with transaction() as session:
        return RunShape.model_validate(_find(session, call, request.id))


@operation(
    f"POST {PATH}/<id>/cancel", role=Role.OPERATOR, audit_action="run.cancel", command="runs cancel CONNECTOR ID"
)
def cancel_run(call: Call, request: RowRequest) -> Done:
    """Cancel a run; records that were already delivered stay."""
    with call.transaction(f"run {request.id}") as session:
        run = _find(session, call, request.id)
        if not runs.cancel(session, run.id):
            raise conflict("run_ended", f"Run {run.id} has already ended: {run.state}.")
    return Done(done="cancelled")


@operation(f"GET {PATH}/<id>/details", role=Role.VIEWER, command="runs show CONNECTOR ID", example="acme 12")
def show_run_details(call: Call, request: RunDetailsRequest) -> RunDetailsAnswer:
    """Show a run with its walks, batches and failures."""
    key = call.connector.key
    with transaction() as session:
        run = _find(session, call, request.id)
        day = spending.budget_status(session, key)
        ends = {each.run_id: each.ends_at for each in spending.forecast_runs(session, key, day)}
        version = connectors.find_settings(session, key, run.settings_version)
        slices = rows.slices_of(session, run.id)
        found = figures.batches_of_run(session, run.id, state=request.state, before=request.before, limit=PAGE + 1)
        shown, more = split_page(found, PAGE)
        return RunDetailsAnswer(
            run=run_progress.describe_run(run, day.now, slices, ends.get(run.id)),
            walks=[
                WalkShape(words=_walk(each) or "", state=each.state, frontier=each.frontier, pages=each.pages)
                for each in slices
            ],
            settings_author=version.author if version else None,
            batch_states=figures.count_of_run(session, run.id),
            batches=[BatchShape.model_validate(row) for row in shown],
            more=more,
            failures=_failures(session, FailureFilter(connector_key=key, run_id=run.id)),
        )


@operation("GET /connectors/<connector>/batches/<id>", role=Role.VIEWER, command="runs batch CONNECTOR ID")
def show_batch(call: Call, request: RowRequest) -> BatchAnswer:
    """Show one batch."""
    key = call.connector.key
    with transaction() as session:
        row = figures.describe_batch(session, key, request.id)
        if row is None:
            raise not_found("There is no such batch.", "Successful batches are deleted after a month.")
        return shape_of(
            BatchAnswer,
            row,
            batch=BatchShape.model_validate(row),
            is_abandoned=row.state == "running" and row.lease_until is not None and row.lease_until < row.now,
            walk=_walk(session.get(Slice, row.slice_id) if row.slice_id is not None else None),
            failures=_failures(session, FailureFilter(connector_key=key, batch_id=request.id)),
        )


def estimate_fetch(session: Session, connector_key: int, *entities: Entity) -> PreviewAnswer:
    """Return the estimate of a full fetch of these entities, which run at the same time."""
    day = spending.budget_status(session, connector_key)
    left = day.left_for_fetches
    counts = [id_mapping.count_known(session, connector_key, entity, spending.READ_STATES) for entity in entities]
    running = [rows.running_run(session, connector_key, entity, "full") for entity in entities]
    pages = tokens = took_s = ends_at = None
    if all(counts):
        costs = [budget.fetch_cost(count, settings().page_limit) for count in counts]
        paces = [spending.pace_of(session, connector_key, entity) for entity in entities]
        pages, tokens = sum(each.pages for each in costs), sum(each.tokens for each in costs)
        took_s = max(cost.pages * pace for cost, pace in zip(costs, paces, strict=True))
        ends_at = spending.ends_at(day, pages, took_s / pages)
    return PreviewAnswer(
        entity=entities[0].value if len(entities) == 1 else None,
        known=sum(counts) or None,
        is_guess=any(count >= id_mapping.COUNTED_EXACTLY for count in counts),
        pages=pages,
        tokens=tokens,
        left=left,
        took_s=took_s,
        ends_at=ends_at,
        under_way=next((run.id for run in running if run is not None), None),
        is_large=tokens is not None and bool(left) and tokens > LARGE * (left or 0),
        waits_for_tomorrow=tokens is not None and left is not None and tokens > left,
    )


def _start_missing(call: Call, since: Mapping[Entity, datetime | None], *, why: str | None = None) -> StartedRunsAnswer:
    """Start a fetch of each entity since a moment, or of everything, unless such a run is in flight."""
    started = []
    for entity, moment in since.items():
        with suppress(runs.RunInProgress):
            started.append(_start(call, entity, since=moment, why=why))
    if not started:
        call.found_nothing_to_do()
    return StartedRunsAnswer(runs=started)


def _start(
    call: Call,
    entity: Entity,
    *,
    changed_only: bool = False,
    since: datetime | None = None,
    why: str | None = None,
) -> int:
    """Start a fetch and write its audit entry. Raises RunInProgress."""
    return runs.start_run(
        call.connector.key,
        entity,
        cause=call.caller.name,
        changed_only=changed_only,
        since=since,
        also=lambda session, run: call.note(session, f"run {run.id}", why=why),
    )


def _find(session: Session, call: Call, run_id: int) -> Run:
    """Return the connector's run with this id. Raises OperationError."""
    run = session.get(Run, run_id)
    if run is None or run.connector_key != call.connector.key:
        raise not_found("There is no such run of this connector.", f"See: pipeline runs list {call.connector.name}")
    return run


def _walk(part: Slice | None) -> str | None:
    return WALKS.get(part.walk, part.walk) if part else None


def _failures(session: Session, chosen: FailureFilter) -> list[RunFailureShape]:
    found = failure_filter.find_failures(session, chosen, limit=20, reads_payloads=False)
    return [_failed(row) for row in found]


def _failed(row: Failure) -> RunFailureShape:
    meaning = describe(row.reason, row.direction) if row.reason in REASONS else ""
    return shape_of(RunFailureShape, row, meaning=meaning, field=row.field if row.kind == "field" else None)
