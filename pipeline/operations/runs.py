"""Runs: full and incremental fetches and backfills. Start, list, show, cancel and estimate them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import connector as connectors
from db import failure_filter, figures, id_mapping, watermark
from db import run as rows
from db.failure import Failure
from db.run import Run, Slice
from db.session import transaction
from pipeline.domain import budget
from pipeline.domain.kinds import Entity, Role
from pipeline.domain.reasons import REASONS, describe
from pipeline.operations import run_progress
from pipeline.operations.call import Call
from pipeline.operations.errors import conflict, not_found
from pipeline.operations.models import ConnectorRequest, Done, EntityName, Listed, RowId, RowRequest, Shape, Since
from pipeline.operations.registry import operation
from pipeline.operations.run_progress import FetchShape
from pipeline.settings import settings
from pipeline.sync.runs import runs, spending
from pipeline.sync.runs.schedules import OVERLAP

PATH: Final = "/connectors/<connector>/runs"
PAGE: Final = 50
"""Batches of a run that are shown at once."""
LARGE: Final = 0.5
"""Share of the tokens that fetches may still spend today above which a fetch is a large one."""
WALKS: Final = {
    "ascending": "from the lowest id up",
    "descending": "from the highest id down",
    "catch_up": "by time: changes since the start",
    "stored": "through what is stored",
}
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
    """`known` is null before the first fetch. `left` is how many tokens fetches may still spend today."""

    entity: str
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


class BegunAnswer(BaseModel):
    """Ids of the started runs; empty if such runs are already in flight."""

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


class FailedShape(Shape):
    """`record_id` is a Pipedrive id of incoming failures, a Hull id of outgoing ones; `field` the one that stayed behind alone."""

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


class StoryAnswer(Shape):
    """A run with all details. Pass `more` as `before` for the next page of batches."""

    run: FetchShape
    walks: list[WalkShape]
    settings_author: str | None
    batch_states: dict[str, int]
    batches: list[BatchShape]
    more: int | None
    failures: list[FailedShape]


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
    failures: list[FailedShape]


class RunsAsked(ConnectorRequest, Listed):
    """Omitted filters match everything."""

    entity: EntityName | None = None
    kind: Literal["full", "incremental", "backfill"] | None = None
    state: Literal["running", "held", "done", "stopped", "cancelled"] | None = None


class NewFetch(ConnectorRequest):
    """What to fetch: everything, or with `since` only what changed after that moment."""

    entity: EntityName
    changed_only: Annotated[
        bool, Field(description="Send only changed records to Hull; by default all records are sent.")
    ] = False
    since: Since | None = None


class FetchPreviewRequest(ConnectorRequest):
    entity: EntityName


class RunStoryRequest(RowRequest):
    state: BatchState | None = None
    before: RowId | None = None


@operation(
    "GET /connectors/<connector>/fetch-preview",
    role=Role.VIEWER,
    command="fetch preview CONNECTOR ENTITY",
    example="acme person",
)
def preview_fetch(call: Call, request: FetchPreviewRequest) -> PreviewAnswer:
    """Estimate the pages, tokens and time of a full fetch of one entity."""
    with transaction() as session:
        return estimate_fetch(session, call.connector.key, Entity(request.entity))


@operation(
    "POST /connectors/<connector>/fetch-changes",
    role=Role.OPERATOR,
    audit_action="fetch.start",
    command="fetch changes CONNECTOR",
)
def fetch_changes(call: Call, _request: ConnectorRequest) -> BegunAnswer:
    """Start to fetch what changed since the watermark, for both entities."""
    call.require_active()
    begun = []
    for entity in (Entity.ORGANIZATION, Entity.PERSON):
        with transaction() as session:
            since = watermark.walked_to(session, call.connector, entity) - OVERLAP
        try:
            begun.append(_start(call, entity, since=since))
        except runs.RunInProgress:
            continue  # it fetches the same changes
    if not begun:
        call.found_nothing_to_do()
    return BegunAnswer(runs=begun)


@operation(f"GET {PATH}", role=Role.VIEWER, command="runs list CONNECTOR", example="acme --kind full --state stopped")
def list_runs(call: Call, request: RunsAsked) -> RunsAnswer:
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
    f"POST {PATH}/<id>/cancel",
    role=Role.OPERATOR,
    audit_action="run.cancel",
    command="runs cancel CONNECTOR ID",
    example="acme 12",
)
def cancel_run(call: Call, request: RowRequest) -> Done:
    """Cancel a run; records that were already delivered stay."""
    with call.transaction(f"run {request.id}") as session:
        run = _find(session, call, request.id)
        if not runs.cancel(session, run.id):
            raise conflict("run_ended", f"Run {run.id} has already ended: {run.state}.")
    return Done(done="cancelled")


@operation(f"GET {PATH}/<id>/story", role=Role.VIEWER, command="runs show CONNECTOR ID", example="acme 12")
def show_story(call: Call, request: RunStoryRequest) -> StoryAnswer:
    """Show a run with its walks, batches and failures."""
    key = call.connector.key
    with transaction() as session:
        run = _find(session, call, request.id)
        day = spending.budget_status(session, key)
        ends = {each.run_id: each.ends_at for each in spending.forecast_runs(session, key, day)}
        slices = rows.slices_of(session, run.id)
        found = figures.batches_of_run(session, run.id, state=request.state, before=request.before, limit=PAGE + 1)
        return StoryAnswer(
            run=run_progress.describe_run(run, day.now, slices, ends.get(run.id)),
            walks=[
                WalkShape(words=_walk(each) or "", state=each.state, frontier=each.frontier, pages=each.pages)
                for each in slices
            ],
            settings_author=connectors.author_of(session, key, run.settings_version),
            batch_states=figures.count_of_run(session, run.id),
            batches=[BatchShape.model_validate(row) for row in found[:PAGE]],
            more=found[PAGE - 1].id if len(found) > PAGE else None,
            failures=[_failed(each) for each in failure_filter.failures_of(session, key, run_id=run.id)],
        )


@operation(
    "GET /connectors/<connector>/batches/<id>",
    role=Role.VIEWER,
    command="runs batch CONNECTOR ID",
    example="acme 120",
)
def show_batch(call: Call, request: RowRequest) -> BatchAnswer:
    """Show one batch."""
    key = call.connector.key
    with transaction() as session:
        row = figures.describe_batch(session, key, request.id)
        if row is None:
            raise not_found("There is no such batch.", "Successful batches are deleted after a month.")
        return BatchAnswer(
            batch=BatchShape.model_validate(row),
            cause=row.cause,
            enqueued_at=row.enqueued_at,
            lease_until=row.lease_until,
            is_abandoned=row.state == "running" and row.lease_until is not None and row.lease_until < row.now,
            run_id=row.run_id,
            walk=_walk(session.get(Slice, row.slice_id) if row.slice_id is not None else None),
            read_back_id=row.read_back_id,
            extracted_bytes=row.extracted_bytes,
            transformed_bytes=row.transformed_bytes,
            failures=[_failed(each) for each in failure_filter.failures_of(session, key, batch_id=request.id)],
        )


def estimate_fetch(session: Session, connector_key: int, entity: Entity) -> PreviewAnswer:
    """Return the estimate of a full fetch of one entity."""
    day = spending.budget_status(session, connector_key)
    left = day.left_for_fetches
    known = id_mapping.count_known(session, connector_key, entity, spending.READ_STATES)
    running = rows.running_run(session, connector_key, entity, "full")
    cost = budget.fetch_cost(known, settings().page_limit) if known else None
    pace = spending.pace_of(session, connector_key, entity) if cost else 0.0
    return PreviewAnswer(
        entity=entity.value,
        known=known or None,
        is_guess=known >= id_mapping.COUNTED_EXACTLY,
        pages=cost.pages if cost else None,
        tokens=cost.tokens if cost else None,
        left=left,
        took_s=cost.pages * pace if cost else None,
        ends_at=spending.ends_at(day, cost.pages, pace) if cost else None,
        under_way=running.id if running else None,
        is_large=cost is not None and bool(left) and cost.tokens > LARGE * (left or 0),
        waits_for_tomorrow=cost is not None and left is not None and cost.tokens > left,
    )


def _start(call: Call, entity: Entity, *, changed_only: bool = False, since: datetime | None = None) -> int:
    """Start a fetch and write its audit entry. Raises RunInProgress."""
    return runs.start_run(
        call.connector.key,
        entity,
        cause=call.caller.name,
        changed_only=changed_only,
        since=since,
        also=lambda session, run: call.note(session, f"run {run.id}"),
    )


def _find(session: Session, call: Call, run_id: int) -> Run:
    """Return the connector's run with this id. Raises OperationError."""
    run = session.get(Run, run_id)
    if run is None or run.connector_key != call.connector.key:
        raise not_found("There is no such run of this connector.", f"See: pipeline runs list {call.connector.name}")
    return run


def _walk(part: Slice | None) -> str | None:
    return WALKS.get(part.walk, part.walk) if part else None


def _failed(row: Failure) -> FailedShape:
    return FailedShape(
        id=row.id,
        direction=row.direction,
        entity=row.entity,
        record_id=row.record_id,
        stage=row.stage,
        reason=row.reason,
        meaning=describe(row.reason) if row.reason in REASONS else "",
        field=row.field if row.kind == "field" else None,
        updated_at=row.updated_at,
    )
