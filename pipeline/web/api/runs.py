"""Runs: fetches under way and past; begin and cancel them."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

from flask import Response
from pydantic import BaseModel, Field

from db import run as rows
from db.run import Run
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.insight import acts
from pipeline.insight.run_story import find_run
from pipeline.operations.errors import OperationError, not_found
from pipeline.operations.models import Asked, Done, EntityName, Listed, OfConnector, OfRow, Shape
from pipeline.operations.values import Since
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who


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


class RunsAsked(Listed):
    """What is not named does not matter."""

    entity: EntityName | None = None
    kind: Literal["full", "incremental", "backfill"] | None = None
    state: Literal["running", "held", "done", "stopped", "cancelled"] | None = None


class NewFetch(Asked):
    """What to fetch: everything, or with `since` what has changed from then on."""

    entity: EntityName
    changed_only: Annotated[bool, Field(description="Tell Hull only of what differs from what it was told.")] = False
    since: Since | None = None


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/runs", list_runs, RunsAnswer)
    operations.get("/connectors/<connector>/runs/<id>", show_run, RunShape)
    operations.post("/connectors/<connector>/runs", start_fetch, RunShape)
    operations.post("/connectors/<connector>/runs/<id>/cancel", cancel_run, Done)


def list_runs(path: OfConnector, query: RunsAsked) -> Response:
    """List runs, newest first."""
    connector = find(path)
    chosen = {"entity": query.entity, "kind": query.kind, "state": query.state}
    with transaction() as session:
        found = rows.find_runs(session, connector.key, before=query.before, limit=query.limit, **chosen)
    return answer(RunsAnswer(runs=[RunShape.model_validate(each) for each in found]))


def show_run(path: OfRow) -> Response:
    """Show one run."""
    return answer(RunShape.model_validate(run_of(path)))


def start_fetch(path: OfConnector, body: NewFetch) -> Response:
    """Begin a fetch; it goes on by itself."""
    connector = find(path)
    run_id = acts.fetch(connector, Entity(body.entity), by=who().name, changed_only=body.changed_only, since=body.since)
    with transaction() as session:
        return answer(RunShape.model_validate(session.get_one(Run, run_id)))


def cancel_run(path: OfRow) -> Response:
    """Stop a run; what it has carried over stays."""
    run = run_of(path)
    if not acts.cancel_run(find(path), run.id, by=who().name):
        raise OperationError(HTTPStatus.CONFLICT, "run_ended", f"Run {run.id} had ended already: {run.state}.")
    return answer(Done(done="cancelled"))


def run_of(path: OfRow) -> Run:
    """The connector's run of that number. Raises: OperationError."""
    connector = find(path)
    with transaction() as session:
        run = find_run(session, connector.key, path.id)
    if run is None:
        raise not_found("There is no such run of this connector.")
    return run
