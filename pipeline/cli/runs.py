"""`pipeline runs`: list, show, cancel, confirm."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from db import connector as connectors
from db import run as run_rows
from db.run import COUNTERS, Run
from db.session import transaction
from pipeline.cli.opening import open_database
from pipeline.cli.showing import (
    Failed,
    columns_of,
    duration,
    find_connector,
    json_option,
    say,
    show,
    table,
    typed_number,
)
from pipeline.domain.reasons import REASONS
from pipeline.insight import plan as plans
from pipeline.tasks.breaker import AskFirst
from pipeline.tasks.runs import RunInProgress, cancel_run

COLUMNS = (
    "id", "entity", "kind", "state", "phase", "reason", "cause", "changed_only", "since", "settings_version",
    "started_at", "finished_at", *COUNTERS,
)  # fmt: skip


@click.group(name="runs")
def group() -> None:
    """Runs: full and incremental fetches, under way and past.

    \b
    Example:
      pipeline runs list acme
    """


@group.command(name="list")
@click.argument("connector", required=False)
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@json_option
def list_runs(connector: str | None, limit: int) -> None:
    """List runs, newest first; of all connectors unless one is named.

    \b
    Example:
      pipeline runs list acme --limit 5
    """
    open_database()
    with transaction() as session:
        key = find_connector(session, connector).key if connector else None
        names = {each.key: each.name for each in connectors.all_connectors(session)}
        found = [described(run, names[run.connector_key]) for run in run_rows.latest_runs(session, key, limit)]
    columns = ("run", "connector", "entity", "kind", "state", "started (UTC)", "took", "read", "failed", "tokens")
    show(
        found,
        lambda: table(
            "",
            columns,
            [
                (r["id"], r["connector"], r["entity"], r["kind"], r["state"], r["started_at"], duration(r["took_s"]),
                 r["read"], r["failed"], r["tokens"])
                for r in found
            ],
            empty="No run yet. Start one: pipeline fetch all CONNECTOR --wait",
        ),
    )  # fmt: skip


@group.command(name="show")
@click.argument("run_id", metavar="RUN", type=int)
@json_option
def show_run(run_id: int) -> None:
    """Show one run: what it did, how far each of its walks has come.

    \b
    Example:
      pipeline runs show 12
    """
    open_database()
    facts = read_run(run_id)
    show(facts, lambda: print_run(facts))


@group.command()
@click.argument("run_id", metavar="RUN", type=int)
@json_option
def cancel(run_id: int) -> None:
    """Stop a run; what it has carried over stays.

    \b
    Example:
      pipeline runs cancel 12
    """
    open_database()
    state = read_run(run_id)["state"]
    if not cancel_run(run_id):
        raise Failed(f"run {run_id} had ended already: {state}")
    show({"id": run_id, "state": "cancelled"}, lambda: say(f"Run {run_id} is cancelled."))


@group.command()
@click.argument("run_id", metavar="RUN", type=int)
@click.option("--yes", is_flag=True, help="Do not ask, however many records it touches.")
@json_option
def confirm(run_id: int, yes: bool) -> None:
    """Let a run begin that was held, because it would touch more than `change_stop_share` of the known records.

    \b
    Example:
      pipeline runs confirm 12
    """
    open_database()
    with transaction() as session:
        run = session.get(Run, run_id)
    if run is None:
        raise Failed(f"there is no run {run_id}", "see: pipeline runs list", exit_code=2)
    try:
        began = _confirm(run.connector_key, run_id, -1 if yes else None)
    except RunInProgress as under_way:
        raise Failed(str(under_way)) from None
    if not began:
        raise Failed(f"run {run_id} is not held: {run.state}")
    show({"id": run_id, "state": "running"}, lambda: say(f"Run {run_id} begins."))


def _confirm(key: int, run_id: int, number: int | None) -> bool:
    try:
        return plans.confirm(key, run_id, who="command line", number=number)
    except AskFirst as asked:
        return plans.confirm(key, run_id, who="command line", number=typed_number(asked))


COMMANDS: tuple[click.Command, ...] = (group,)


def read_run(run_id: int) -> dict[str, Any]:
    """A run with its walks.

    Raises: Failed with exit code 2 when there is none.
    """
    with transaction() as session:
        run = session.get(Run, run_id)
        if run is None:
            raise Failed(f"there is no run {run_id}", "see: pipeline runs list", exit_code=2)
        name = connectors.get_connector(session, run.connector_key).name
        walks = run_rows.slices_of(session, run_id)
        return {**described(run, name), "slices": [columns_of(w, "walk", "state", "frontier", "pages") for w in walks]}


def described(run: Run, connector: str) -> dict[str, Any]:
    """The run's columns, the connector's name and how long it took or has been going."""
    took = (run.finished_at or datetime.now(UTC)) - run.started_at
    return {"connector": connector, **columns_of(run, *COLUMNS), "took_s": round(took.total_seconds(), 3)}


def print_run(facts: dict[str, Any]) -> None:
    """What a run did, as a person reads it."""
    say(
        f"Run {facts['id']}: {facts['kind']} fetch of {facts['entity']}s, {facts['connector']}: {facts['state']}"
        f" after {duration(facts['took_s'])}"
    )
    if facts["reason"] and (reason := REASONS.get(facts["reason"])):
        say(f"  {facts['reason']}: {reason.meaning} {reason.advice}")
    say(
        f"  read {facts['read']:,}: {facts['new']:,} new, {facts['changed']:,} changed, {facts['same']:,} unchanged,"
        f" {facts['skipped']:,} skipped, {facts['failed']:,} failed"
    )
    say(f"  made {facts['shells']:,} shells, {facts['links']:,} links; {facts['messages']:,} messages to Hull")
    rate = facts["read"] / facts["took_s"] if facts["took_s"] > 0 else 0
    say(
        f"  {facts['pages']:,} pages, {facts['requests']:,} requests, {facts['tokens']:,} tokens of Pipedrive's daily"
        f" budget, {rate:,.0f} records a second"
    )
