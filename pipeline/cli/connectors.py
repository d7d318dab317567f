"""`pipeline connectors show`: everything about one connector. The other commands of the group are generated."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from db import connector as rows
from db import failure_count, schedule
from db.authorisation import connection_of
from db.connector import Connector
from db.id_mapping import mapping_counts
from db.session import transaction
from db.watermark import find_watermark
from pipeline.cli import authorising
from pipeline.cli.opening import open_database
from pipeline.cli.showing import (
    columns_of,
    connector_argument,
    find_connector,
    json_option,
    moment,
    say,
    show,
    table,
)
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.insight.overview import overview
from pipeline.sync.connectors.webhooks import hearing

COLUMNS = ("id", "name", "hull_organization", "pipedrive_company", "state", "pause_reason", "created_at")


@click.group(name="connectors")
def group() -> None:
    """Connectors: one Hull organization joined to one Pipedrive company each.

    \b
    Example:
      pipeline connectors add acme --hull-organization acme.hullapp.io --hull-id 65f000000000000000000001 \\
        --hull-secret-file hull.secret --pipedrive-token-file pipedrive.token
    """


@group.command(name="show")
@connector_argument
@json_option
def show_one(connector: str) -> None:
    """Show a connector: its state, what it holds, what is planned.

    \b
    Example:
      pipeline connectors show acme
    """
    open_database()
    facts, connected = _facts(connector)

    def human() -> None:
        say(f"{facts['name']} ({facts['id']}), {_state(facts)}")
        say(f"  {facts['sentence']}")
        for note in facts["notes"]:
            say(f"  - {note}")
        say(f"  today      {', '.join(f'{count:,} {name}' for name, count in facts['today'].items())}")
        say(f"  Hull       {facts['hull_organization']}")
        say(f"  Pipedrive  {facts['pipedrive_company'] or '-'}")
        say(f"  connected  {connected}")
        say(f"  settings   version {facts['settings_version']}")
        say(f"  full fetch {facts['next_full_fetch'] or 'by hand only (full_fetch_cron is empty in the settings)'}")
        say(f"  changes    {facts['next_incremental'] or 'by webhook only (incremental_minutes is 0 in the settings)'}")
        for entity, reached in facts["in_step_up_to"].items():
            say(
                f"  in step    {Entity(entity).plural} up to {f'{moment(reached)} UTC' if reached else 'no moment yet'}"
            )
        say(f"  webhooks   {facts['webhooks']}")
        say(f"  failures   {facts['open_failures']} open")
        table("", ("entity", "state", "records", "with Hull id"), [tuple(each.values()) for each in facts["mappings"]])

    show(facts, human)


COMMANDS: tuple[click.Command, ...] = (group,)


def _state(facts: dict[str, Any]) -> str:
    """With the reason a connector paused itself for, if it did."""
    reason = facts["pause_reason"]
    if not reason or reason == "connector_paused":
        return str(facts["state"])
    return f"{facts['state']}: {REASONS[reason].meaning if reason in REASONS else reason}"


def _facts(id_or_name: str) -> tuple[dict[str, Any], str]:
    """(everything about a connector, how it is connected in words)."""
    with transaction() as session:
        found: Connector = find_connector(session, id_or_name)
        connection = connection_of(session, found)
        planned = {row.kind: row.next_run_at for row in schedule.schedules_of(session, found.key)}
        counts = mapping_counts(session, found.key)
        seen = overview(session, found)
        return {
            **columns_of(found, *COLUMNS),
            "status": seen.in_step.level,
            "sentence": seen.in_step.text,
            "notes": [note.message for note in seen.notes],
            "today": {course.name: course.today for course in seen.traffic.courses},
            "running": [run.id for run in seen.running],
            "connection": authorising.as_facts(connection),
            "settings_version": rows.settings_in_force(session, found.key).version,
            "next_full_fetch": planned.get("full_fetch"),
            "next_incremental": planned.get("incremental"),
            "in_step_up_to": {
                entity.value: mark.claimed if (mark := find_watermark(session, found.key, entity)) else None
                for entity in Entity
            },
            "webhooks": hearing(session, found.key).sentence,
            "open_failures": sum(failure_count.count_open(session, found.key).values()),
            "mappings": [asdict(each) for each in counts],
        }, authorising.as_line(connection)
