"""A new connector's way to its first record: which steps are behind it, what the first fetch takes."""

from __future__ import annotations

from flask import Response
from pydantic import BaseModel

from db.session import transaction
from pipeline.insight import first_steps as insight
from pipeline.operations.models import OfConnector, Shape
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find


class ExpectedShape(Shape):
    """Cost of the last full fetches; null before the first. `left_today` is null if there is no limit."""

    page_limit: int
    tokens_known: int | None
    seconds_known: float | None
    left_today: int | None


class StepsAnswer(BaseModel):
    """`following` is the next step of `steps` to take; null when all are `done`."""

    steps: list[str]
    done: list[str]
    following: str | None
    first_fetch: ExpectedShape


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/first-steps", show_steps, StepsAnswer)


def show_steps(path: OfConnector) -> Response:
    """Show which steps a new connector has behind it, and which is next."""
    connector = find(path)
    with transaction() as session:
        progress = insight.progress_of(session, connector)
        expected = insight.expected(session, connector.key)
    return answer(
        StepsAnswer(
            steps=list(insight.STEPS),
            done=[step for step in insight.STEPS if step in progress.done],
            following=progress.following,
            first_fetch=ExpectedShape.model_validate(expected),
        )
    )
