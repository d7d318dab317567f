"""`pipeline fetch persons|organizations|all`: start fetches, and show their progress with --wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import click

from db import failure_filter
from db import run as run_rows
from db.connector import get_connector
from db.failure_filter import FailureFilter
from db.run import COUNTERS, Run
from db.session import transaction
from pipeline.cli.calling import LocalCaller
from pipeline.cli.output import Failed, connector_argument, duration, echo, json_option, show, wants_json
from pipeline.cli.progress import ProgressView
from pipeline.cli.rendering_runs import print_run, show_preview
from pipeline.domain.kinds import Entity
from pipeline.domain.times import read_moment
from pipeline.operations import workers
from pipeline.operations.errors import OperationError
from pipeline.operations.run_progress import FetchShape, describe_run
from pipeline.operations.runs import FetchPreviewRequest, NewFetch, preview_fetch, start_fetch
from pipeline.sync.runs.runs import RunInProgress

POLL_S: Final = 0.25
IDLE_S: Final = 15.0
"""No progress for this long: probably no worker runs."""
FACTS: Final = (
    *("id", "entity", "kind", "state", "phase", "reason", "cause", "changed_only", "since", "settings_version"),
    *("started_at", "finished_at"),
)


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


def _add_command(name: str, entities: tuple[Entity, ...], what: str) -> None:
    help_text = f"""Fetch {what}: everything, or with --since what changed.

    A full fetch sends every record again, which repairs missing data; with --changed-only it sends changed records only.

    \b
    Example:
      pipeline fetch {name} acme --wait
      pipeline fetch {name} acme --since 2h --wait
    """

    @group.command(name=name, help=help_text)
    @connector_argument
    @click.option(
        "--since",
        type=Moment(),
        metavar="TIME",
        help="Only what changed since then: 2026-08-31T12:00, 2026-08-31, or how long ago: 15m, 2h, 3d.",
    )
    @click.option("--changed-only", is_flag=True, help="Send only changed records to Hull.")
    @click.option("--wait", is_flag=True, help="Show the progress until it is done; Ctrl-C does not stop the fetch.")
    @json_option
    def command(connector: str, since: datetime | None, changed_only: bool, wait: bool) -> None:
        run_fetch(connector, entities, since=since, changed_only=changed_only, wait=wait)


_add_command("persons", (Entity.PERSON,), "Persons (Users in Hull)")
_add_command("organizations", (Entity.ORGANIZATION,), "Organizations (Accounts in Hull)")
_add_command("all", (Entity.ORGANIZATION, Entity.PERSON), "Organizations and Persons")
COMMANDS: tuple[click.Command, ...] = (group,)


def run_fetch(
    connector: str, entities: tuple[Entity, ...], *, since: datetime | None, changed_only: bool, wait: bool
) -> None:
    """Start a run for each entity; with `wait`, show the progress and exit with 1 if a run or a record failed."""
    caller = LocalCaller()
    found = caller.find_connector(connector)
    if found.state != "active":
        raise Failed(f"{found.name} is paused", f"run: pipeline connectors resume {found.name}")
    if not since and not wants_json():
        entity = entities[0].value if len(entities) == 1 else None
        show_preview(None, caller.call(preview_fetch, FetchPreviewRequest(connector=found.name, entity=entity)))
    started = [_start(caller, found.name, entity, since, changed_only) for entity in entities]
    if wait:
        watch(started)
    facts = [{**read_run(run_id), **_open_failures(found.key, run_id)} for run_id in started]
    show(facts, lambda: _print_summary(facts, wait))
    if wait and any(run["state"] != "done" or run["open_failures"] for run in facts):
        click.get_current_context().exit(1)


def _start(caller: LocalCaller, connector: str, entity: Entity, since: datetime | None, changed_only: bool) -> int:
    request = NewFetch(connector=connector, entity=entity.value, changed_only=changed_only, since=since)
    try:
        return caller.call(start_fetch, request).id
    except OperationError as error:
        if not isinstance(error.__cause__, RunInProgress):
            raise
        run_id = error.__cause__.run_id
        raise Failed(
            f"a fetch of {entity.plural} is already in flight: run {run_id}",
            f"watch it: pipeline runs show {connector} {run_id}; or stop it: pipeline runs cancel {connector} {run_id}",
        ) from None


def _open_failures(connector_key: int, run_id: int) -> dict[str, int]:
    """Return the number of open failures of a run: in all, and those of single fields."""
    chosen = FailureFilter(connector_key=connector_key, run_id=run_id)
    with transaction() as session:
        return {
            "open_failures": failure_filter.count_failures(session, chosen),
            "open_failures_of_fields": failure_filter.count_failures(session, replace(chosen, kind="field")),
        }


def _print_summary(facts: list[dict[str, Any]], wait: bool) -> None:
    for run in facts:
        if wait:
            print_run(run)
        else:
            echo(f"Run {run['id']} fetches {run['entity']}s. See: pipeline runs show {run['connector']} {run['id']}")
    if failed := sum(run["open_failures"] for run in facts):
        fields = sum(run["open_failures_of_fields"] for run in facts)
        counts = (
            (failed - fields, "record or page", "records or pages"),
            (fields, "left-out field", "left-out fields"),
        )
        what = ", ".join(f"{count:,} {one if count == 1 else several}" for count, one, several in counts if count)
        echo(f"Open failures: {what}. See: pipeline failures list {facts[0]['connector']}")


def read_run(run_id: int) -> dict[str, Any]:
    """Return a run with its counters and walks, as --json prints it."""
    with transaction() as session:
        run = session.get_one(Run, run_id)
        took = (run.finished_at or datetime.now(UTC)) - run.started_at
        walks = run_rows.slices_of(session, run_id)
        return {
            "connector": get_connector(session, run.connector_key).name,
            **{name: getattr(run, name) for name in (*FACTS, *COUNTERS)},
            "took_s": round(took.total_seconds(), 3),
            "slices": [
                {"walk": each.walk, "state": each.state, "frontier": each.frontier, "pages": each.pages}
                for each in walks
            ],
        }


@dataclass(slots=True)
class Idleness:
    """How long the runs have made no progress: probably no worker runs."""

    seen: Any = None
    since: float = 0.0

    def idle_s(self, runs: Sequence[FetchShape], now: float) -> float:
        seen = [(run.state, run.counts) for run in runs]
        if seen != self.seen:
            self.seen, self.since = seen, now
        return now - self.since


def watch(run_ids: Sequence[int]) -> None:
    """Show the progress of runs until every run has ended. Ctrl-C stops the display only.

    Raises Failed if there is no progress for `IDLE_S` and no worker answers.
    """
    idleness = Idleness()
    try:
        with ProgressView() as view:
            while True:
                runs = [_progress_of(run_id) for run_id in run_ids]
                has_ended = all(run.state != "running" for run in runs)
                view.show([(progress_line(run), run.share) for run in runs], has_ended=has_ended)
                if has_ended:
                    return
                if idleness.idle_s(runs, time.monotonic()) > IDLE_S and not workers.any_worker_answers():
                    raise Failed(
                        f"no progress for {IDLE_S:.0f} s and no worker answers; the fetch waits and is not lost",
                        f"start a worker: {workers.worker_command()} (or everything: pipeline up)",
                    )
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        name = read_run(run_ids[0])["connector"]
        stop = "; ".join(f"pipeline runs cancel {name} {run_id}" for run_id in run_ids)
        echo(f"\nThe fetch continues in the background. See: pipeline runs list {name}; stop it: {stop}")
        click.get_current_context().exit(1)


def _progress_of(run_id: int) -> FetchShape:
    with transaction() as session:
        return describe_run(session.get_one(Run, run_id), datetime.now(UTC), run_rows.slices_of(session, run_id))


def progress_line(run: FetchShape) -> str:
    """Return the progress of a run in one line. The time left is too long if many ids were deleted in Pipedrive."""
    counts = run.counts
    parts = [
        f"{run.entity}s: {counts['read']:,} read",
        f"{run.rate:,.0f} records/s",
        f"{counts['pages']:,} page{'' if counts['pages'] == 1 else 's'}",
        f"{counts['tokens']:,} API tokens",
    ]
    if counts["rejected_fields"]:
        parts.append(f"{counts['rejected_fields']:,} fields left out")
    if counts["failed"]:
        parts.append(f"{counts['failed']:,} failed")
    return ", ".join([*parts, _time_left(run)])


def _time_left(run: FetchShape) -> str:
    if run.state != "running":
        return f"{run.state} after {duration(run.took_s)}"
    if run.phase == "catch_up":
        return "catching up with changes made since it started"
    if not run.share:
        return "the number left is not known yet"
    return f"about {duration(run.took_s * (1 - run.share) / run.share)} left"
