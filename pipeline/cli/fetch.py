"""`pipeline fetch`: start full and incremental fetches, and watch them with --wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from sqlalchemy.orm import Session

from db import failure as failures
from db.session import transaction
from pipeline.cli import watching
from pipeline.cli.calling import LocalCaller
from pipeline.cli.opening import open_database
from pipeline.cli.runs import print_run, read_run
from pipeline.cli.showing import (
    Failed,
    connector_argument,
    duration,
    find_connector,
    json_option,
    moment,
    say,
    show,
    wants_json,
)
from pipeline.domain.kinds import Entity
from pipeline.domain.times import read_moment
from pipeline.operations.errors import OperationError
from pipeline.operations.runs import NewFetch, start_fetch
from pipeline.sync.runs import spending
from pipeline.sync.runs.runs import RunInProgress


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
        expected = None if since else _expected(session, found.key, entities)
    if found.state != "active":
        raise Failed(f"{found.name} is paused", f"run: pipeline connectors resume {found.name}")
    if not since and not wants_json():
        _say_expected(expected)
    started = [_start(found.name, entity, since, changed_only) for entity in entities]
    if wait:
        watching.watch(started, shown=not wants_json())
    facts = [{**read_run(run_id), "open_failures": _open_failures(found.key, run_id)} for run_id in started]
    show(facts, _summary(facts, wait))
    if wait and any(run["state"] != "done" or run["open_failures"] for run in facts):
        click.get_current_context().exit(1)


def _expected(session: Session, connector_key: int, entities: Sequence[Entity]) -> dict[str, Any] | None:
    """Return pages, tokens and time that full fetches of these entities take together; None before a first full fetch."""
    costs = {entity: spending.cost_of(session, connector_key, entity) for entity in entities}
    known = {entity: cost for entity, cost in costs.items() if cost is not None}
    if len(known) < len(entities):
        return None
    day = spending.budget_status(session, connector_key)
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


def _say_expected(expected: dict[str, Any] | None) -> None:
    """One line before a full fetch starts, and a warning when the day is too short for it."""
    if expected is None:
        say("The cost is not known before the first full fetch: 10 tokens of the daily budget for each page")
        return
    say(f"About {expected['pages']:,} pages, {expected['tokens']:,} tokens, {duration(expected['seconds'])}")
    if not expected["fits_today"]:
        ends = (
            f"it will be done about {moment(expected['ends_at'])} UTC"
            if expected["ends_at"]
            else "no day is large enough"
        )
        say(f"Warning: today has {expected['left_for_fetches']:,} tokens left for fetches; the rest waits, {ends}")


def _open_failures(connector_key: int, run_id: int) -> int:
    """Return the number of open failures of this run, records and pages."""
    with transaction() as session:
        found = failures.find_failures(session, connector_key=connector_key, limit=None)
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
        if gave_up := sum(run["open_failures"] for run in facts):
            say(f"{gave_up} records or pages failed; see: pipeline failures list {facts[0]['connector']}")

    return human
