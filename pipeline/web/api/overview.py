"""One connector at a glance: is everything in Hull, what goes on, what is to be done; the day's tokens; the schedules."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from flask import Response
from pydantic import BaseModel

from db.session import transaction
from pipeline.insight import overview as insight
from pipeline.operations.models import Asked, OfConnector, Shape
from pipeline.operations.runs import FetchShape
from pipeline.sync.runs import spending
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find


class ReachedShape(Shape):
    """Everything of this entity that changed before `claimed` is in Hull, but for `excepted` records."""

    entity: str
    claimed: datetime | None
    excepted: int
    deletes_verified_at: datetime | None


class InStepShape(Shape):
    """`level` is `ok`, `warning`, `error`, `paused` or `setupRequired`; `text` is the answer in words."""

    level: str
    text: str
    claimed: datetime | None
    excepted: int
    by_entity: list[ReachedShape]


class NoteShape(Shape):
    level: str
    message: str
    topic: str
    subject: str | None


class CourseShape(Shape):
    """`incoming`, `outgoing`, `skipped` or `failed`; one value for each time."""

    name: str
    values: list[int]
    today: int


class TrafficShape(Shape):
    unit: str
    times: list[datetime]
    as_of: datetime | None
    courses: list[CourseShape]


class DayShape(BaseModel):
    day: date
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


class BudgetAnswer(BudgetShape):
    lanes: list[LaneShape]


class ShellsShape(Shape):
    waiting: int
    oldest: datetime
    late: int


class ListeningShape(Shape):
    is_well: bool
    sentence: str


class PlannedShape(Shape):
    kind: str
    cron: str | None
    interval_s: int | None
    next_at: datetime
    last_at: datetime | None


class SchedulesAnswer(BaseModel):
    schedules: list[PlannedShape]


class OverviewAnswer(BaseModel):
    """All of it was true at the moment `as_of`."""

    as_of: datetime
    name: str
    state: str
    pause_reason: str | None
    in_step: InStepShape
    notes: list[NoteShape]
    traffic: TrafficShape
    budget: BudgetShape
    running: list[FetchShape]
    shells: ShellsShape | None
    webhooks: ListeningShape
    schedules: list[PlannedShape]
    last_runs: list[FetchShape]
    open_failures: int


class Unit(Asked):
    """Traffic of the last day by the hour, or of the last hour by the minute."""

    by: Literal["hour", "minute"] = "hour"


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/overview", show_overview, OverviewAnswer)
    operations.get("/connectors/<connector>/budget", show_budget, BudgetAnswer)
    operations.get("/connectors/<connector>/schedules", list_schedules, SchedulesAnswer)


def show_overview(path: OfConnector, query: Unit) -> Response:
    """Show everything that can be known of a connector without asking the remote systems."""
    connector = find(path)
    with transaction() as session:
        seen = insight.overview(session, connector, query.by)
    return answer(
        OverviewAnswer(
            as_of=seen.as_of,
            name=seen.name,
            state=seen.state,
            pause_reason=seen.pause_reason,
            in_step=InStepShape.model_validate(seen.in_step),
            notes=[NoteShape.model_validate(each) for each in seen.notes],
            traffic=TrafficShape.model_validate(seen.traffic),
            budget=BudgetShape(**_budget(seen.budget)),
            running=[FetchShape.model_validate(each) for each in seen.running],
            shells=ShellsShape.model_validate(seen.shells) if seen.shells else None,
            webhooks=ListeningShape.model_validate(seen.webhooks),
            schedules=[PlannedShape.model_validate(each) for each in seen.planned],
            last_runs=[FetchShape.model_validate(each) for each in seen.last_runs],
            open_failures=seen.open_failures,
        )
    )


def show_budget(path: OfConnector) -> Response:
    """Show what was spent of Pipedrive's day, on what, and how the day will go on."""
    connector = find(path)
    with transaction() as session:
        day = spending.standing(session, connector.key)
        found = insight.budget(session, connector.key, day)
        lanes = [LaneShape.model_validate(each) for each in spending.by_lane(session, day)]
    return answer(BudgetAnswer(**_budget(found), lanes=lanes))


def list_schedules(path: OfConnector) -> Response:
    """List what comes by itself, the next first."""
    connector = find(path)
    with transaction() as session:
        found = insight.planned(session, connector.key)
    return answer(SchedulesAnswer(schedules=[PlannedShape.model_validate(each) for each in found]))


def _budget(found: insight.Budget) -> dict[str, Any]:
    named = {name: getattr(found, name) for name in BudgetShape.model_fields if name != "days"}
    return {**named, "days": [DayShape(day=day, tokens=tokens) for day, tokens in found.days]}
