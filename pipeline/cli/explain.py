"""`pipeline explain`: why a field of a record is as it is, from what was told or read to the value that stands there."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import click
from sqlalchemy.orm import Session

from db import connector as connectors
from db.connector import Connector
from db.record_events import Whose
from db.record_search import FoundRecord
from db.session import transaction
from pipeline.cli.events import short
from pipeline.cli.fetch import Moment
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, find_connector, json_option, moment, say, show, table
from pipeline.domain.kinds import Entity
from pipeline.insight import explain as explaining
from pipeline.insight import record as records
from pipeline.insight import standing
from pipeline.insight.explain import Explanation
from pipeline.insight.links import Step
from pipeline.insight.mapped import mapped_fields
from pipeline.insight.record import Record
from pipeline.insight.search import SEARCHED, search
from pipeline.sync.compiled import plan_for


@click.command()
@click.argument("record", metavar="RECORD")
@click.option("--connector", metavar="CONNECTOR", help="Of this connector; needed where there are several.")
@click.option("--entity", type=click.Choice([each.value for each in Entity]), help="A Person or an Organization.")
@click.option("--field", metavar="FIELD", help="An attribute of Hull, or a field of Pipedrive by its code or name.")
@click.option("--at", type=Moment(), metavar="TIME", help="As it was then: 2h, 3d, 2026-08-31T12:00.")
@json_option
def explain(record: str, connector: str | None, entity: str | None, field: str | None, at: datetime | None) -> None:
    """Explain RECORD (a Pipedrive id, a Hull id, an e-mail, a domain or an external id): all its fields side by side, or, with
    --field, the chain that led to one of them: delivery or fetch, rule and settings, request and response, read-back, value.

    \b
    Example:
      pipeline explain 4711
      pipeline explain ada@acme.com --field pipedrive/name
      pipeline explain 4711 --entity person --field name --at 2026-08-31T12:00
    """
    open_database()
    with transaction() as session:
        whose = _whose(session, _connector(session, connector), record, entity)
        if field is None and at is None:
            _show_record(records.read_record(session, whose))
            return
        told = explaining.explain(session, whose, field or "pipedrive/id", at)
        if told.is_unknown:
            raise _no_such_field(session, whose, field or "")
    show(_document(told), lambda: _print_story(told))


COMMANDS: tuple[click.Command, ...] = (explain,)


def _connector(session: Session, given: str | None) -> Connector:
    if given is not None:
        return find_connector(session, given)
    known = connectors.all_connectors(session)
    if len(known) == 1:
        return known[0]
    names = ", ".join(each.name for each in known) or "none yet"
    raise Failed(f"there are several connectors or none: {names}", "say which: --connector NAME", exit_code=2)


def _whose(session: Session, connector: Connector, asked: str, entity: str | None) -> Whose:
    found = [each for each in search(session, connector.key, asked) if entity in (None, each.entity)]
    if not found:
        raise Failed(f"no record of {connector.name} goes by {asked}", f"look it up by {SEARCHED}", exit_code=2)
    if len(found) > 1:
        raise Failed(
            f"{len(found)} records go by {asked}: {', '.join(map(_name, found))}",
            "say which: --entity person, or its Hull id",
            exit_code=2,
        )
    only = found[0]
    kind = Entity(only.entity)
    whose = records.find_whose(session, connector.key, kind, pipedrive_id=only.pipedrive_id, hull_id=only.hull_id)
    if whose is None:
        raise Failed(f"nothing is kept of {asked} any more")
    return whose


def _no_such_field(session: Session, whose: Whose, asked: str) -> Failed:
    """Neither mapped now nor ever carried over: a slip of the pen, most of the time."""
    fields = mapped_fields(plan_for(session, whose.connector_key, Entity(whose.entity)))
    names = {each.attribute for each in fields} | {each.label for each in fields}
    near = get_close_matches(asked, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "leave out --field: all fields are listed"
    return Failed(f"no field {asked} of this {whose.entity} is mapped, or ever was", hint, exit_code=2)


def _name(found: FoundRecord) -> str:
    return f"{found.entity} {found.pipedrive_id or found.hull_id}"


def _show_record(record: Record) -> None:
    rows = [
        {
            "field": row.field.label,
            "code": row.field.code,
            "attribute": row.field.attribute,
            "direction": row.field.arrow,
            "pipedrive": row.pipedrive,
            "hull": row.hull,
            "last_event": row.last.id if row.last else None,
            "last_change": row.last.at if row.last else None,
            "refused": row.is_refused,
            "heard": row.is_heard,
        }
        for row in record.fields
    ]
    document = {
        "entity": record.whose.entity,
        "pipedrive_id": record.whose.pipedrive_id,
        "hull_id": record.whose.hull_id,
        "state": record.state,
        "sentence": standing.sentence_of(record),
        "matched": record.matched,
        "claims": {each.claim: each.value for each in record.claims if each.holds},
        "failures": [each.id for each in record.failures],
        "fields": rows,
    }
    show(document, lambda: _print_record(record, rows))


def _print_record(record: Record, rows: list[dict[str, Any]]) -> None:
    whose = record.whose
    say(f"{whose.entity.capitalize()} {whose.pipedrive_id or '-'} ↔ Hull {whose.hull_id or 'id not known yet'}")
    say(f"  {standing.sentence_of(record)} {record.matched}")
    columns = ("field", "pipedrive", "", "hull", "attribute", "last change (UTC)")
    table("", columns, [_line(row) for row in rows])
    say("Why is one as it is? Ask again with --field ATTRIBUTE")


def _line(row: dict[str, Any]) -> tuple[Any, ...]:
    hull = short(row["hull"], 40) if row["heard"] else "not heard yet"
    return row["field"], short(row["pipedrive"], 40), row["direction"], hull, row["attribute"], row["last_change"]


def _document(told: Explanation) -> Explanation:
    """Without what only this process can use."""
    return replace(told, field=replace(told.field, reader=None))


def _print_story(told: Explanation) -> None:
    say(told.sentence)
    for step in told.steps:
        _print_step(step)


def _print_step(step: Step) -> None:
    when = f"  {moment(step.at)} UTC" if step.at else ""
    say(f"\n● {step.title}{when}\n  {step.sentence}")
    if step.change is not None:
        before = "not known before" if step.change.is_first else short(step.change.before, 60)
        say(f"  {step.change.label}: {before} → {short(step.change.after, 60)}")
    for fact in step.facts:
        say(f"  {fact.name}: {short(fact.value, 100) if fact.is_value else fact.value}")
