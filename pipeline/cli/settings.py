"""`pipeline settings`: show, set, diff, history, suggest. A version that was in force is never changed, only followed.

Plans of settings stand in `settings_plan`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from difflib import unified_diff
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from db import connector as rows
from db import id_mapping
from db import run as run_rows
from db.connector import SettingsVersion
from db.session import transaction
from pipeline.cli.audited import audited
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, columns_of, connector_argument, find_connector, json_option, say, show, table
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import SettingsRefused, read_settings
from pipeline.insight.first_steps import suggested
from pipeline.insight.settings_editing import between
from pipeline.insight.settings_text import effective, pretty
from pipeline.sync.connectors import setup
from pipeline.sync.runs import backfill, spending

STDIN = "-"


@click.group(name="settings")
def group() -> None:
    """Settings of a connector: what identifies a record, which fields travel, who is sent.

    \b
    Example:
      pipeline settings show acme > settings.json
      pipeline settings set acme settings.json
    """


@group.command(name="show")
@connector_argument
@click.option("--version", type=int, help="A version that was in force earlier.")
@json_option
def show_settings(connector: str, version: int | None) -> None:
    """Show the settings in force, with the defaults of what was not set; the output fits `settings set`.

    \b
    Example:
      pipeline settings show acme --version 3
    """
    open_database()
    with transaction() as session:
        key = find_connector(session, connector).key
        chosen = _version(session, key, version)
    click.echo(pretty(effective(chosen.document)))


@group.command(name="set")
@connector_argument
@click.argument("file")
@click.option("--force", is_flag=True, help="Take over field codes that Pipedrive does not know (yet).")
@click.option("--yes", is_flag=True, help="Carry them over at once, however many records that touches.")
@json_option
@audited("settings.save")
def set_settings(connector: str, file: str, force: bool, yes: bool) -> None:
    """Put the settings of FILE (JSON; - is standard input) in force, whole.

    Wrong settings are refused and every mistake is named; so are fields that Pipedrive does not have. What they would do is told
    beforehand by `pipeline settings plan`; without --yes, a run that touches more than `change_stop_share` of the known records
    waits for `pipeline runs confirm`.

    \b
    Example:
      pipeline settings show acme | sed s/website/domain/ | pipeline settings set acme -
    """
    document = read_document(file)
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
        before = rows.settings_in_force(session, found.key)
    try:
        after = setup.change_settings(found, document, "command line", force=force, confirmed=yes)
    except SettingsRefused as error:
        raise refused(error) from None
    changed = after.version != before.version

    def human() -> None:
        if not changed:
            say(f"Nothing differs from version {after.version}, which stays in force.")
            return
        say(f"Version {after.version} is in force.")
        say(difference(before, after))
        for each in carried:
            say(_in_words(each))

    carried = _carried_over(found.key, after.version) if changed else []
    show({"version": after.version, "changed": changed, "carried_over_by": carried}, human)


def _carried_over(connector_key: int, version: int) -> list[dict[str, Any]]:
    """The runs by which records of before get what is new, and what each will cost."""
    with transaction() as session:
        started = run_rows.runs_of_settings(session, connector_key, version, backfill.CAUSE)
        return [
            {
                "run_id": run.id,
                "entity": run.entity,
                "kind": run.kind,
                "state": run.state,
                "records": sum(
                    each.records
                    for each in id_mapping.mapping_counts(session, connector_key)
                    if (each.entity, each.state) == (run.entity, "full")
                ),
                "tokens": _tokens(session, run),
            }
            for run in started
        ]


def _tokens(session: Session, run: run_rows.Run) -> int:
    cost = spending.cost_of(session, run.connector_key, Entity(run.entity)) if run.kind == "full" else None
    return cost.tokens if cost else 0


def _in_words(run: dict[str, Any]) -> str:
    what = f"{run['records']:,} {Entity(run['entity']).plural.capitalize()}"
    if run["state"] == "held":
        return f"That touches {what}, so nothing begins before you say yes: pipeline runs confirm {run['run_id']}"
    if run["kind"] == "backfill":
        how = "get what is new from what is stored, for no tokens"
    else:
        how = f"are fetched again, for about {run['tokens']:,} tokens: a field was added that Pipedrive gives on request only"
    return f"{what} {how}. Follow it: pipeline runs show {run['run_id']}"


@group.command()
@connector_argument
@click.argument("file", required=False)
@click.option("--from", "old", type=int, help="Compare from this version (by default the one in force).")
@click.option("--to", "new", type=int, help="Compare to this version instead of FILE.")
@json_option
def diff(connector: str, file: str | None, old: int | None, new: int | None) -> None:
    """Show what FILE would change, in words and as a diff; or how two versions differ: by default the last two.

    \b
    Example:
      pipeline settings diff acme settings.json
      pipeline settings diff acme --from 2 --to 5
    """
    if file and new is not None:
        raise click.UsageError("give FILE or --to, not both")
    document = read_document(file) if file else None
    open_database()
    with transaction() as session:
        key = find_connector(session, connector).key
        newest = _version(session, key, new)
        if document is None:
            earlier = old if old is not None else max(1, newest.version - 1)
            before, after = _version(session, key, earlier), newest
        else:
            before = _version(session, key, old)
            after = SettingsVersion(version=0, document=_checked(document))
        words = [each.sentence for each in between(session, key, before.document, after.document)]
    text = difference(before, after, name=file)
    changes = changed_names(before.document, after.document)
    show(changes, lambda: say("\n".join([*words, "", text]) if text else "Nothing differs."))


@group.command()
@connector_argument
@json_option
def history(connector: str) -> None:
    """List every version that was in force, newest first.

    \b
    Example:
      pipeline settings history acme
    """
    open_database()
    with transaction() as session:
        versions = rows.settings_history(session, find_connector(session, connector).key)
    documents = {each.version: each.document for each in versions}
    found = [
        {
            **columns_of(each, "version", "created_at", "author"),
            "changed": sorted(changed_names(documents.get(each.version - 1, {}), each.document)),
        }
        for each in versions
    ]
    show(
        found,
        lambda: table(
            "",
            ("version", "since (UTC)", "by", "changed"),
            [(each["version"], each["created_at"], each["author"], ", ".join(each["changed"])) for each in found],
        ),
    )


@group.command()
@connector_argument
@json_option
def suggest(connector: str) -> None:
    """Suggest rows for the mappings: what nearly everybody maps, and the company's own fields, less what is mapped already.

    \b
    Example:
      pipeline settings suggest acme
    """
    open_database()
    with transaction() as session:
        found = suggested(session, find_connector(session, connector).key)
    document = {name: [asdict(each) for each in offered] for name, offered in found.items()}

    def human() -> None:
        for name, offered in found.items():
            lines = [(each.hull, each.service, each.field, each.type, each.does) for each in offered]
            table(
                name, ("hull", "service", "field", "type", "what it does"), lines, empty=f"{name}: nothing to suggest."
            )

    show(document, human)


COMMANDS: tuple[click.Command, ...] = (group,)


def read_document(file: str) -> dict[str, Any]:
    """The JSON object of a file, or of standard input for `-`.

    Raises: UsageError when there is no such file or it holds no JSON object.
    """
    try:
        text = sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise click.UsageError(f"{file} holds no JSON: {error}") from None
    if not isinstance(document, dict):
        raise click.UsageError(f"{file} holds no JSON object")
    return document


def refused(error: SettingsRefused) -> Failed:
    """The refusal, with every mistake on a line of its own."""
    hint = "correct them and try again"
    if any("Pipedrive has no" in mistake for mistake in error.mistakes):
        hint += "; --force takes over fields that Pipedrive does not have (yet)"
    return Failed(str(error), hint)


def difference(before: SettingsVersion, after: SettingsVersion, *, name: str | None = None) -> str:
    """A unified diff of two versions."""
    old, new = pretty(effective(before.document)), pretty(effective(after.document))
    labels = (f"version {before.version}", name or f"version {after.version}")
    return "\n".join(unified_diff(old.splitlines(), new.splitlines(), *labels, n=1, lineterm=""))


def changed_names(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Setting → before and after, where they differ."""
    old, new = effective(before), effective(after)
    return {name: {"before": old[name], "after": new[name]} for name in new if old[name] != new[name]}


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    try:
        read_settings(document)
    except SettingsRefused as error:
        raise refused(error) from None
    return document


def _version(session: Session, connector_key: int, version: int | None) -> SettingsVersion:
    if version is None:
        return rows.settings_in_force(session, connector_key)
    found = {each.version: each for each in rows.settings_history(session, connector_key)}
    if version not in found:
        raise Failed(f"there is no version {version}", f"versions run from 1 to {max(found)}", exit_code=2)
    return found[version]
