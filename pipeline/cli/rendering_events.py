"""Text output of the commands about events; follow events, and wait for an export."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from pipeline.cli.calling import Caller, work_on
from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import moment, say, short, wants_json
from pipeline.operations import events
from pipeline.operations.events import (
    ChangeShape,
    EventAnswer,
    EventsAnswer,
    EventsAsked,
    EventShape,
    ExportAnswer,
    NewExport,
)
from pipeline.operations.models import ConnectorRequest, RowRequest
from pipeline.operations.registry import Operation
from pipeline.sync.job_queue import LOG_EXPORT

FOLLOW_S: Final = 0.5
WAIT_S: Final = 1.0
"""Pause between two polls of a file that is being written."""
FIELDS: Final = 4
"""Changed fields of an event that a line names."""


def _list(request: EventsAsked, answer: EventsAnswer) -> None:
    """Print the newest last, where a person reads on."""
    _print(answer.events if request.after is not None else reversed(answer.events))
    if not answer.events:
        say("No such event.")
    if answer.since is not None and answer.more is None:
        say(f"Looked back to {moment(answer.since)} UTC; look further with --since.")
    if answer.more is not None:
        say(f"Next page: --{'before' if request.after is None else 'after'} {answer.more}")


def _follow(caller: Caller, request: EventsAsked) -> None:
    """Print the last events, then every new one."""
    latest = caller.call(events.list_events, EventsAsked(connector=request.connector, limit=1)).events
    found = caller.call(events.list_events, request).events
    found = found if request.after is not None else found[::-1]
    after_id = max((each.id for each in [*found, *latest]), default=0) if request.after is None else request.after
    while True:
        _print(found)
        after_id = max([after_id, *(each.id for each in found)])
        time.sleep(FOLLOW_S)
        found = caller.call(events.list_events, request.model_copy(update={"after": after_id, "before": None})).events


def _print(found: Iterable[EventShape]) -> None:
    for each in found:
        if wants_json():
            click.echo(each.model_dump_json())
        else:
            say(f"{moment(each.at)}  {each.event:<24} {each.pipedrive_id or each.hull_id}  {_why(each)}")


def _why(event: EventShape) -> str:
    if event.reason:
        beside = " (its record was synchronized)" if event.field and event.outcome == "error" else ""
        return f"{event.reason}{beside}: {event.meaning} {event.detail or ''}".strip()
    more = f", and {len(event.changes) - FIELDS} more" if len(event.changes) > FIELDS else ""
    return f"({event.cause}) {', '.join(map(_change, event.changes[:FIELDS]))}{more}"


def _change(change: ChangeShape) -> str:
    return f"{change.label} {short(change.before)} → {short(change.after)}"


def _event(_request: RowRequest, answer: EventAnswer) -> None:
    _print([answer.event])
    if answer.event.advice:
        say(f"  {answer.event.advice}")
    for change in answer.event.changes:
        say(f"  {_change(change)}")
    if answer.beside:
        say("Other events of this record in the same batch:")
        _print(answer.beside)


def _export(request: ConnectorRequest, answer: ExportAnswer) -> None:
    export = answer.export
    say(f"Export {export.id}, {export.file_name}: {export.state}, {export.events:,} events")
    if export.state == "writing":
        say(f"  See: pipeline events export-status {request.connector} {export.id}")
    elif export.state != "failed":
        say(f"  Download it: pipeline events download {request.connector} {export.id}")


def _fail_if_failed(answer: ExportAnswer) -> None:
    if answer.export.state == "failed":
        raise click.exceptions.Exit(1)


def _download(caller: Caller, request: NewExport, answer: ExportAnswer, *, wait: bool) -> Any:
    """With `wait` return the file itself, once it is written."""
    row = RowRequest(connector=request.connector, id=answer.export.id)
    while wait and answer.export.state == "writing":
        work_on(caller, LOG_EXPORT, str(row.id))
        answer = caller.call(events.show_export, row)
        if answer.export.state == "writing":
            time.sleep(WAIT_S)
    return answer if answer.export.state in ("writing", "failed") else caller.call(events.download_export, row)


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    events.begin_export: Presentation(show=_export, check=_fail_if_failed, follow=_download),
    events.list_events: Presentation(show=_list, stream=_follow),
    events.show_event: Presentation(show=_event),
    events.show_export: Presentation(show=_export, check=_fail_if_failed),
}
