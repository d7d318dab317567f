"""Presentations of the commands about connectors, their overview, budget and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click
from rich.columns import Columns
from rich.progress_bar import ProgressBar
from rich.text import Text

from pipeline.cli.calling import Caller
from pipeline.cli.output import console, duration, echo, is_confirmed, moment
from pipeline.cli.presentation import Presentation, Show, lines, print_rows, rows
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.operations import budget, connectors, overview
from pipeline.operations.budget import BudgetAnswer
from pipeline.operations.connectors import BY_HAND, ConnectorAdded, ConnectorAnswer, RemovalRequest, Removed
from pipeline.operations.credentials import ConnectionShape
from pipeline.operations.models import ConnectorRequest
from pipeline.operations.overview import OverviewAnswer
from pipeline.operations.registry import Operation

BAR_WIDTH: Final = 40
WITHOUT_SCHEDULE: Final = {
    "full_fetch": "manual only (full_fetch_cron is empty in the settings)",
    "incremental": "by webhook only (incremental_minutes is 0 in the settings)",
}
"""Kind of a schedule → how records arrive without it."""


def state_of(state: str, reason: str | None) -> str:
    """Return the state of a connector, with the reason why it paused itself, if it did."""
    if not reason or reason == BY_HAND:
        return state
    return f"{state}: {REASONS[reason].meaning if reason in REASONS else reason}"


def show_status(_request: Any, answer: ConnectorAnswer) -> None:
    found = answer.connector
    echo(f"{found.name} ({found.id}), {state_of(found.state, found.pause_reason)}: {answer.status.status}")
    for message in answer.status.messages:
        echo(f"  - {message}")
    echo(f"  {answer.status.open_failures:,} failures are open")


def show_added(_request: Any, answer: ConnectorAdded) -> None:
    made = answer.connector
    if made.pipedrive_company is None:
        echo(
            f"Connector {made.name} of {made.hull_organization} was added; its work waits until it is connected to Pipedrive."
        )
        echo(f"Next: pipeline connectors authorize {made.name}")
        return
    echo(f"Connector {made.name} joins {made.hull_organization} to {made.pipedrive_company}.")
    if answer.webhooks != "ok":
        echo(f"Pipedrive does not send its changes here yet: {answer.webhooks}")
        echo(f"Once it can reach PUBLIC_URL: pipeline connectors webhooks {made.name}")
    echo(f"Next: pipeline settings show {made.name}, then pipeline fetch all {made.name} --wait")


def confirm_removal(caller: Caller, fields: dict[str, Any]) -> None:
    """Prompt for confirmation, and set `name` as the request needs it."""
    if "name" in fields:
        return
    found = caller.call(connectors.show_connector, ConnectorRequest(connector=fields["connector"])).connector
    if not is_confirmed():
        click.confirm(f"Remove {found.name} ({found.hull_organization}) with its id map and its history?", abort=True)
    fields["name"] = found.name


def show_removed(request: RemovalRequest, answer: Removed) -> None:
    echo(f"Connector {request.name} was removed.")
    if answer.left:
        echo(f"Its webhooks could not be deleted in Pipedrive: {answer.left}")
        echo("We refuse their deliveries from now on. Delete them in Pipedrive, or Pipedrive does so after three days.")


def show_overview(_request: Any, seen: OverviewAnswer) -> None:
    planned = {each.kind: f"{moment(each.next_at)} UTC" for each in seen.schedules}
    echo(f"{seen.name} ({seen.id}), {state_of(seen.state, seen.pause_reason)}")
    echo(f"  {seen.in_step.text}")
    for note in seen.notes:
        echo(f"  - {note.message}")
    for run in seen.running:
        echo(f"  run {run.id}: {run.title}, {run.counts['read']:,} records read")
    facts = {
        "today": ", ".join(f"{each.today:,} {each.name}" for each in seen.traffic.courses),
        "Hull": seen.hull_organization,
        "Pipedrive": seen.pipedrive_company or "-",
        "connected": connection_text(seen.connection),
        "settings": f"version {seen.settings_version}",
        "full fetch": planned.get("full_fetch", WITHOUT_SCHEDULE["full_fetch"]),
        "changes": planned.get("incremental", WITHOUT_SCHEDULE["incremental"]),
        "webhooks": seen.webhooks.sentence,
        "failures": f"{seen.open_failures:,} open",
    }
    for name, text in facts.items():
        echo(f"  {name:<10} {text}")
    for mark in seen.in_step.by_entity:
        until = f"{moment(mark.claimed)} UTC" if mark.claimed else "not known before the first full fetch"
        echo(f"  up to date {Entity(mark.entity).plural}: {until}")


def connection_text(connection: ConnectionShape) -> str:
    if connection.how == "oauth":
        until = moment(connection.expires_at) if connection.expires_at else "-"
        return (
            f"OAuth, as user {connection.user_id or '-'} of company {connection.company_id or '-'}; "
            f"access token until {until} UTC, renewed automatically"
        )
    if connection.how == "api_token":
        return f"API token of company {connection.company_id or '-'}"
    return "not yet: pipeline connectors authorize"


def show_budget(request: ConnectorRequest, day: BudgetAnswer) -> None:
    of = f" of {day.limit:,}; {day.left or 0:,} left" if day.limit else ", without limit"
    echo(f"{request.connector}: {day.spent:,} tokens spent today{of}")
    if day.limit:
        _print_bar(day.spent, day.limit)
        echo(f"  fetches may spend {day.left_for_fetches or 0:,} more; {day.reserve or 0:,} are reserved for live work")
    if day.closed_s is not None:
        echo(f"  Pipedrive refuses calls: the budget is spent. Next call in {duration(day.closed_s)}; all work waits")
    echo(f"  the day ends at {moment(day.resets_at)} UTC, as far as we know")
    expected = day.forecast
    echo(
        f"  until then, about: {expected.schedules:,} by schedules, {expected.fetches:,} by fetches in flight, "
        f"{expected.others:,} by everything else; {day.by_end:,} by the end of the day"
        + ("" if day.fits else f", more than the limit of {day.limit:,}")
    )
    for run in day.runs:
        pages = "an unknown number of pages" if run.pages_left is None else f"at most about {run.pages_left:,} pages"
        ends = f"done about {moment(run.ends_at)} UTC" if run.ends_at else "its end is unknown"
        echo(f"  run {run.run_id} ({run.entity}s): {pages} left, {ends}")
    print_rows(day.lanes, "lane operation calls tokens", empty="  No calls of Pipedrive today.")
    if day.days:
        print_rows(reversed(day.days), "day calls tokens")


def _print_bar(spent: int, limit: int) -> None:
    """Show the share that is spent as a bar, on a terminal only."""
    screen = console()
    if screen.is_terminal:
        bar = ProgressBar(total=limit, completed=min(spent, limit), width=BAR_WIDTH)
        screen.print(Columns([Text(" "), bar, Text(f"{spent / limit:.0%}")]))


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation | Show]] = {
    connectors.add_connector: show_added,
    connectors.list_connectors: Presentation(
        show=lambda _request, answer: print_rows(
            [each.connector for each in answer.connectors],
            "name id Hull Pipedrive state",
            empty="No connector yet. Add one: pipeline connectors add --help",
            Hull=lambda each: each.hull_organization,
            Pipedrive=lambda each: each.pipedrive_company,
            state=lambda each: state_of(each.state, each.pause_reason),
        )
    ),
    connectors.pause_connector: lines("Connector {request.connector} is paused; its work waits."),
    connectors.remove_connector: Presentation(
        show=show_removed, ask=confirm_removal, asks=frozenset({"name"}), yes="Do not ask for confirmation."
    ),
    connectors.rename_connector: lines("{request.connector} was renamed to {request.name}."),
    connectors.resume_connector: lines("Connector {request.connector} is active."),
    connectors.show_connector: show_status,
    budget.show_budget: show_budget,
    overview.list_schedules: rows(
        "schedules",
        "kind when next_at last_at",
        empty="No schedule: changes arrive by webhook only.",
        when=lambda each: each.cron or f"every {each.interval_s or 0} s",
    ),
    overview.show_overview: show_overview,
}
