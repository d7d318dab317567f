"""`pipeline verify`: compare Pipedrive, Hull and the id map, and on request repair what has drifted apart."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from db import connector as connectors
from db.connector import Connector
from db.id_mapping import any_read
from db.session import transaction
from pipeline.cli.audited import audited
from pipeline.cli.opening import open_database
from pipeline.cli.showing import (
    Failed,
    connector_argument,
    console,
    duration,
    find_connector,
    json_option,
    say,
    show,
    wants_json,
)
from pipeline.cli.verify_report import as_json, print_report
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import read_settings
from pipeline.errors import Retryable
from pipeline.jobs.verify import sample as verify_sample
from pipeline.jobs.verify.comparison import Progress as Step
from pipeline.jobs.verify.repair import repair as fold_repairs
from pipeline.jobs.verify.verify import Report, expected_tokens
from pipeline.jobs.verify.verify import verify as compare

ASK_ABOVE = 0.1
"""The share of the day's budget beyond which a person is asked first."""


@click.command()
@connector_argument
@click.option("--repair", is_flag=True, help="Carry over again what has drifted; the workers do it.")
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="Compare only N records of each kind, at random."
)
@click.option("--yes", is_flag=True, help="Do not ask, whatever it costs.")
@json_option
@audited("verify.start")
def verify(connector: str, repair: bool, sample: int | None, yes: bool) -> None:
    """Compare Pipedrive, Hull and the id map, record by record, and name every difference.

    Reads everything (10 tokens of Pipedrive's daily budget for 500 records) and changes nothing, unless --repair is given.
    What is on its way, and what is known to have failed, is counted apart. Exit code 1 when something has drifted.

    \b
    Example:
      pipeline verify acme --sample 300
      pipeline verify acme --repair
    """
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
        budget = read_settings(connectors.settings_in_force(session, found.key).document).daily_tokens
        is_known = sample is not None or any(any_read(session, found.key, each) for each in Entity)
        cost = expected_tokens(session, found.key, sample) if is_known else None
    if not (wants_json() or _may_go_on(cost, budget, asks=not yes)):
        raise Failed("nothing was compared", "a part of it costs less: --sample N")
    report = _watched(found, sample)
    with transaction() as session:
        verify_sample.keep(session, found.key, report, sample=sample, by="command line")
    repaired = fold_repairs(found.key, report) if repair else None
    show(as_json(found, report, repaired), lambda: print_report(found, report, repaired))
    if report.drift:
        click.get_current_context().exit(1)


COMMANDS: tuple[click.Command, ...] = (verify,)


def _may_go_on(cost: int | None, budget: int, *, asks: bool) -> bool:
    """Say what it will cost; on a terminal, a person is asked for a large share of the day. `budget` 0 is without limit."""
    if cost is None:
        say("What this costs is not known before a first full fetch: 10 tokens for 500 records of Pipedrive.")
        return not (asks and sys.stdin.isatty()) or click.confirm("Go on?")
    share = cost / budget if budget else 0.0
    of_day = f", {share:.1%} of the day's {budget:,}" if budget else ""
    say(f"This costs about {cost:,} tokens of Pipedrive's daily budget{of_day}.")
    return not (asks and share > ASK_ABOVE and sys.stdin.isatty()) or click.confirm("Go on?")


def _watched(found: Connector, sample: int | None) -> Report:
    view = _view()
    try:
        with view:
            return compare(found.key, sample=sample, on_progress=view.show)
    except Retryable as trouble:
        if trouble.reason != "daily_budget_spent":
            raise
        wait = f" in {duration(trouble.retry_after_s)}" if trouble.retry_after_s else ""
        raise Failed(
            "Pipedrive's daily budget of tokens is spent; the comparison was left off, nothing was changed",
            f"try again{wait}; see: pipeline budget {found.name}",
        ) from None


class _Lines:
    """A line now and then, for logs and pipes."""

    def __init__(self, *, shown: bool) -> None:
        self._shown, self._next = shown, 0

    def __enter__(self) -> None:
        self._next = 0

    def __exit__(self, *_error: object) -> None:
        self._shown = False

    def show(self, step: Step) -> None:
        if self._shown and step.compared >= self._next:
            self._next = step.compared + 50_000
            say(_line(step))


class _Bars:
    """A bar for each entity, on a terminal."""

    def __init__(self, screen: Any) -> None:
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), console=screen)
        self._bars: dict[Entity, TaskID] = {}

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, step: Step) -> None:
        bar = self._bars.get(step.entity)
        if bar is None:
            bar = self._bars[step.entity] = self._progress.add_task("", total=None)
        total = max(step.expected, step.compared) or None
        self._progress.update(bar, description=_line(step), total=total, completed=step.compared)


def _view() -> _Lines | _Bars:
    screen = console(err=True)
    return _Bars(screen) if screen.is_terminal and not wants_json() else _Lines(shown=not wants_json())


def _line(step: Step) -> str:
    of = f" of about {step.expected:,}" if step.expected > step.compared else ""
    return f"{step.entity.plural}: {step.compared:,}{of} compared, {step.suspects:,} to look at, {step.tokens:,} tokens"
