"""`pipeline connectors`: add, list, show, pause, resume, remove."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
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
from pipeline.cli.audited import audited, operator_name
from pipeline.cli.documents import read_document, refused
from pipeline.cli.opening import open_database
from pipeline.cli.showing import (
    Failed,
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
from pipeline.domain.settings import SettingsRefused
from pipeline.errors import PipelineError
from pipeline.insight import connections
from pipeline.insight.overview import overview
from pipeline.sync.connectors import setup
from pipeline.sync.connectors.webhooks import ensure_webhooks, hearing

COLUMNS = ("id", "name", "hull_organization", "pipedrive_company", "state", "pause_reason", "created_at")
SECRET_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(name="connectors")
def group() -> None:
    """Connectors: one Hull organization joined to one Pipedrive company each.

    \b
    Example:
      pipeline connectors add acme --hull-organization acme.hullapp.io --hull-id 65f000000000000000000001 \\
        --hull-secret-file hull.secret --pipedrive-token-file pipedrive.token
    """


@group.command()
@click.argument("name")
@click.option("--hull-organization", required=True, metavar="HOST", help="The organization, e.g. acme.hullapp.io")
@click.option("--hull-id", required=True, metavar="ID", help="The connector's id in Hull (24 hex digits).")
@click.option("--hull-secret-file", required=True, type=SECRET_FILE, help="File that holds the connector's secret.")
@click.option("--pipedrive-token-file", type=SECRET_FILE, help="File that holds the API token; leave it out for OAuth.")
@click.option("--settings", "settings_file", metavar="FILE", help="First settings (JSON); by default those Hull holds.")
@json_option
@audited("connector.add")
def add(
    name: str,
    hull_organization: str,
    hull_id: str,
    hull_secret_file: Path,
    pipedrive_token_file: Path | None,
    settings_file: str | None,
) -> None:
    """Add a connector, after Hull and Pipedrive have accepted its credentials.

    Without an API token its work waits until somebody connects it: pipeline connectors authorize. Secrets are read from
    files, so that neither the shell's history nor a process list shows them.

    \b
    Example:
      pipeline connectors add acme --hull-organization acme.hullapp.io --hull-id 65f000000000000000000001 \\
        --hull-secret-file hull.secret --pipedrive-token-file pipedrive.token --settings settings.json
    """
    document = read_document(settings_file) if settings_file else None
    open_database()
    try:
        added = setup.add_connector(
            name,
            hull_organization=hull_organization,
            hull_id=hull_id,
            hull_secret=_secret(hull_secret_file),
            pipedrive_token=_secret(pipedrive_token_file) if pipedrive_token_file else None,
            settings=document,
        )
    except setup.SetupRefused as error:
        raise Failed(str(error)) from None
    except SettingsRefused as error:
        raise refused(error) from None

    connected = pipedrive_token_file is not None
    unheard = _hear(added) if connected else "not_connected"

    def human() -> None:
        if not connected:
            say(f"Connector {added.name} of {added.hull_organization} is added; its work waits.")
            say(f"Next: pipeline connectors authorize {added.name}")
            return
        say(f"Connector {added.name} joins {added.hull_organization} to {added.pipedrive_company}.")
        if unheard:
            say(f"Pipedrive does not send its changes here yet: {unheard}")
            say(f"Once it can reach PUBLIC_URL: pipeline connectors webhooks {added.name}")
        say(f"Next: pipeline settings show {added.name}, then pipeline fetch all {added.name} --wait")

    show({**columns_of(added, *COLUMNS), "webhooks": unheard or "ok"}, human)


@group.command(name="list")
@json_option
def list_all() -> None:
    """List the connectors.

    \b
    Example:
      pipeline connectors list --json
    """
    open_database()
    with transaction() as session:
        found = [columns_of(each, *COLUMNS) for each in rows.all_connectors(session)]
    show(
        found,
        lambda: table(
            "",
            ("name", "id", "Hull", "Pipedrive", "state"),
            [(c["name"], c["id"], c["hull_organization"], c["pipedrive_company"], _state(c)) for c in found],
            empty="No connector yet. Add one: pipeline connectors add --help",
        ),
    )


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


@group.command()
@connector_argument
@json_option
@audited("connector.pause")
def pause(connector: str) -> None:
    """Pause a connector: its work is kept and waits.

    \b
    Example:
      pipeline connectors pause acme
    """
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
    connections.pause(found.key, by=operator_name())
    _show_state(found.key, "is paused; its work waits")


@group.command()
@connector_argument
@json_option
@audited("connector.resume")
def resume(connector: str) -> None:
    """Let a paused connector go on with the work that waits.

    \b
    Example:
      pipeline connectors resume acme
    """
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
        if connection_of(session, found).how is None:
            raise Failed(f"{found.name} is not connected to Pipedrive", f"pipeline connectors authorize {found.name}")
    connections.resume(found.key, by=operator_name())
    _show_state(found.key, "is active")


@group.command()
@connector_argument
@click.argument("name")
@json_option
@audited("connector.rename")
def rename(connector: str, name: str) -> None:
    """Give a connector another name; its id, its history and both systems stay as they are.

    \b
    Example:
      pipeline connectors rename acme acme-emea
    """
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
    try:
        connections.rename(found.key, name, by=operator_name())
    except setup.SetupRefused as error:
        raise Failed(str(error)) from None
    show({"id": found.id, "name": name, "was": found.name}, lambda: say(f"{found.name} is named {name} from now on."))


@group.command()
@connector_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@audited("connector.remove")
def remove(connector: str, yes: bool) -> None:
    """Remove a connector with everything kept of it: id map, events, failures, credentials; and its webhooks in Pipedrive.

    Neither Hull nor Pipedrive loses a record.

    \b
    Example:
      pipeline connectors remove acme --yes
    """
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
    if not yes:
        click.confirm(f"Forget {found.name} ({found.hull_organization}), its id map and its history?", abort=True)
    left = connections.remove(found, by=operator_name())

    def human() -> None:
        say(f"Connector {found.name} is removed.")
        if left:
            say(f"Its webhooks could not be taken away in Pipedrive: {left}")
            say("They are refused here from now on; take them away there, or Pipedrive does so after three days.")

    show({"removed": found.id, "name": found.name, "webhooks": left or "removed"}, human)


COMMANDS: tuple[click.Command, ...] = (group,)


def _secret(path: Path) -> str:
    text = path.read_text(encoding="utf-8").strip()
    if not text:
        raise click.UsageError(f"{path} is empty")
    return text


def _show_state(key: int, words: str) -> None:
    with transaction() as session:
        found = rows.get_connector(session, key)
    show(columns_of(found, *COLUMNS), lambda: say(f"Connector {found.name} {words}."))


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


def _hear(connector: Connector) -> str:
    """Subscribe to what is missing; returns why Pipedrive refused, or nothing. Without webhooks fetches still work."""
    try:
        ensure_webhooks(connector.key)
    except PipelineError as error:
        return str(error)
    return ""
