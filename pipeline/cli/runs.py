"""Text output of a run for `pipeline fetch` and its progress."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from db import connector as connectors
from db import run as run_rows
from db.run import COUNTERS, Run
from db.session import transaction
from pipeline.cli.showing import Failed, columns_of, duration, say
from pipeline.domain.reasons import REASONS

COLUMNS = (
    "id", "entity", "kind", "state", "phase", "reason", "cause", "changed_only", "since", "settings_version",
    "started_at", "finished_at", *COUNTERS,
)  # fmt: skip


def read_run(run_id: int) -> dict[str, Any]:
    """Return a run with its walks.

    Raises: Failed with exit code 2 if there is no such run.
    """
    with transaction() as session:
        run = session.get(Run, run_id)
        if run is None:
            raise Failed(f"there is no run {run_id}", "see: pipeline runs list CONNECTOR", exit_code=2)
        name = connectors.get_connector(session, run.connector_key).name
        walks = run_rows.slices_of(session, run_id)
        return {**described(run, name), "slices": [columns_of(w, "walk", "state", "frontier", "pages") for w in walks]}


def described(run: Run, connector: str) -> dict[str, Any]:
    """Return the run's columns, the connector's name and the run's duration so far."""
    took = (run.finished_at or datetime.now(UTC)) - run.started_at
    return {"connector": connector, **columns_of(run, *COLUMNS), "took_s": round(took.total_seconds(), 3)}


def print_run(facts: dict[str, Any]) -> None:
    """Print the counters of a run."""
    say(
        f"Run {facts['id']}: {facts['kind']} fetch of {facts['entity']}s, {facts['connector']}: {facts['state']}"
        f" after {duration(facts['took_s'])}"
    )
    if facts["reason"] and (reason := REASONS.get(facts["reason"])):
        say(f"  {facts['reason']}: {reason.meaning} {reason.advice}")
    say(
        f"  read {facts['read']:,}: {facts['new']:,} new, {facts['changed']:,} changed, {facts['same']:,} unchanged,"
        f" {facts['skipped']:,} skipped, {facts['failed']:,} failed,"
        f" {facts['rejected_fields']:,} fields of synchronized records were left out"
    )
    say(f"  created {facts['shells']:,} shells, {facts['links']:,} links; {facts['messages']:,} messages to Hull")
    rate = facts["read"] / facts["took_s"] if facts["took_s"] > 0 else 0
    say(
        f"  {facts['pages']:,} pages, {facts['requests']:,} requests, {facts['tokens']:,} tokens of Pipedrive's daily"
        f" budget, {rate:,.0f} records a second"
    )
