"""`pipeline mappings`: the id map."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
import orjson

from db import id_mapping
from db.id_mapping import IdMapping, MappingCount, mapping_counts
from db.session import transaction
from db.shell import shell_ages
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

MAPPING = (
    "entity", "pipedrive_id", "hull_id", "state", "version", "matched_by", "merged_into", "first_seen_at", "updated_at",
    "resolve_at", "resolve_attempts",
)  # fmt: skip


@click.group(name="mappings", invoke_without_command=True)
@click.option("--shells", is_flag=True, help="Accounts known by their Pipedrive id alone: how many, and how old.")
@json_option
@click.pass_context
def mappings(context: click.Context, *, shells: bool) -> None:
    """The id map: which User is which Person, which Account is which Organization.

    \b
    Example:
      pipeline mappings show acme
      pipeline mappings --shells
    """
    if shells and context.invoked_subcommand is None:
        _show_shells()
    elif context.invoked_subcommand is None:
        say(context.get_help())


def _show_shells() -> None:
    open_database()
    with transaction() as session:
        found = [asdict(each) for each in shell_ages(session)]
    show(
        found,
        lambda: table(
            "Shells",
            ("connector", "shells", "the oldest since", "over two minutes old"),
            [(each["connector"], each["shells"], moment(each["oldest"]), each["late"]) for each in found],
            empty="No shells: every Organization that a Person belongs to has been read.",
        ),
    )


@mappings.command(name="show")
@connector_argument
@click.argument("record", required=False)
@json_option
def show_mappings(connector: str, record: str | None) -> None:
    """Count the id mappings by state; or show those of RECORD, a Pipedrive id or a Hull id.

    \b
    Example:
      pipeline mappings show acme 4711
    """
    open_database()
    with transaction() as session:
        key = find_connector(session, connector).key
        if record is None:
            _show_counts(mapping_counts(session, key))
            return
        found = [_mapping(each) for each in id_mapping.find_mapping(session, key, record)]
    if not found:
        raise Failed(
            f"nothing is known of {record}",
            f"it comes with the next fetch, if Pipedrive shows it: pipeline fetch all {connector} --wait",
        )
    show(found, lambda: _print_mappings(found))


def _show_counts(counts: list[MappingCount]) -> None:
    found = [{**asdict(each), "without_hull_id": each.without_hull_id} for each in counts]
    show(
        found,
        lambda: table(
            "",
            ("entity", "state", "records", "with Hull id", "without"),
            [tuple(each.values()) for each in found],
            empty="The id map is empty. Fill it: pipeline fetch all CONNECTOR --wait",
        ),
    )


def _mapping(row: IdMapping) -> dict[str, Any]:
    delivered = orjson.loads(row.delivered) if row.delivered else {}
    return {**columns_of(row, *MAPPING), "delivered": delivered}


def _print_mappings(found: list[dict[str, Any]]) -> None:
    for each in found:
        say(f"{each['entity']} {each['pipedrive_id'] or '-'} = Hull {each['hull_id'] or 'id not known yet'}")
        say(f"  state {each['state']}, matched by {each['matched_by']}, first seen {moment(each['first_seen_at'])} UTC")
        for name, value in each["delivered"].items():
            say(f"  {name}: {json.dumps(value, ensure_ascii=False)}")


COMMANDS: tuple[click.Command, ...] = (mappings,)
