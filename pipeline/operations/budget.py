"""Pipedrive's daily budget of tokens: spent tokens by lane, tokens left, and the forecast of the day."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import token_ledger
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
    """The tokens of Pipedrive's day. `limit` is null if there is no limit; `by_end` is the forecast for the end of the day."""

    spent: int
    limit: int | None
    left_for_fetches: int | None
    by_end: int
    fits: bool
    resets_at: datetime
    closed_s: float | None
    days: list[DayShape]


class ForecastShape(Shape):
    """Forecast of tokens for the rest of the day: for schedules, for fetches in flight, and for everything else."""

    schedules: int
    fetches: int
    others: int


class RunForecastShape(Shape):
    """When a fetch in flight will end; `ends_at` is null if it is not known yet, or if no day has enough tokens."""

    run_id: int
    entity: str
    pages_left: int | None
    ends_at: datetime | None


class BudgetAnswer(BudgetShape):
    """`left` is the number of unspent tokens, `reserve` the tokens that fetches leave for live work."""

    left: int | None
    reserve: int | None
    forecast: ForecastShape
    runs: list[RunForecastShape]
    lanes: list[LaneShape]


@operation("GET /connectors/<connector>/budget", role=Role.VIEWER, command="budget CONNECTOR")
def show_budget(call: Call, _request: ConnectorRequest) -> BudgetAnswer:
    """Show the tokens of Pipedrive's day: spent ones by lane, those that are left, and a forecast.

    The day belongs to the Pipedrive company: its connectors share it. Tokens that other apps and scripts of the company spend
    are not known here.
    """
    with transaction() as session:
        return budget_of(session, call.connector.key, spending.budget_status(session, call.connector.key))


def budget_of(session: Session, connector_key: int, day: BudgetStatus) -> BudgetAnswer:
    """Return the budget of a connector's company."""
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
        days=[DayShape.model_validate(each) for each in reversed(token_ledger.last_days(session, day.company, 7))],
        forecast=ForecastShape.model_validate(expected),
        runs=[RunForecastShape.model_validate(each) for each in runs],
        lanes=[LaneShape.model_validate(each) for each in token_ledger.spent_by_lane(session, day.company)],
    )
