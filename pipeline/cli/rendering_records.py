"""Text output of the commands about records, mappings and sends, and the search for a record."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from pipeline.cli.calling import Caller
from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import Failed, moment, say, short, table
from pipeline.operations import mappings, records, sends
from pipeline.operations.explanation_steps import StepShape
from pipeline.operations.explanations import ExplanationAnswer
from pipeline.operations.mappings import MappingsAnswer, MappingsOfRecordAnswer, ShellsAnswer
from pipeline.operations.models import ConnectorRequest
from pipeline.operations.records import (
    FieldAsked,
    FoundAnswer,
    FoundShape,
    HistoryAnswer,
    RecordAnswer,
    RowShape,
    Sought,
)
from pipeline.operations.registry import Operation
from pipeline.operations.search import SEARCHED
from pipeline.operations.sends import NewSend, OrderedAnswer, SendsAnswer, SizeAnswer

RECORD: Final = frozenset({"entity"})
NOUNS: Final = {"person": "User", "organization": "Account"}
PAUSE_S: Final = 1.0
"""Pause between two polls of a send."""


def _find(caller: Caller, given: dict[str, Any]) -> None:
    """Replace an id, e-mail or domain by the id of the one record that it matches. Raises Failed."""
    asked, entity = given["record"], given.get("entity")
    found = caller.call(records.search_records, Sought(connector=given["connector"], q=asked)).records
    found = [each for each in found if entity in (None, each.entity)]
    if not found:
        raise Failed(f"no record of {given['connector']} matches {asked}", f"search by {SEARCHED}", exit_code=2)
    if len(found) > 1:
        names = ", ".join(map(_name, found))
        next_step = "choose one: --entity person, or its Hull id"
        raise Failed(f"{len(found)} records match {asked}: {names}", next_step, exit_code=2)
    only = found[0]
    given["entity"] = only.entity
    if only.pipedrive_id is not None:
        given["record"], given["by"] = str(only.pipedrive_id), "pipedrive"
    else:
        given["record"], given["by"] = only.hull_id, "hull"


def _name(found: FoundShape) -> str:
    return f"{found.entity} {found.pipedrive_id or found.hull_id}"


def _found(_request: ConnectorRequest, answer: FoundAnswer) -> None:
    columns = ("entity", "Pipedrive id", "Hull id", "found by")
    lines = [(each.entity, str(each.pipedrive_id or "-"), each.hull_id, each.by) for each in answer.records]
    table("", columns, lines, empty=f"No matching record. Search by {SEARCHED}.")


def _record(request: ConnectorRequest, answer: RecordAnswer) -> None:
    say(f"{answer.entity.capitalize()} {answer.pipedrive_id or '-'} ↔ Hull {answer.hull_id or 'id not known yet'}")
    say(f"  {answer.sentence} {answer.matched}")
    columns = ("field", "pipedrive", "", "hull", "attribute", "last change (UTC)")
    table("", columns, [_line(row) for row in answer.fields])
    record = answer.pipedrive_id or answer.hull_id
    say(f"Explain a field: pipeline explain {request.connector} {record} --field ATTRIBUTE")


def _line(row: RowShape) -> tuple[Any, ...]:
    hull = short(row.hull, 40) if row.is_heard else "not received yet"
    last = row.last.at if row.last else None
    return row.field.label, short(row.pipedrive, 40), row.field.arrow, hull, row.field.attribute, last


def _history(_request: ConnectorRequest, answer: HistoryAnswer) -> None:
    lines = [
        (each.id, each.at, each.event, each.meaning or "; ".join(_change(change) for change in each.changes))
        for each in answer.events
    ]
    table("", ("event", "at (UTC)", "what", "reason or changed fields"), lines, empty="No events of this record.")
    if answer.more:
        say(f"Next page: --before {answer.more}")


def _change(change: Any) -> str:
    return f"{change.label} {short(change.before, 40)} → {short(change.after, 40)}"


def _explanation(_request: FieldAsked, answer: ExplanationAnswer) -> None:
    if answer.is_unknown:
        return
    say(answer.sentence)
    for step in answer.steps:
        _step(step)


def _step(step: StepShape) -> None:
    when = f"  {moment(step.at)} UTC" if step.at else ""
    say(f"\n● {step.title}{when}\n  {step.sentence}")
    if step.change is not None:
        before = "not known before" if step.change.is_first else short(step.change.before, 60)
        say(f"  {step.change.label}: {before} → {short(step.change.after, 60)}")
    for fact in step.facts:
        say(f"  {fact.name}: {fact.value if isinstance(fact.value, str) else short(fact.value, 100)}")


def _fail_if_unknown(answer: ExplanationAnswer) -> None:
    """Raise Failed for a field that is not mapped and never was."""
    if answer.is_unknown:
        hint = (
            f"did you mean {' or '.join(answer.similar)}?"
            if answer.similar
            else "pipeline records show lists all fields"
        )
        raise Failed(f"no field {answer.field.name} of this {answer.entity} is mapped, or ever was", hint, exit_code=2)


def _counts(_request: ConnectorRequest, answer: MappingsAnswer) -> None:
    columns = ("entity", "state", "records", "with Hull id", "without")
    lines = [(each.entity, each.state, each.records, each.with_hull_id, each.without_hull_id) for each in answer.counts]
    table("", columns, lines, empty="The id map is empty. Fill it: pipeline fetch all CONNECTOR --wait")


def _mappings(_request: ConnectorRequest, answer: MappingsOfRecordAnswer) -> None:
    for each in answer.mappings:
        say(f"{each.entity} {each.pipedrive_id or '-'} = Hull {each.hull_id or 'id not known yet'}")
        say(f"  state {each.state}, matched by {each.matched_by}, first seen {moment(each.first_seen_at)} UTC")
        for name, value in each.delivered.items():
            say(f"  {name}: {json.dumps(value, ensure_ascii=False)}")


def _shells(_request: ConnectorRequest, answer: ShellsAnswer) -> None:
    if answer.oldest is None:
        say("No shells: every Organization that a Person belongs to has been read.")
    else:
        say(f"{answer.shells:,} shells, the oldest since {moment(answer.oldest)} UTC; {answer.late:,} are late.")


def _sends(_request: ConnectorRequest, answer: SendsAnswer) -> None:
    columns = ("id", "state", "sent", "of", "not in Hull", "requested (UTC)", "ended (UTC)", "reason")
    lines = [
        (each.id, each.state, each.done, each.of, each.missing, each.asked_at, each.ended_at, each.reason)
        for each in answer.sends
    ]
    table("", columns, lines, empty="No sends yet.")


def _size(request: NewSend, answer: SizeAnswer) -> None:
    say(f"{_counted(request, answer.count)} would be sent, for at most {answer.most_tokens:,} tokens.")


def _ordered(request: NewSend, answer: OrderedAnswer) -> None:
    verb = "is" if answer.count == 1 else "are"
    say(f"{_counted(request, answer.count)} {verb} being sent. See: pipeline sends list {request.connector}")
    if answer.missing:
        say(f"Hull does not know {answer.missing:,} of the ids.")
    elif not answer.count:
        say(
            f"Hull knows no {NOUNS[request.entity]} in this segment; copy its id from the address of the segment's page."
        )


def _counted(request: NewSend, count: int) -> str:
    return f"{count:,} {NOUNS[request.entity]}{'' if count == 1 else 's'}"


def _fail_unless_all_known(answer: OrderedAnswer) -> None:
    if answer.missing or not answer.count:
        raise click.exceptions.Exit(1)


def _sent(caller: Caller, request: NewSend, answer: OrderedAnswer, *, wait: bool) -> OrderedAnswer:
    """With `wait`, return once a worker has sent it; the newest send is the first of the list."""
    if not wait:
        return answer
    asked = ConnectorRequest(connector=request.connector)
    while caller.call(sends.list_sends, asked).sends[0].ended_at is None:
        time.sleep(PAUSE_S)
    return answer


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    mappings.count_mappings: Presentation(show=_counts),
    mappings.show_mappings: Presentation(show=_mappings),
    mappings.show_shells: Presentation(show=_shells),
    records.explain_field: Presentation(show=_explanation, check=_fail_if_unknown, ask=_find, asks=RECORD),
    records.search_records: Presentation(show=_found),
    records.show_history: Presentation(show=_history, ask=_find, asks=RECORD),
    records.show_record: Presentation(show=_record, ask=_find, asks=RECORD),
    sends.count_send: Presentation(show=_size),
    sends.list_sends: Presentation(show=_sends),
    sends.order_send: Presentation(show=_ordered, check=_fail_unless_all_known, follow=_sent),
}
