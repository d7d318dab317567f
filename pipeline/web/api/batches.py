"""Batches: the pages of a run and what else is at work, each with its stage, its Celery task and what failed in it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from flask import Response
from pydantic import Field

from db.session import transaction
from pipeline.insight import run_story
from pipeline.operations.errors import not_found
from pipeline.operations.models import Asked, OfRow, Shape
from pipeline.operations.values import RowId
from pipeline.web.api.fetches import FetchShape
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.runs import run_of
from pipeline.web.api.shapes import find

BatchState = Literal["waiting", "ready", "running", "done", "failed", "cancelled"]


class BatchShape(Shape):
    """`task_id` is of the Celery task that had it last."""

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
    id: int
    direction: str
    entity: str
    record_id: str | None
    stage: str
    reason: str
    meaning: str
    updated_at: datetime


class WalkShape(Shape):
    """One cursor of a run; `frontier` is the id it has come to."""

    words: str
    state: str
    frontier: int | None
    pages: int


class StoryAnswer(Shape):
    """A run whole. `more` is where the next page of batches begins."""

    run: FetchShape
    walks: list[WalkShape]
    settings_author: str | None
    batch_states: dict[str, int]
    batches: list[BatchShape]
    more: int | None
    failures: list[FailedShape]


class BatchAnswer(Shape):
    """A batch whole; the bytes are those staged between two stages."""

    batch: Annotated[BatchShape, Field(validation_alias="line")]
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


class BatchesAsked(Asked):
    state: BatchState | None = None
    before: RowId | None = None


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/runs/<id>/story", show_story, StoryAnswer)
    operations.get("/connectors/<connector>/batches/<id>", show_batch, BatchAnswer)


def show_story(path: OfRow, query: BatchesAsked) -> Response:
    """Show a run with its walks, its batches and what failed in it."""
    run = run_of(path)
    with transaction() as session:
        story = run_story.run_story(session, run, state=query.state, before=query.before)
    return answer(StoryAnswer.model_validate(story))


def show_batch(path: OfRow) -> Response:
    """Show one batch."""
    connector = find(path)
    with transaction() as session:
        story = run_story.batch_story(session, connector.key, path.id)
    if story is None:
        raise not_found("There is no such batch.", "Those that ended well are forgotten after a month.")
    return answer(BatchAnswer.model_validate(story))
