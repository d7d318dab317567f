"""`pipeline runs`: list, show, batch, cancel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from db import connector as connectors
from db import run as run_rows
from db.run import COUNTERS, Run
from db.session import transaction
from pipeline.cli.audited import audited
from pipeline.cli.opening import open_database
from pipeline.cli.showing import (
    Failed,
    columns_of,
    connector_argument,
    duration,
    find_connector,
    json_option,
    moment,
    say,
    show,
    table,
)
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.insight.run_story import BatchStory, FailureLine, batch_story, run_story
from pipeline.sync.runs.runs import cancel_run

KINDS = ("full", "incremental", "backfill")
STATES = ("running", "held", "done", "stopped", "cancelled")
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
@click.option("--entity", type=click.Choice([each.value for each in Entity]), help="Only of Persons or Organizations.")
@click.option("--kind", type=click.Choice(KINDS), help="Only of this kind.")
@click.option("--state", type=click.Choice(STATES), help="Only those that stand so.")
@click.option("--before", type=int, metavar="RUN", help="Only those that began before this one.")
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@json_option
def list_runs(connector: str | None, before: int | None, limit: int, **exact: str | None) -> None:
    """List runs, newest first; of all connectors unless one is named.

    \b
    Example:
      pipeline runs list acme --limit 5
      pipeline runs list acme --kind full --state stopped
    """
    open_database()
    with transaction() as session:
        key = find_connector(session, connector).key if connector else None
        names = {each.key: each.name for each in connectors.all_connectors(session)}
        runs = run_rows.find_runs(session, key, before=before, limit=limit, **exact)
        found = [described(run, names[run.connector_key]) for run in runs]
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
    """Show one run: what it did, how far each of its walks has come, how its batches stand, what failed in it.

    \b
    Example:
      pipeline runs show 12
    """
    open_database()
    facts = read_run(run_id)
    with transaction() as session:
        story = run_story(session, session.get_one(Run, run_id))
    facts |= {"batch_states": story.batch_states, "failures": [asdict(each) for each in story.failures]}

    def human() -> None:
        print_run(facts)
        if story.batch_states:
            say(f"  batches: {', '.join(f'{count:,} {state}' for state, count in story.batch_states.items())}")
        _print_failures(story.failures)

    show(facts, human)


@group.command(name="batch")
@connector_argument
@click.argument("batch_id", metavar="BATCH", type=int)
@json_option
def show_batch(connector: str, batch_id: int) -> None:
    """Show one batch: its stage, its Celery task, what failed in it.

    \b
    Example:
      pipeline runs batch acme 120
    """
    open_database()
    with transaction() as session:
        story = batch_story(session, find_connector(session, connector).key, batch_id)
    if story is None:
        raise Failed(f"there is no batch {batch_id}", "those that ended well are forgotten after a month", exit_code=2)
    show({**asdict(story), "is_abandoned": story.is_abandoned}, lambda: _print_batch(story))


@group.command()
@click.argument("run_id", metavar="RUN", type=int)
@json_option
@audited("run.cancel")
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


def _print_batch(story: BatchStory) -> None:
    line = story.line
    lost = ", its worker is gone" if story.is_abandoned else ""
    say(f"Batch {line.id}, {line.direction} {line.entity}: {line.state} at {line.stage}, attempt {line.attempts}{lost}")
    say(f"  {line.records:,} records, queue {line.queue}, Celery task {line.task_id or '-'}, run {story.run_id or '-'}")
    say(
        f"  made {moment(line.created_at)}, due {moment(line.due_at)} UTC; {story.cause or story.walk or ''}".rstrip(
            "; "
        )
    )
    _print_failures(story.failures)


def _print_failures(failures: Sequence[FailureLine]) -> None:
    for each in failures:
        say(f"  failure {each.id}: {each.entity} {each.record_id or ''} at {each.stage}, {each.reason}. {each.meaning}")


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
        f" {facts['skipped']:,} skipped, {facts['failed']:,} failed,"
        f" {facts['rejected_fields']:,} fields of records that were carried over stayed behind"
    )
    say(f"  made {facts['shells']:,} shells, {facts['links']:,} links; {facts['messages']:,} messages to Hull")
    rate = facts["read"] / facts["took_s"] if facts["took_s"] > 0 else 0
    say(
        f"  {facts['pages']:,} pages, {facts['requests']:,} requests, {facts['tokens']:,} tokens of Pipedrive's daily"
        f" budget, {rate:,.0f} records a second"
    )
