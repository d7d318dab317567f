"""`pipeline fetch`: start full and incremental fetches, and show their progress with --wait.

Pipedrive does not return the number of records. The estimate uses the ids between the two walks: it is exact if ids have
no gaps, and too long if many records were deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from rich.progress import BarColumn, Progress, TextColumn

from db import connector as connectors
from db import failure_filter
from db import run as run_rows
from db.connector import Connector
from db.run import COUNTERS, Run
from db.session import transaction
from pipeline.cli.calling import LocalCaller
from pipeline.cli.output import (
    Failed,
    columns_of,
    connector_argument,
    console,
    duration,
    find_connector,
    json_option,
    moment,
    say,
    show,
    wants_json,
)
from pipeline.cli.rendering_runs import COST_UNKNOWN, print_run
from pipeline.cli.startup import open_database
from pipeline.domain.kinds import Entity
from pipeline.domain.times import read_moment
from pipeline.operations import workers
from pipeline.operations.errors import OperationError
from pipeline.operations.runs import FetchPreviewRequest, NewFetch, preview_fetch, start_fetch
from pipeline.sync.runs import spending
from pipeline.sync.runs.runs import RunInProgress

POLL_S = 0.25
LINE_EVERY_S = 5.0
IDLE_S = 15.0
"""No page, record or end for this long: probably no worker runs."""

WORKER = "celery -A pipeline worker -Q live,bulk,control"
COLUMNS = (
    "id", "entity", "kind", "state", "phase", "reason", "cause", "changed_only", "since", "settings_version",
    "started_at", "finished_at", *COUNTERS,
)  # fmt: skip


class Moment(click.ParamType[datetime]):
    """A time in ISO 8601 (UTC if it has no offset), or an age: 15m, 2h, 3d."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return read_moment(value, datetime.now(UTC))
        except ValueError as wrong:
            self.fail(str(wrong), param, ctx)


@click.group(name="fetch")
def group() -> None:
    """Fetch Persons and Organizations from Pipedrive into Hull.

    \b
    Example:
      pipeline fetch all acme --wait
    """


def _fetch_command(name: str, entities: tuple[Entity, ...], what: str) -> click.Command:
    @click.command(name=name, help=_help(name, what))
    @connector_argument
    @click.option(
        "--since", type=Moment(), metavar="TIME", help="Only what changed since: 2026-08-31T12:00:00Z, 2h, 3d."
    )
    @click.option("--changed-only", is_flag=True, help="Send only changed records to Hull.")
    @click.option("--wait", is_flag=True, help="Show the progress until it is done; Ctrl-C does not stop the fetch.")
    @json_option
    def command(connector: str, since: datetime | None, changed_only: bool, wait: bool) -> None:
        run_fetch(connector, entities, since=since, changed_only=changed_only, wait=wait)

    return command


def _help(name: str, what: str) -> str:
    return f"""Fetch {what}: everything, or with --since what changed.

    A full fetch sends every record again, which repairs missing data; with --changed-only it sends changed records only.

    \b
    Example:
      pipeline fetch {name} acme --wait
      pipeline fetch {name} acme --since 2h --wait
    """


persons = _fetch_command("persons", (Entity.PERSON,), "Persons (Users in Hull)")
organizations = _fetch_command("organizations", (Entity.ORGANIZATION,), "Organizations (Accounts in Hull)")
everything = _fetch_command("all", (Entity.ORGANIZATION, Entity.PERSON), "Organizations and Persons")
for each in (persons, organizations, everything):
    group.add_command(each)

COMMANDS: tuple[click.Command, ...] = (group,)


def run_fetch(
    connector: str, entities: tuple[Entity, ...], *, since: datetime | None, changed_only: bool, wait: bool
) -> None:
    """Start a run for each entity; with `wait`, show the progress and fail if a run failed."""
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
    if found.state != "active":
        raise Failed(f"{found.name} is paused", f"run: pipeline connectors resume {found.name}")
    if not since and not wants_json():
        _print_cost(found, entities)
    started = [_start(found.name, entity, since, changed_only) for entity in entities]
    if wait:
        watch(started, shown=not wants_json())
    facts = [{**read_run(run_id), "open_failures": _open_failures(found.key, run_id)} for run_id in started]
    show(facts, _summary(facts, wait))
    if wait and any(run["state"] != "done" or run["open_failures"] for run in facts):
        click.get_current_context().exit(1)


