"""A new connector's way to its first record: which steps are behind it, mappings to begin with, what the first fetch takes."""

from __future__ import annotations

from flask import Response
from pydantic import BaseModel

from db.session import transaction
from pipeline.insight import first_steps as insight
from pipeline.operations.models import OfConnector, Shape
from pipeline.operations.values import Text
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find


class ExpectedShape(Shape):
    """What the last full fetches took; null before the first. `left_today` is null where there is no limit."""

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


class SuggestionShape(Shape):
    """A row that may be taken over as it is. `is_usual` where nearly everybody wants it; others are the company's own fields."""

    hull: Text
    service: str
    field: Text
    type: str
    does: Text
    is_usual: bool


class SuggestionsAnswer(BaseModel):
    """Setting → rows to offer, less what is mapped already."""

    suggestions: dict[str, list[SuggestionShape]]


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/first-steps", show_steps, StepsAnswer)
    operations.get("/connectors/<connector>/suggestions", suggest_mappings, SuggestionsAnswer)


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


def suggest_mappings(path: OfConnector) -> Response:
    """Suggest rows for the mappings of both directions: what nearly everybody maps, and the company's own fields."""
    connector = find(path)
    with transaction() as session:
        found = insight.suggested(session, connector.key)
    shown = {name: [SuggestionShape.model_validate(each) for each in rows] for name, rows in found.items()}
    return answer(SuggestionsAnswer(suggestions=shown))
