"""The comparison of a sample of records on both sides: what the last one came to, and another one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Response

from db.session import transaction
from pipeline.insight import comparing as insight
from pipeline.operations.models import Done, OfConnector, Shape
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who


class ComparedShape(Shape):
    """`sample` is null where everything was compared; `named` are records that differed."""

    finished_at: datetime
    asked_by: str
    sample: int | None
    compared: int
    drift: int
    took_s: float
    tokens: int
    counts: dict[str, Any]
    named: list[dict[str, Any]]


class ComparingAnswer(Shape):
    """`tokens` is what the next one will cost."""

    sample: int
    tokens: int
    under_way: bool
    last: ComparedShape | None


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/verify", show_comparison, ComparingAnswer)
    operations.post("/connectors/<connector>/verify", compare, Done)


def show_comparison(path: OfConnector) -> Response:
    """Show what the last comparison of both sides came to."""
    connector = find(path)
    with transaction() as session:
        return answer(ComparingAnswer.model_validate(insight.comparing(session, connector.key)))


def compare(path: OfConnector) -> Response:
    """Have a sample of records compared on both sides; it takes about a minute."""
    insight.ask(find(path), by=who().name)
    return answer(Done(done="asked"))