def _print_cost(found: Connector, entities: Sequence[Entity]) -> None:
    """Print what full fetches cost together before they start, and a warning if the day is too short for them."""
    requests = [FetchPreviewRequest(connector=found.name, entity=entity.value) for entity in entities]
    previews = [LocalCaller().call(preview_fetch, request) for request in requests]
    if any(each.tokens is None for each in previews):
        say(COST_UNKNOWN)
        return
    pages, tokens = sum(each.pages or 0 for each in previews), sum(each.tokens or 0 for each in previews)
    took_s = max(each.took_s or 0.0 for each in previews)
    say(f"About {pages:,} pages, {tokens:,} tokens, {duration(took_s)}")
    left = previews[0].left
    if left is not None and tokens > left:
        with transaction() as session:
            day = spending.budget_status(session, found.key)
        ends_at = spending.ends_at(day, pages, took_s / pages)
        ends = f"it will be done about {moment(ends_at)} UTC" if ends_at is not None else "no day is large enough"
        say(f"Warning: today has {left:,} tokens left for fetches; the rest waits, {ends}")


def _open_failures(connector_key: int, run_id: int) -> int:
    """Return the number of open failures of this run, records and pages."""
    with transaction() as session:
        found = failure_filter.find_failures(session, connector_key=connector_key, limit=None)
    return sum(1 for failure in found if failure.run_id == run_id)


def _start(connector: str, entity: Entity, since: datetime | None, changed_only: bool) -> int:
    request = NewFetch(connector=connector, entity=entity.value, changed_only=changed_only, since=since)
    try:
        return LocalCaller().call(start_fetch, request).id
    except OperationError as error:
        if not isinstance(error.__cause__, RunInProgress):
            raise Failed(error.message, error.next_step) from None
        run_id = error.__cause__.run_id
        raise Failed(
            f"a fetch of {entity.plural} is already in flight: run {run_id}",
            f"watch it: pipeline runs show {connector} {run_id}; or stop it: pipeline runs cancel {connector} {run_id}",
        ) from None


def _summary(facts: list[dict[str, Any]], wait: bool) -> Callable[[], None]:
    def human() -> None:
        for run in facts:
            if wait:
                print_run(run)
            else:
                say(f"Run {run['id']} fetches {run['entity']}s. See: pipeline runs show {run['connector']} {run['id']}")
        if failed := sum(run["open_failures"] for run in facts):
            say(f"{failed} records or pages failed; see: pipeline failures list {facts[0]['connector']}")

    return human


def read_run(run_id: int) -> dict[str, Any]:
    """Return a run with its walks.

    Raises Failed with exit code 2 if there is no such run.
    """
    with transaction() as session:
        run = session.get(Run, run_id)
        if run is None:
            raise Failed(f"there is no run {run_id}", "see: pipeline runs list CONNECTOR", exit_code=2)
        name = connectors.get_connector(session, run.connector_key).name
        walks = run_rows.slices_of(session, run_id)
        took = (run.finished_at or datetime.now(UTC)) - run.started_at
        return {
            "connector": name,
            **columns_of(run, *COLUMNS),
            "took_s": round(took.total_seconds(), 3),
            "slices": [columns_of(each, "walk", "state", "frontier", "pages") for each in walks],
        }


@dataclass(slots=True)
class Progressing:
    """The last progress of the runs, to detect that no worker runs."""

    seen: tuple[Any, ...] = ()
    since: float = 0.0

    def idle_s(self, facts: Sequence[dict[str, Any]], now: float) -> float:
        seen = tuple((run["state"], run["pages"], run["read"], run["messages"], run["requests"]) for run in facts)
        if seen != self.seen:
            self.seen, self.since = seen, now
        return now - self.since


