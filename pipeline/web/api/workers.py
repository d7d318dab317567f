"""Is work being done? The queues, who listens to them, what is at work, and when the rounds last took place."""

from __future__ import annotations

from datetime import datetime

from flask import Response

from pipeline.operations.models import OfConnector, Shape
from pipeline.operations.runs import BatchShape
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console import guard
from pipeline.web.console.workers import work_seen


class QueueShape(Shape):
    """`messages` nobody has taken yet; null while the broker has not said."""

    name: str
    messages: int | None
    workers: list[str]
    batches: dict[str, int]


class SeenShape(BatchShape):
    connector: str
    lease_until: datetime | None
    run_id: int | None


class WorkAnswer(Shape):
    """`level` is `ok`, `warning` or `error`; `due_s` how long the oldest due work has waited."""

    level: str
    sentence: str
    next_step: str
    due_s: float
    swept_at: datetime | None
    ticked_at: datetime | None
    queues: list[QueueShape]
    at_work: list[SeenShape]
    lately: list[SeenShape]


def add(operations: Operations) -> None:
    operations.get("/workers", show_work, WorkAnswer)
    operations.get("/connectors/<connector>/workers", show_work_of, WorkAnswer)


def show_work() -> Response:
    """Say whether work is being done, for all connectors."""
    guard.require_unlimited()
    return answer(WorkAnswer.model_validate(work_seen(None)))


def show_work_of(path: OfConnector) -> Response:
    """Say whether work is being done, for one connector."""
    return answer(WorkAnswer.model_validate(work_seen(find(path).key)))
