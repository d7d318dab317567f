"""`pipeline budget`: what was spent of Pipedrive's day, what is left of it, and what the rest of the day will take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.columns import Columns
from rich.progress_bar import ProgressBar
from rich.text import Text
from sqlalchemy.orm import Session

from db import connector as connectors
from db.connector import Connector
from db.session import transaction
from pipeline.cli.opening import open_database
from pipeline.cli.showing import console, duration, find_connector, json_option, moment, say, show, table
from pipeline.domain.kinds import Entity
from pipeline.sync.runs import spending

BAR_WIDTH = 40


@click.command(name="budget")
@click.argument("connector", metavar="[CONNECTOR]", required=False)
@json_option
def budget(connector: str | None) -> None:
    """Show Pipedrive's daily budget of tokens: spent, left, kept for live work, and how the day will go on.

    The day belongs to the Pipedrive company: connectors of one company share it. What others spend, the company's other apps
    and scripts, is not seen here.

    \b
    Example:
      pipeline budget acme
    """
    open_database()
    with transaction() as session:
        asked = [find_connector(session, connector)] if connector else connectors.all_connectors(session)
        facts = [read_budget(session, each) for each in asked]
    show(facts[0] if connector else facts, _printed(facts))


COMMANDS: tuple[click.Command, ...] = (budget,)


def read_budget(session: Session, connector: Connector) -> dict[str, Any]:
    """Everything the command tells of one connector."""
    day = spending.standing(session, connector.key)
    runs = spending.runs_under_way(session, connector.key, day)
    expected = spending.day_forecast(session, connector.key, day, runs)
    limit = day.allowance.daily_tokens or None
    by_end = day.spent + expected.total
    return {
        "connector": connector.name,
        "resets_at": day.resets_at,
        "daily_tokens": limit,
        "spent": day.spent,
        "left": day.left,
        "reserve": day.allowance.reserve if limit else None,
        "left_for_fetches": day.left_for_fetches,
        "closed_s": day.closed_s,
        "lanes": spending.by_lane(session, day),
        "forecast": {
            "schedules": expected.schedules,
            "fetches": expected.fetches,
            "others": expected.others,
            "by_end_of_day": by_end,
            "fits": limit is None or by_end <= limit,
        },
        "runs": runs,
        "days": spending.last_days(session, day),
    }


def _printed(facts: list[dict[str, Any]]) -> Callable[[], None]:
    def human() -> None:
        for each in facts:
            _print(each)
        if not facts:
            say("There is no connector yet. Add one: pipeline connectors add --help")

    return human


def _print(facts: dict[str, Any]) -> None:
    limit = facts["daily_tokens"]
    of = f" of {limit:,}; {facts['left']:,} left" if limit else ", without limit"
    say(f"{facts['connector']}: {facts['spent']:,} tokens spent today{of}")
    if limit:
        _bar(facts["spent"], limit)
        say(f"  fetches may spend {facts['left_for_fetches']:,} more; {facts['reserve']:,} are kept for live work")
    if facts["closed_s"] is not None:
        say(
            f"  Pipedrive says that the day is spent. It is asked again in {duration(facts['closed_s'])}; all work waits"
        )
    say(f"  the day is taken to end at {moment(facts['resets_at'])} UTC")
    _print_forecast(facts["forecast"], facts["runs"], limit)
    table(
        "",
        ("lane", "operation", "calls", "tokens"),
        [(each.lane, each.operation, each.calls, each.tokens) for each in facts["lanes"]],
        empty="  Nothing was asked of Pipedrive today.",
    )
    if facts["days"]:
        table("", ("day (UTC)", "calls", "tokens"), [(f"{d.day:%Y-%m-%d}", d.calls, d.tokens) for d in facts["days"]])


def _print_forecast(expected: dict[str, Any], runs: list[spending.RunForecast], limit: int | None) -> None:
    say(
        f"  until then, about: {expected['schedules']:,} by schedules, {expected['fetches']:,} by fetches under way, "
        f"{expected['others']:,} by everything else; {expected['by_end_of_day']:,} by the end of the day"
        + ("" if expected["fits"] else f", more than the {limit:,} there are")
    )
    for run in runs:
        pages = "an unknown number of pages" if run.pages_left is None else f"at most about {run.pages_left:,} pages"
        ends = f"done about {moment(run.ends_at)} UTC" if run.ends_at else "its end is not known yet"
        say(f"  run {run.run_id} ({run.entity}s): {pages} left, {ends}")


def _bar(spent: int, limit: int) -> None:
    """How full the day is, where a person looks on; a pipe gets the figures alone."""
    screen = console()
    if screen.is_terminal:
        bar = ProgressBar(total=limit, completed=min(spent, limit), width=BAR_WIDTH)
        screen.print(Columns([Text(" "), bar, Text(f"{spent / limit:.0%}")]))


def expected_fetch(session: Session, connector_key: int, entities: Sequence[Entity]) -> dict[str, Any] | None:
    """Pages, tokens and time that full fetches of these entities will take together; None while nobody knows how many records."""
    costs = {entity: spending.cost_of(session, connector_key, entity) for entity in entities}
    known = {entity: cost for entity, cost in costs.items() if cost is not None}
    if len(known) < len(entities):
        return None
    day = spending.standing(session, connector_key)
    pages, tokens = sum(cost.pages for cost in known.values()), sum(cost.tokens for cost in known.values())
    seconds = max(cost.pages * spending.pace_of(session, connector_key, entity) for entity, cost in known.items())
    return {
        "pages": pages,
        "tokens": tokens,
        "seconds": round(seconds, 1),
        "fits_today": day.left_for_fetches is None or tokens <= day.left_for_fetches,
        "left_for_fetches": day.left_for_fetches,
        "ends_at": spending.ends_at(day, pages, seconds / pages),
    }


def say_expected(expected: dict[str, Any] | None) -> None:
    """One line before a full fetch starts, and a warning when the day is too short for it."""
    if expected is None:
        say("How much this takes is not known before a first full fetch: 10 tokens of the daily budget for each page")
        return
    say(f"About {expected['pages']:,} pages, {expected['tokens']:,} tokens, {duration(expected['seconds'])}")
    if not expected["fits_today"]:
        ends = (
            f"it will be done about {moment(expected['ends_at'])} UTC"
            if expected["ends_at"]
            else "no day is large enough"
        )
        say(f"Warning: today has {expected['left_for_fetches']:,} tokens left for fetches; the rest waits, {ends}")
