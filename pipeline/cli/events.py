"""`pipeline events`: what happened to records, and why; by the same filter as the console's log."""

from __future__ import annotations

import json
import time
from typing import Any

import click
import orjson

from db import event_log
from db.event_log import EventFilter, TooMuch
from db.session import transaction
from db.sync_event import SyncEvent
from pipeline.cli.fetch import Moment
from pipeline.cli.opening import open_database
from pipeline.cli.showing import (
    Failed,
    columns_of,
    connector_argument,
    find_connector,
    json_option,
    moment,
    plain,
    say,
    short,
    show,
    wants_json,
)
from pipeline.domain.kinds import Direction, Entity, Outcome
from pipeline.domain.reasons import REASONS
from pipeline.insight import log

FOLLOW_S = 0.5
EVENT = (
    "id", "at", "event", "entity", "pipedrive_id", "hull_id", "reason", "field", "detail", "cause", "run_id", "batch_id",
    "settings_version", "delivery_id",
)  # fmt: skip


@click.command()
@connector_argument
@click.option("--record", metavar="ID", help="Only of this record: a Pipedrive id, a Hull id, an e-mail, a domain.")
@click.option("--event", metavar="NAME", help="Only these events; * stands for anything: 'incoming.*.error'.")
@click.option("--direction", type=click.Choice([each.value for each in Direction]), help="Only in this direction.")
@click.option("--entity", type=click.Choice([each.value for each in Entity]), help="Only of Persons or Organizations.")
@click.option("--outcome", type=click.Choice([each.value for each in Outcome]), help="Only those that ended so.")
@click.option("--reason", metavar="CODE", help="Only with this reason code.")
@click.option("--cause", metavar="CAUSE", help="Only of this cause: fetch, webhook, notification, read_back, ...")
@click.option("--run", "run_id", type=int, metavar="RUN", help="Only of this run.")
@click.option("--batch", "batch_id", type=int, metavar="BATCH", help="Only of this batch.")
@click.option("--since", type=Moment(), metavar="TIME", help="Only since: 2h, 3d, 2026-08-31.")
@click.option("--until", type=Moment(), metavar="TIME", help="Only before: 15m, 2026-08-31T12:00.")
@click.option("--limit", default=50, show_default=True, help="How many, newest last.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all of them as CSV, newest first: 100,000 at most.")
@click.option("--before", type=int, metavar="EVENT", help="With --csv: only what is older than this event.")
@click.option("--follow", is_flag=True, help="Go on printing events as they happen.")
@json_option
def events(
    connector: str, record: str | None, limit: int, follow: bool, as_csv: bool, before: int | None, **given: Any
) -> None:
    """Show what happened to records, and why, oldest first. With --json one object to a line when following.

    \b
    Example:
      pipeline events acme --event 'incoming.*.error'
      pipeline events acme --direction outgoing --outcome skip --since 2h
      pipeline events acme --record 4711 --follow
      pipeline events acme --since 24h --csv > events.csv
    """
    if (as_csv and (follow or wants_json())) or (before is not None and not as_csv):
        raise click.UsageError("--csv goes with neither --follow nor --json, and --before with --csv alone")
    open_database()
    with transaction() as session:
        key = find_connector(session, connector).key
        wanted = EventFilter(**given)
        wanted = wanted if record is None else log.about(session, key, wanted, record)
        last = event_log.newest_id(session)
    if as_csv:
        _print_csv(key, wanted, before)
        return
    latest = _latest(key, wanted, limit)
    if not follow:
        show(latest, lambda: _print_events(latest) if latest else say("No such event."))
        return
    _print_events(latest)
    _follow(key, wanted, latest[-1]["id"] if latest else last)


COMMANDS: tuple[click.Command, ...] = (events,)


def _latest(connector_key: int, wanted: EventFilter, limit: int) -> list[dict[str, Any]]:
    try:
        with event_log.bounded() as session:
            newest = event_log.page_of_events(session, connector_key, wanted, limit=limit)
    except TooMuch:
        raise _too_much() from None
    return [_event(each) for each in reversed(newest)]


def _too_much() -> Failed:
    return Failed("this filter looks through too many events", "narrow it: --since 2h, --record ID, --run RUN")


def _print_csv(connector_key: int, wanted: EventFilter, before_id: int | None) -> None:
    """The console's export, in which no spreadsheet takes a value for a formula."""
    try:
        for line in log.export_csv(connector_key, wanted, before_id):
            click.echo(line.encode("utf-8", "backslashreplace"), nl=False)
    except TooMuch:
        raise _too_much() from None


def _follow(connector_key: int, wanted: EventFilter, after_id: int) -> None:
    try:
        while True:
            with transaction() as session:
                rows = event_log.page_of_events(session, connector_key, wanted, after_id=after_id, limit=500)
                found = [_event(each) for each in rows]
            _print_events(found)
            after_id = found[-1]["id"] if found else after_id
            time.sleep(FOLLOW_S)
    except KeyboardInterrupt:
        return


def _event(row: SyncEvent) -> dict[str, Any]:
    before = orjson.loads(row.before) if row.before else None
    after = orjson.loads(row.after) if row.after else None
    exchange = json.loads(row.exchange) if row.exchange else None
    return {**columns_of(row, *EVENT), "exchange": exchange, "before": before, "after": after}


def _print_events(found: list[dict[str, Any]]) -> None:
    for each in found:
        if wants_json():
            click.echo(json.dumps(plain(each), ensure_ascii=False))
            continue
        say(f"{moment(each['at'])}  {each['event']:<24} {each['pipedrive_id'] or each['hull_id']}  {_why(each)}")


def _why(event: dict[str, Any]) -> str:
    if reason := event["reason"]:
        meaning = REASONS[reason].meaning if reason in REASONS else ""
        beside = " (its record was carried over)" if event["field"] and event["event"].endswith(".error") else ""
        return f"{reason}{beside}: {meaning} {event['detail'] or ''}".strip()
    before, after = event["before"] or {}, event["after"] or {}
    changed = [f"{name} {short(before.get(name))} → {short(value)}" for name, value in after.items()]
    shown = ", ".join(changed[:4]) + (f", and {len(changed) - 4} more" if len(changed) > 4 else "")
    return f"({event['cause']}) {shown}"
