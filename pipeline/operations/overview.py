"""The overview of one connector: how up to date Hull is, current work, problems, and schedules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import connector as connectors
from db import event_count, failure, schedule, shell
from db import run as run_rows
from db.authorisation import connection_of
from db.event_count import CountedEvents
from db.session import transaction
from db.token_ledger import moment
from pipeline.domain.kinds import Role
from pipeline.operations import run_progress
from pipeline.operations.budget import BudgetShape, budget_of
from pipeline.operations.call import Call
from pipeline.operations.condition import FreshnessShape, NoteShape, judge_condition
from pipeline.operations.credentials import ConnectionShape
from pipeline.operations.models import ConnectorRequest, Shape, shape_of
from pipeline.operations.registry import operation
from pipeline.operations.run_progress import FetchShape
from pipeline.sync.connectors.webhooks import subscription_health
from pipeline.sync.runs import spending

LAST_RUNS: Final = 8
RUN_KINDS: Final = {"full_fetch": "full"}
"""Kind of a schedule → kind of the runs it starts, where the two differ."""
STEPS: Final = {"hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
SPANS: Final = {"hour": 24, "minute": 60}
"""Number of hours or minutes that a course shows, including the current one."""
COURSES: Final = ("incoming", "outgoing", "skipped", "failed")
"""Records delivered to Hull, delivered to Pipedrive, skipped on purpose, and failed."""
RECORDS: Final = frozenset({"user", "account"})


class CourseShape(Shape):
    """`name` is `incoming`, `outgoing`, `skipped` or `failed`; `values` has one number for each time."""

    name: str
    values: list[int]
    today: int


class TrafficShape(Shape):
    """All events up to `as_of` are counted; it is null before the first count."""

    unit: str
    times: list[datetime]
    as_of: datetime | None
    courses: list[CourseShape]


class ShellsShape(Shape):
    """Organizations with nothing known but the id; `late` ones wait too long."""

    waiting: int
    oldest: datetime
    late: int


class WebhookHealthShape(Shape):
    is_well: bool
    sentence: str


class ScheduleShape(Shape):
    kind: str
    cron: str | None
    interval_s: int | None
    next_at: datetime
    last_at: datetime | None


class SchedulesAnswer(BaseModel):
    schedules: list[ScheduleShape]


class OverviewAnswer(BaseModel):
    """The state of a connector at `as_of`."""

    as_of: datetime
    id: str
    name: str
    hull_organization: str
    pipedrive_company: str | None
    state: str
    pause_reason: str | None
    connection: ConnectionShape
    settings_version: int
    in_step: FreshnessShape
    notes: list[NoteShape]
    traffic: TrafficShape
    budget: BudgetShape
    running: list[FetchShape]
    shells: ShellsShape | None
    webhooks: WebhookHealthShape
    schedules: list[ScheduleShape]
    last_runs: list[FetchShape]
    open_failures: int


class Unit(ConnectorRequest):
    """Traffic of the last day by the hour, or of the last hour by the minute."""

    by: Annotated[Literal["hour", "minute"], Field(description="The unit of the traffic.")] = "hour"


@operation("GET /connectors/<connector>/overview", role=Role.VIEWER, command="connectors show CONNECTOR")
def show_overview(call: Call, request: Unit) -> OverviewAnswer:
    """Show the state of a connector from stored data; Hull and Pipedrive are not called."""
    connector = call.connector
    with transaction() as session:
        now, judged = moment(session), judge_condition(session, connector)
        day = spending.budget_status(session, connector.key)
        return shape_of(
            OverviewAnswer,
            connector,
            as_of=now,
            connection=ConnectionShape.model_validate(connection_of(session, connector)),
            settings_version=connectors.settings_in_force(session, connector.key).version,
            in_step=judged.in_step,
            notes=list(judged.notes),
            traffic=_traffic(session, connector.key, now, request.by),
            budget=budget_of(session, connector.key, day),
            running=run_progress.runs_in_flight(session, connector.key, day),
            shells=_shells(session, connector.key),
            webhooks=WebhookHealthShape.model_validate(subscription_health(session, connector.key)),
            schedules=_schedules(session, connector.key),
            last_runs=run_progress.latest_runs(session, connector.key, now, LAST_RUNS),
            open_failures=sum(failure.count_open(session, connector.key).values()),
        )


@operation("GET /connectors/<connector>/schedules", role=Role.VIEWER, command="connectors schedules CONNECTOR")
def list_schedules(call: Call, _request: ConnectorRequest) -> SchedulesAnswer:
    """List the schedules of fetches, the next first."""
    with transaction() as session:
        return SchedulesAnswer(schedules=_schedules(session, call.connector.key))


def _schedules(session: Session, connector_key: int) -> list[ScheduleShape]:
    rows = sorted(schedule.schedules_of(session, connector_key), key=lambda row: row.next_run_at)
    last = {row.kind: run_rows.last_started(session, connector_key, RUN_KINDS.get(row.kind, row.kind)) for row in rows}
    return [
        shape_of(
            ScheduleShape,
            row,
            next_at=row.next_run_at,
            last_at=max((at for at in (row.last_run_at, last[row.kind]) if at is not None), default=None),
        )
        for row in rows
    ]


def _shells(session: Session, connector_key: int) -> ShellsShape | None:
    ages = shell.shell_ages(session, connector_key)
    return ShellsShape(waiting=ages[0].shells, oldest=ages[0].oldest, late=ages[0].late) if ages else None


def _traffic(session: Session, connector_key: int, now: datetime, unit: str) -> TrafficShape:
    """Return the traffic of the last day by hour, or of the last hour by minute, and the totals since midnight, UTC."""
    times = times_until(now, unit)
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    counts = event_count.counts_since(session, connector_key, times[0], unit)
    todays = counts if unit == "hour" else event_count.counts_since(session, connector_key, midnight, "hour")
    counted_to = event_count.counted_to(session)
    is_fresh = counted_to is not None and now - counted_to < event_count.FRESH
    by_time, today = _sums(counts), _sums(each for each in todays if each.at >= midnight)
    courses = [
        CourseShape(
            name=name,
            values=[by_time[name, at] for at in times],
            today=sum(count for (course, _), count in today.items() if course == name),
        )
        for name in COURSES
    ]
    return TrafficShape(unit=unit, times=times, as_of=now if is_fresh else counted_to, courses=courses)


def _sums(counts: Iterable[CountedEvents]) -> Counter[tuple[str | None, datetime]]:
    """Return (course, time) → events."""
    sums = Counter[tuple[str | None, datetime]]()
    for each in counts:
        sums[course_of(each.event), each.at] += each.n
    return sums


def times_until(now: datetime, unit: str) -> list[datetime]:
    """Return the start of each of the last hours or minutes, the oldest first."""
    newest = now.astimezone(UTC).replace(second=0, microsecond=0)
    newest = newest.replace(minute=0) if unit == "hour" else newest
    return [newest - STEPS[unit] * back for back in reversed(range(SPANS[unit]))]


def course_of(event: str) -> str | None:
    """Return the course that counts an event: `incoming.user.success` → `incoming`; None if no course does."""
    direction, _, rest = event.partition(".")
    subject, _, outcome = rest.partition(".")
    if direction not in ("incoming", "outgoing") or subject not in RECORDS:
        return None
    return {"success": direction, "skip": "skipped", "error": "failed"}.get(outcome)
