"""Pipedrive's daily budget of tokens: what was spent, on what, what is left, and how the day will go on."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.models import ConnectorRequest, Shape
from pipeline.operations.registry import operation
from pipeline.sync.runs import spending
from pipeline.sync.runs.spending import BudgetStatus


class DayShape(Shape):
    day: date
    calls: int
    tokens: int


class LaneShape(Shape):
    lane: str
    operation: str
    calls: int
    tokens: int


class BudgetShape(BaseModel):
    """Pipedrive's day. `limit` is null where there is none; `by_end` is what will have been spent, if it goes on so."""

    spent: int
    limit: int | None
    left_for_fetches: int | None
    by_end: int
    fits: bool
    resets_at: datetime
    closed_s: float | None
    days: list[DayShape]


class ForecastShape(Shape):
    """Forecast of tokens for the rest of the day: by schedules, by fetches in flight, by everything else at the
    current pace."""

    schedules: int
    fetches: int
    others: int


class RunForecastShape(Shape):
    """When a fetch under way will be done; null where nothing tells yet, or where its day is too small for it."""

    run_id: int
    entity: str
    pages_left: int | None
    ends_at: datetime | None


class BudgetAnswer(BudgetShape):
    """`left` is what nobody has spent; `reserve` the part of the day that fetches leave to live work."""

    left: int | None
    reserve: int | None
    forecast: ForecastShape
    runs: list[RunForecastShape]
    lanes: list[LaneShape]


@operation("GET /connectors/<connector>/budget", role=Role.VIEWER, command="budget CONNECTOR")
def show_budget(call: Call, _request: ConnectorRequest) -> BudgetAnswer:
    """Show what was spent of Pipedrive's day, on what, and how the day will go on.

    The day belongs to the Pipedrive company: connectors of one company share it. What others spend, the company's other apps
    and scripts, is not seen here.
    """
    with transaction() as session:
        return budget_of(session, call.connector.key, spending.budget_status(session, call.connector.key))


def budget_of(session: Session, connector_key: int, day: BudgetStatus) -> BudgetAnswer:
    """Return the day as a connector sees it."""
    runs = spending.forecast_runs(session, connector_key, day)
    expected = spending.day_forecast(session, connector_key, day, runs)
    limit, by_end = day.allowance.daily_tokens or None, day.spent + expected.total
    return BudgetAnswer(
        spent=day.spent,
        limit=limit,
        left=day.left,
        reserve=day.allowance.reserve if limit else None,
        left_for_fetches=day.left_for_fetches,
        by_end=by_end,
        fits=limit is None or by_end <= limit,
        resets_at=day.resets_at,
        closed_s=day.closed_s,
        days=[DayShape.model_validate(each) for each in reversed(spending.last_days(session, day))],
        forecast=ForecastShape.model_validate(expected),
        runs=[RunForecastShape.model_validate(each) for each in runs],
        lanes=[LaneShape.model_validate(each) for each in spending.by_lane(session, day)],
    )
