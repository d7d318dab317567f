"""Replays: how far each is, what became of every item; pause, resume, abort. They begin in `failure_acts`."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from flask import Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import replay as rows
from db.connector import Connector
from db.session import transaction
from pipeline.insight import replays as insight
from pipeline.jobs.replays import start
from pipeline.operations.errors import OperationError, not_found
from pipeline.operations.models import Asked, Done, Listed, OfConnector, OfRow, Shape
from pipeline.operations.values import RowId, Text
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who

ItemState = Literal[
    "waiting", "sent", "came_through", "already_applied", "superseded", "skipped", "failed_again", "refused", "aborted"
]


class ReplayShape(Shape):
    """`counts` is how many items are in which state; `left_s` what the pace alone takes for those that wait.

    One that stopped by itself says why by its `reason`, and what to do before it is resumed by `advice`.
    """

    id: int
    asked_by: str
    why: str
    chosen: dict[str, Any]
    per_second: float
    state: str
    reason: str | None
    meaning: str
    advice: str
    detail: Text | None
    total: int
    settled: int
    counts: dict[str, int]
    left_s: float
    summary: str
    created_at: datetime
    ended_at: datetime | None


class ReplaysAnswer(BaseModel):
    replays: list[ReplayShape]


class ReplayItemShape(Shape):
    """One failure of a replay. `task_id` is the last Celery task of the batch that carried it."""

    id: int
    failure_id: int
    title: str
    reason: str
    state: str
    words: str
    detail: Text | None
    sent_at: datetime | None
    settled_at: datetime | None
    batch_id: int | None
    task_id: str | None
    new_failure_id: int | None


class ReplayItemsAnswer(BaseModel):
    items: list[ReplayItemShape]


class ReplayItemsAsked(Asked):
    state: ItemState | None = None
    after: Annotated[RowId | None, Field(description="Only items that come after this one.")] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50


def add(operations: Operations) -> None:
    base = "/connectors/<connector>/replays"
    operations.get(base, list_replays, ReplaysAnswer)
    operations.get(f"{base}/<id>", show_replay, ReplayShape)
    operations.get(f"{base}/<id>/items", list_replay_items, ReplayItemsAnswer)
    operations.post(f"{base}/<id>/pause", pause_replay, Done)
    operations.post(f"{base}/<id>/resume", resume_replay, Done)
    operations.post(f"{base}/<id>/abort", abort_replay, Done)


def list_replays(path: OfConnector, query: Listed) -> Response:
    """List replays, newest first."""
    connector = find(path)
    with transaction() as session:
        found = rows.latest_replays(session, connector.key, before_id=query.before, limit=query.limit)
        shown = insight.progress_of(session, found)
    return answer(ReplaysAnswer(replays=[ReplayShape.model_validate(each) for each in shown]))


def show_replay(path: OfRow) -> Response:
    """Show one replay, and how far it is."""
    connector = find(path)
    with transaction() as session:
        shown = insight.progress_of(session, [_replay(session, connector, path.id)])
    return answer(ReplayShape.model_validate(shown[0]))


def list_replay_items(path: OfRow, query: ReplayItemsAsked) -> Response:
    """List what became of each failure of a replay, in the order in which they are sent."""
    connector = find(path)
    with transaction() as session:
        replay = _replay(session, connector, path.id)
        found = insight.items_of(session, replay.id, state=query.state, after_id=query.after, limit=query.limit)
    return answer(ReplayItemsAnswer(items=[ReplayItemShape.model_validate(each) for each in found]))


def pause_replay(path: OfRow) -> Response:
    """Send nothing more of a replay for now; what was sent goes on."""
    return _act(path, "paused")


def resume_replay(path: OfRow) -> Response:
    """Let a replay go on that was paused, or that stopped by itself."""
    return _act(path, "resumed")


def abort_replay(path: OfRow) -> Response:
    """End a replay; what was not sent stays open."""
    return _act(path, "aborted")


_ACTS: Final = {"paused": start.pause, "resumed": start.resume, "aborted": start.abort}


def _act(path: OfRow, done: str) -> Response:
    connector = find(path)
    with transaction() as session:
        replay = _replay(session, connector, path.id)
        if not _ACTS[done](session, replay.id, by=who().name):
            sentence = f"Replay {replay.id} is {replay.state}, so it cannot be {done}."
            raise OperationError(HTTPStatus.CONFLICT, "wrong_state", sentence)
    return answer(Done(done=done))


def _replay(session: Session, connector: Connector, replay_id: int) -> rows.Replay:
    found = rows.find_replay(session, replay_id)
    if found is None or found.connector_key != connector.key:
        raise not_found("There is no such replay of this connector.")
    return found
