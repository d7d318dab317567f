"""Text output of the commands about a connector's overview, budget and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from rich.columns import Columns
from rich.progress_bar import ProgressBar
from rich.text import Text

from pipeline.cli.presentation import Presentation
from pipeline.cli.rendering_connectors import state_of
from pipeline.cli.showing import console, duration, moment, say, table
from pipeline.domain.kinds import Entity
from pipeline.operations import budget, overview
from pipeline.operations.budget import BudgetAnswer
from pipeline.operations.credentials import ConnectionShape
from pipeline.operations.models import ConnectorRequest
from pipeline.operations.overview import OverviewAnswer, SchedulesAnswer
from pipeline.operations.registry import Operation

BAR_WIDTH: Final = 40
BY_HAND: Final = {
    "full_fetch": "manual only (full_fetch_cron is empty in the settings)",
    "incremental": "by webhook only (incremental_minutes is 0 in the settings)",
}
"""Kind of a schedule → how records come without it."""


def _overview(_request: BaseModel, seen: OverviewAnswer) -> None:
    planned = {each.kind: f"{moment(each.next_at)} UTC" for each in seen.schedules}
    say(f"{seen.name} ({seen.id}), {state_of(seen.state, seen.pause_reason)}")
    say(f"  {seen.in_step.text}")
    for note in seen.notes:
        say(f"  - {note.message}")
    for run in seen.running:
        say(f"  run {run.id}: {run.title}, {run.counts['read']:,} records read")
    say(f"  today      {', '.join(f'{each.today:,} {each.name}' for each in seen.traffic.courses)}")
    say(f"  Hull       {seen.hull_organization}")
    say(f"  Pipedrive  {seen.pipedrive_company or '-'}")
    say(f"  connected  {_connection(seen.connection)}")
    say(f"  settings   version {seen.settings_version}")
    say(f"  full fetch {planned.get('full_fetch', BY_HAND['full_fetch'])}")
    say(f"  changes    {planned.get('incremental', BY_HAND['incremental'])}")
    for mark in seen.in_step.by_entity:
        claimed = f"{moment(mark.claimed)} UTC" if mark.claimed else "no moment yet"
        say(f"  in step    {Entity(mark.entity).plural} up to {claimed}")
    say(f"  webhooks   {seen.webhooks.sentence}")
    say(f"  failures   {seen.open_failures:,} open")


def _connection(connection: ConnectionShape) -> str:
    if connection.how == "oauth":
        until = moment(connection.expires_at) if connection.expires_at else "-"
        return (
            f"OAuth, as user {connection.user_id or '-'} of company {connection.company_id or '-'}; "
            f"access token until {until} UTC, renewed automatically"
        )
    if connection.how == "api_token":
        return f"API token of company {connection.company_id or '-'}"
    return "not yet: pipeline connectors authorize"


def _schedules(_request: BaseModel, answer: SchedulesAnswer) -> None:
    table(
        "",
        ("what", "when", "next (UTC)", "last (UTC)"),
        [
            (each.kind, each.cron or f"every {each.interval_s or 0} s", each.next_at, each.last_at)
            for each in answer.schedules
        ],
        empty="No schedule: changes arrive by webhook only.",
    )


def _budget(request: ConnectorRequest, day: BudgetAnswer) -> None:
    of = f" of {day.limit:,}; {day.left or 0:,} left" if day.limit else ", without limit"
    say(f"{request.connector}: {day.spent:,} tokens spent today{of}")
    if day.limit:
        _bar(day.spent, day.limit)
        say(f"  fetches may spend {day.left_for_fetches or 0:,} more; {day.reserve or 0:,} are reserved for live work")
    if day.closed_s is not None:
        say(f"  Pipedrive refuses calls: the budget is spent. Next call in {duration(day.closed_s)}; all work waits")
    say(f"  the day ends at {moment(day.resets_at)} UTC, as far as we know")
    _forecast(day)
    table(
        "",
        ("lane", "operation", "calls", "tokens"),
        [(each.lane, each.operation, each.calls, each.tokens) for each in day.lanes],
        empty="  No calls of Pipedrive today.",
    )
    if day.days:
        rows = [(f"{each.day:%Y-%m-%d}", each.calls, each.tokens) for each in reversed(day.days)]
        table("", ("day (UTC)", "calls", "tokens"), rows)


def _forecast(day: BudgetAnswer) -> None:
    expected = day.forecast
    say(
        f"  until then, about: {expected.schedules:,} by schedules, {expected.fetches:,} by fetches in flight, "
        f"{expected.others:,} by everything else; {day.by_end:,} by the end of the day"
        + ("" if day.fits else f", more than the limit of {day.limit:,}")
    )
    for run in day.runs:
        pages = "an unknown number of pages" if run.pages_left is None else f"at most about {run.pages_left:,} pages"
        ends = f"done about {moment(run.ends_at)} UTC" if run.ends_at else "its end is unknown"
        say(f"  run {run.run_id} ({run.entity}s): {pages} left, {ends}")


def _bar(spent: int, limit: int) -> None:
    """Show the share that is spent as a bar, on a terminal only."""
    screen = console()
    if screen.is_terminal:
        bar = ProgressBar(total=limit, completed=min(spent, limit), width=BAR_WIDTH)
        screen.print(Columns([Text(" "), bar, Text(f"{spent / limit:.0%}")]))


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    budget.show_budget: Presentation(show=_budget),
    overview.list_schedules: Presentation(show=_schedules),
    overview.show_overview: Presentation(show=_overview),
}