def watch(run_ids: Sequence[int], *, shown: bool = True) -> None:
    """Return when every run has ended, with success or not. Ctrl-C stops the display only.

    Raises Failed if there is no progress for `IDLE_S` and no worker answers.
    """
    screen = console(err=True)
    view = _Bars(screen) if shown and screen.is_terminal else _Lines(shown=shown)
    progressing = Progressing(since=time.monotonic())
    try:
        with view:
            while True:
                facts = [read_run(run_id) for run_id in run_ids]
                view.show(facts)
                if all(run["state"] != "running" for run in facts):
                    return
                if progressing.idle_s(facts, time.monotonic()) > IDLE_S and not workers.any_worker_answers():
                    raise Failed(
                        f"no progress for {IDLE_S:.0f} s and no worker answers; the fetch waits and is not lost",
                        f"start a worker: {WORKER} (or everything: pipeline up)",
                    )
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        name = read_run(run_ids[0])["connector"]
        stop = "; ".join(f"pipeline runs cancel {name} {run_id}" for run_id in run_ids)
        say(f"\nThe fetch continues in the background. See: pipeline runs list {name}; stop it: {stop}")
        click.get_current_context().exit(1)


def completed_share(run: dict[str, Any]) -> float | None:
    """Return the completed share of a run, 0 to 1; None if it is not known."""
    if run["state"] != "running" or run["phase"] == "catch_up":
        return 1.0 if run["kind"] == "full" or run["state"] != "running" else None
    frontiers = {part["walk"]: part["frontier"] for part in run["slices"]}
    low, high = frontiers.get("ascending"), frontiers.get("descending")
    if not (low and high and run["read"]):
        return None
    left = max(0, high - low)
    return float(run["read"] / (run["read"] + left))


def progress_line(run: dict[str, Any]) -> str:
    """Return one line with the progress of a run."""
    rate = run["read"] / run["took_s"] if run["took_s"] > 0 else 0.0
    text = f"{run['entity']}s: {run['read']:,} read, {rate:,.0f}/s, {run['pages']} pages, {run['tokens']:,} tokens"
    if run.get("rejected_fields"):
        text += f", {run['rejected_fields']:,} fields left out"
    if run["failed"]:
        text += f", {run['failed']:,} failed"
    return f"{text}, {_time_left(run)}"


def _time_left(run: dict[str, Any]) -> str:
    if run["state"] != "running":
        return f"{run['state']} after {duration(run['took_s'])}"
    if run["phase"] == "catch_up":
        return "catching up with changes made since it started"
    done = completed_share(run)
    if not done:
        return "the number left is not known yet"
    return f"about {duration(run['took_s'] * (1 - done) / done)} left"


class _Bars:
    """Shows a bar for each run, on a terminal."""

    def __init__(self, screen: Any) -> None:
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), console=screen)
        self._bars: dict[int, Any] = {}

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, facts: Sequence[dict[str, Any]]) -> None:
        for run in facts:
            if run["id"] not in self._bars:
                self._bars[run["id"]] = self._progress.add_task("", total=None)
            done = completed_share(run)
            self._progress.update(
                self._bars[run["id"]],
                description=progress_line(run),
                total=None if done is None else 1.0,
                completed=done or 0.0,
            )


class _Lines:
    """Prints a line for each run every few seconds, for logs and pipes."""

    def __init__(self, *, shown: bool) -> None:
        self._shown, self._next = shown, 0.0

    def __enter__(self) -> None:
        self._next = time.monotonic() + LINE_EVERY_S

    def __exit__(self, *_error: object) -> None:
        self._shown = False

    def show(self, facts: Sequence[dict[str, Any]]) -> None:
        ended = all(run["state"] != "running" for run in facts)
        if not self._shown or (time.monotonic() < self._next and not ended):
            return
        self._next = time.monotonic() + LINE_EVERY_S
        for run in facts:
            say(progress_line(run))
