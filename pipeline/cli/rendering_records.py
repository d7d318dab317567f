"""Presentations of the commands about records, mappings, sends and events; follow events, wait for sends and exports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from pipeline.cli.calling import Caller, work_on
from pipeline.cli.output import Failed, echo, moment, short, table, wants_json
from pipeline.cli.presentation import Presentation, Show, print_rows, rows
from pipeline.operations import events, mappings, records, sends
from pipeline.operations.events import (
    ChangeShape,
    EventAnswer,
    EventsAnswer,
    EventShape,
    EventsRequest,
    ExportAnswer,
    NewExport,
)
from pipeline.operations.explanation_steps import StepShape, matched_words
from pipeline.operations.explanations import ExplanationAnswer
from pipeline.operations.mappings import MappingsOfRecordAnswer, ShellsAnswer
from pipeline.operations.models import ConnectorRequest, RowRequest
from pipeline.operations.records import (
    FieldAsked,
    FoundShape,
    HistoryAnswer,
    RecordAnswer,
    RowShape,
    Sought,
)
from pipeline.operations.registry import Operation
from pipeline.operations.search import SEARCHED
from pipeline.operations.sends import NewSend, OrderedAnswer, SizeAnswer
from pipeline.sync.job_queue import LOG_EXPORT

RECORD: Final = frozenset({"entity"})
NOUNS: Final = {"person": "User", "organization": "Account"}
WAIT_S: Final = 1.0
"""Pause between two polls of a send, or of a file that is being written."""
FOLLOW_S: Final = 0.5
FIELDS: Final = 4
"""Maximum number of changed fields in the line of an event."""


def find_record(caller: Caller, given: dict[str, Any]) -> None:
    """Replace an id, e-mail or domain by the id of the one record that it matches. Raises Failed."""
    wanted, entity = given["record"], given.get("entity")
    found = caller.call(records.search_records, Sought(connector=given["connector"], q=wanted)).records
    found = [each for each in found if entity in (None, each.entity)]
    if not found:
        raise Failed(f"no record of {given['connector']} matches {wanted}", f"search by {SEARCHED}", exit_code=2)
    if len(found) > 1:
        names = ", ".join(map(_record_name, found))
        next_step = "choose one: --entity person, or its Hull id"
        raise Failed(f"{len(found)} records match {wanted}: {names}", next_step, exit_code=2)
    only = found[0]
    given["entity"] = only.entity
    if only.pipedrive_id is not None:
        given["record"], given["by"] = str(only.pipedrive_id), "pipedrive"
    else:
        given["record"], given["by"] = only.hull_id, "hull"


def _record_name(found: FoundShape) -> str:
    return f"{found.entity} {found.pipedrive_id or found.hull_id}"


def show_record(request: ConnectorRequest, answer: RecordAnswer) -> None:
    echo(f"{answer.entity.capitalize()} {answer.pipedrive_id or '-'} ↔ Hull {answer.hull_id or 'id not known yet'}")
    echo(f"  {answer.sentence} {answer.matched}")
    columns = ("field", "Pipedrive", "", "Hull", "attribute", "last change (UTC)")
    table("", columns, [_field_line(row) for row in answer.fields])
    record = answer.pipedrive_id or answer.hull_id
    echo(f"Explain a field: pipeline explain {request.connector} {record} --field ATTRIBUTE")


def _field_line(row: RowShape) -> tuple[Any, ...]:
    hull = short(row.hull, 40) if row.is_reported else "not received yet"
    last = row.last.at if row.last else None
    return row.field.label, short(row.pipedrive, 40), row.field.arrow, hull, row.field.attribute, last


def show_history(_request: ConnectorRequest, answer: HistoryAnswer) -> None:
    print_rows(
        answer.events,
        "id at what reason_or_changed_fields",
        empty="No events of this record.",
        what=lambda each: each.event,
        reason_or_changed_fields=lambda each: each.meaning or "; ".join(map(_change_text, each.changes)),
    )
    if answer.more:
        echo(f"Older events: --before {answer.more}")


def _change_text(change: Any) -> str:
    return f"{change.label} {short(change.before, 40)} → {short(change.after, 40)}"


def show_explanation(_request: FieldAsked, answer: ExplanationAnswer) -> None:
    if answer.is_unknown:
        return
    echo(answer.sentence)
    for step in answer.steps:
        _print_step(step)


def _print_step(step: StepShape) -> None:
    when = f"  {moment(step.at)} UTC" if step.at else ""
    echo(f"\n● {step.title}{when}\n  {step.sentence}")
    if step.change is not None:
        before = "not known before" if step.change.is_first else short(step.change.before, 60)
        echo(f"  {step.change.label}: {before} → {short(step.change.after, 60)}")
    for fact in step.facts:
        echo(f"  {fact.name}: {fact.value if isinstance(fact.value, str) else short(fact.value, 100)}")


def is_unknown(answer: ExplanationAnswer) -> bool:
    """Raise Failed for a field that is not mapped and never was."""
    if not answer.is_unknown:
        return False
    names = " or ".join(answer.similar)
    hint = f"did you mean {names}?" if names else "pipeline records show lists all fields"
    raise Failed(f"no field {answer.field.name} of this {answer.entity} is mapped, or ever was", hint, exit_code=2)


def show_mappings(_request: ConnectorRequest, answer: MappingsOfRecordAnswer) -> None:
    for each in answer.mappings:
        echo(f"{each.entity} {each.pipedrive_id or '-'} = Hull {each.hull_id or 'id not known yet'}")
        echo(f"  state {each.state}, first seen {moment(each.first_seen_at)} UTC. {matched_words(each.matched_by)}")
        for name, value in each.delivered.items():
            echo(f"  {name}: {json.dumps(value, ensure_ascii=False)}")


def show_shells(_request: ConnectorRequest, answer: ShellsAnswer) -> None:
    if answer.oldest is None:
        echo("No shells: every Organization that a Person belongs to has been read.")
    else:
        echo(f"{answer.shells:,} shells, the oldest since {moment(answer.oldest)} UTC; {answer.late:,} are late.")


def show_size(request: NewSend, answer: SizeAnswer) -> None:
    echo(f"{_counted_text(request, answer.count)} would be sent, for at most {answer.most_tokens:,} tokens.")


def show_ordered(request: NewSend, answer: OrderedAnswer) -> None:
    verb = "is" if answer.count == 1 else "are"
    echo(f"{_counted_text(request, answer.count)} {verb} being sent. See: pipeline sends list {request.connector}")
    if answer.count:
        command = f"pipeline failures list {request.connector} --direction outgoing --since 15m"
        echo(f"Values that Pipedrive does not accept become failures: {command}")
    if answer.missing:
        echo(f"Hull does not know {answer.missing:,} of the ids.")
    elif not answer.count:
        echo(
            f"Hull knows no {NOUNS[request.entity]} in this segment; copy its id from the address of the segment's page."
        )


def _counted_text(request: NewSend, count: int) -> str:
    return f"{count:,} {NOUNS[request.entity]}{'' if count == 1 else 's'}"


def wait_until_sent(caller: Caller, request: NewSend, answer: OrderedAnswer, *, wait: bool) -> OrderedAnswer:
    """With `wait`, return once a worker has sent it; the newest send is the first of the list."""
    if not wait:
        return answer
    of_connector = ConnectorRequest(connector=request.connector)
    while caller.call(sends.list_sends, of_connector).sends[0].ended_at is None:
        time.sleep(WAIT_S)
    return answer


def show_events(request: EventsRequest, answer: EventsAnswer) -> None:
    """Print the newest event last, next to the prompt."""
    _print_events(answer.events if request.after is not None else reversed(answer.events))
    if not answer.events:
        hint = f" Does the record exist? Run: pipeline records search {request.connector} {request.record}"
        echo(f"No matching event.{hint if request.record else ''}")
    if answer.since is not None and answer.more is None:
        echo(f"Looked back to {moment(answer.since)} UTC; look further with --since.")
    if answer.more is not None:
        echo(f"{'Older events: --before' if request.after is None else 'Later events: --after'} {answer.more}")


def follow_events(caller: Caller, request: EventsRequest) -> None:
    """Print the last events, then every new one."""
    latest = caller.call(events.list_events, EventsRequest(connector=request.connector, limit=1)).events
    found = caller.call(events.list_events, request).events
    found = found if request.after is not None else found[::-1]
    after_id = max((each.id for each in [*found, *latest]), default=0) if request.after is None else request.after
    while True:
        _print_events(found)
        after_id = max([after_id, *(each.id for each in found)])
        time.sleep(FOLLOW_S)
        found = caller.call(events.list_events, request.model_copy(update={"after": after_id, "before": None})).events


def _print_events(found: Iterable[EventShape]) -> None:
    for each in found:
        if wants_json():
            click.echo(each.model_dump_json())
        else:
            echo(f"{moment(each.at)}  {each.event:<24} {each.pipedrive_id or each.hull_id}  {_event_text(each)}")


def _event_text(event: EventShape) -> str:
    if event.reason:
        beside = " (its record was synchronized)" if event.field and event.outcome == "error" else ""
        detail = event.detail or ""
        is_repeated = detail.strip(".").lower() in (event.meaning or "").lower()
        return f"{event.reason}{beside}: {event.meaning} {'' if is_repeated else detail}".strip()
    more = f", +{len(event.changes) - FIELDS} more" if len(event.changes) > FIELDS else ""
    return f"({event.cause}) {', '.join(map(_short_change, event.changes[:FIELDS]))}{more}"


def _short_change(change: ChangeShape) -> str:
    return f"{change.label} {short(change.before)} → {short(change.after)}"


def show_event(_request: RowRequest, answer: EventAnswer) -> None:
    _print_events([answer.event])
    if answer.event.advice:
        echo(f"  {answer.event.advice}")
    for change in answer.event.changes:
        echo(f"  {_short_change(change)}")
    if answer.beside:
        echo("Other events of this record in the same batch:")
        _print_events(answer.beside)


def show_export(request: ConnectorRequest, answer: ExportAnswer) -> None:
    export = answer.export
    echo(f"Export {export.id}, {export.file_name}: {export.state}, {export.events:,} events")
    if export.state == "writing":
        echo(f"  See: pipeline events export-status {request.connector} {export.id}")
    elif export.state != "failed":
        echo(f"  Download it: pipeline events download {request.connector} {export.id}")


def has_failed(answer: ExportAnswer) -> bool:
    return answer.export.state == "failed"


def wait_and_download(caller: Caller, request: NewExport, answer: ExportAnswer, *, wait: bool) -> Any:
    """With `wait` return the file itself, once it is written."""
    row = RowRequest(connector=request.connector, id=answer.export.id)
    while wait and answer.export.state == "writing":
        work_on(caller, LOG_EXPORT, str(row.id))
        answer = caller.call(events.show_export, row)
        if answer.export.state == "writing":
            time.sleep(WAIT_S)
    return answer if answer.export.state in ("writing", "failed") else caller.call(events.download_export, row)


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation | Show]] = {
    mappings.count_mappings: rows(
        "counts",
        "entity state records Hull_id_known not_known_yet",
        empty="The id map is empty. Fill it: pipeline fetch all CONNECTOR --wait",
        Hull_id_known=lambda each: each.with_hull_id,
        not_known_yet=lambda each: each.without_hull_id,
    ),
    mappings.show_mappings: show_mappings,
    mappings.show_shells: show_shells,
    records.explain_field: Presentation(show=show_explanation, failed=is_unknown, ask=find_record, asks=RECORD),
    records.search_records: rows(
        "records",
        "entity Pipedrive_id Hull_id found_by",
        empty=f"No matching record. Search by {SEARCHED}.",
        Pipedrive_id=lambda each: each.pipedrive_id,
        Hull_id=lambda each: each.hull_id,
        found_by=lambda each: each.by,
    ),
    records.show_history: Presentation(show=show_history, ask=find_record, asks=RECORD),
    records.show_record: Presentation(show=show_record, ask=find_record, asks=RECORD),
    sends.count_send: show_size,
    sends.list_sends: rows(
        "sends",
        "id state sent of not_in_Hull requested_at ended_at reason",
        empty="No sends yet.",
        sent=lambda each: each.done,
        not_in_Hull=lambda each: each.missing,
        requested_at=lambda each: each.requested_at,
    ),
    sends.order_send: Presentation(
        show=show_ordered,
        failed=lambda answer: bool(answer.missing or not answer.count),
        follow=wait_until_sent,
    ),
    events.begin_export: Presentation(show=show_export, failed=has_failed, follow=wait_and_download),
    events.list_events: Presentation(show=show_events, stream=follow_events),
    events.show_event: show_event,
    events.show_export: Presentation(show=show_export, failed=has_failed),
}
