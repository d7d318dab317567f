"""A new connector's way to its first record: which steps are done, and what the first fetch takes."""

from __future__ import annotations

from pydantic import BaseModel

from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.insight import first_steps as insight
from pipeline.operations.call import Call
from pipeline.operations.models import ConnectorRequest, Shape
from pipeline.operations.registry import operation


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


@operation("GET /connectors/<connector>/first-steps", role=Role.VIEWER, command="connectors steps CONNECTOR")
def show_steps(call: Call, _request: ConnectorRequest) -> StepsAnswer:
    """Show which steps a new connector has behind it, and which is next."""
    with transaction() as session:
        progress = insight.progress_of(session, call.connector)
        expected = insight.expected(session, call.connector.key)
    return StepsAnswer(
        steps=list(insight.STEPS),
        done=[step for step in insight.STEPS if step in progress.done],
        following=progress.following,
        first_fetch=ExpectedShape.model_validate(expected),
    )
