"""`pipeline send`: send chosen Users or Accounts to Pipedrive, as "Send to" in Hull does."""

from __future__ import annotations

import click
from rich.progress import Progress

from db.session import transaction
from pipeline.cli.audited import audited
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, connector_argument, find_connector, json_option, say, show, wants_json
from pipeline.domain.kinds import Entity
from pipeline.insight import sending
from pipeline.insight.acts import Impossible
from pipeline.jobs.send_records import Chosen, send_by_id, send_segment


@click.group(name="send")
def group() -> None:
    """Send Users or Accounts from Hull to Pipedrive, whatever their segments.

    \b
    Example:
      pipeline send users acme --id 5bd329ebe0a1d8b9c8b0e3f1
      pipeline send accounts acme --segment 59ad2e8d30e9a0b5c1000123
    """


def _command(name: str, entity: Entity, noun: str) -> click.Command:
    @click.command(name=name, help=_help(name, noun))
    @connector_argument
    @click.option(
        "--id",
        "ids",
        multiple=True,
        metavar="HULL_ID",
        help=f"A {noun}, by its Hull id or an e-mail; may be given several times.",
    )
    @click.option("--segment", metavar="SEGMENT_ID", help=f"Every {noun} of this segment.")
    @json_option
    @audited("send")
    def command(connector: str, ids: tuple[str, ...], segment: str | None) -> None:
        _send(connector, entity, noun, ids, segment)

    return command


def _help(name: str, noun: str) -> str:
    return f"""Send {name}: each is asked of Hull as it is now, matched, and updated or made in Pipedrive.

    A {noun} sent by hand passes every filter. Sending again changes nothing that has not changed.

    \b
    Example:
      pipeline send {name} acme --id 5bd329ebe0a1d8b9c8b0e3f1 --id 5bd329ebe0a1d8b9c8b0e3f2
      pipeline send {name} acme --segment 59ad2e8d30e9a0b5c1000123
    """


group.add_command(_command("users", Entity.PERSON, "User"))
group.add_command(_command("accounts", Entity.ORGANIZATION, "Account"))

COMMANDS: tuple[click.Command, ...] = (group,)


def _send(connector: str, entity: Entity, noun: str, ids: tuple[str, ...], segment: str | None) -> None:
    if bool(ids) == bool(segment):
        raise click.UsageError(f"name {noun}s by --id, or one segment by --segment")
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
        try:
            ids = sending.as_hull_ids(session, found.key, entity, ids)
        except Impossible as impossible:
            raise Failed(impossible.sentence, impossible.next_step) from None
    if found.state != "active":
        raise Failed(f"{found.name} is paused", f"run: pipeline connectors resume {found.name}")
    chosen = send_by_id(found.key, entity, ids) if ids else _whole_segment(found.key, entity, noun, segment or "")
    facts = {"connector": found.id, "sent": chosen.found, "missing": list(chosen.missing)}
    show(facts, lambda: _tell(chosen, noun, found.name))
    if chosen.missing or not chosen.found:
        click.get_current_context().exit(1)


def _whole_segment(connector_key: int, entity: Entity, noun: str, segment: str) -> Chosen:
    with Progress(disable=wants_json(), transient=True) as bar:
        task = bar.add_task(f"{noun}s", total=None)
        return send_segment(
            connector_key, entity, segment, progress=lambda done, of: bar.update(task, completed=done, total=of)
        )


def _tell(chosen: Chosen, noun: str, name: str) -> None:
    say(f"{chosen.found} {noun}s are on their way. Watch them: pipeline events {name} --follow")
    if chosen.missing:
        say(f"Hull knows no such {noun}: {', '.join(chosen.missing)}")
    elif not chosen.found:
        say(f"Hull knows no {noun} in this segment; its id stands in the address of the segment's page.")
