"""Explain why a field has its value: the chain from the source to the current value, step by step.

    origin → decision → call → read-back → value

The newest event about the field explains it. The other steps are found from there: the delivery or the run that caused
it, the mapping rule and the settings in force, the batch and its calls, and the write or read-back that belongs to it. For a
moment in the past, the newest event up to then counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, Final

import orjson
from pydantic import Field
from sqlalchemy.orm import Session

from db import record_events
from db.record_events import FieldNames, RecordIds
from db.sync_event import SyncEvent
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.reasons import describe
from pipeline.operations import explanation_steps
from pipeline.operations.events import ChangeShape, values_of
from pipeline.operations.explanation_steps import FactShape, StepShape, make_fact, make_step
from pipeline.operations.mapped_fields import (
    FieldShape,
    MappedField,
    find_field,
    is_about_rejected,
    mapped_fields,
    value_in,
    value_of,
)
from pipeline.operations.models import Shape, Text, Value
from pipeline.operations.record_sides import RecordSides, read_sides
from pipeline.sync.compiled import compiled_for
from pipeline.transform.hull_reports import ABSENT

LOOKED_AT = 20
"""Events that contain the name of the field; their values decide."""


class ExplanationAnswer(Shape):
    """Why a field has its value; the steps are in chronological order."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    field: FieldShape
    at: datetime | None
    sentence: Text
    value: Value
    hull: Value
    pipedrive: Value
    direction: str | None
    event_id: int | None
    steps: list[StepShape]
    is_unknown: Annotated[bool, Field(description="No such field is mapped, or ever was.")]
    similar: Annotated[list[str], Field(description="Mapped fields with a similar name, if the field is unknown.")]


def explain(session: Session, ids: RecordIds, name: str, at: datetime | None = None) -> ExplanationAnswer:
    """Explain the field of that name (attribute, code or label), now or as of a moment."""
    fields = mapped_fields(compiled_for(session, ids.connector_key, Entity(ids.entity)))
    answer = explain_field(session, ids, find_field(fields, name), read_sides(session, ids), at)
    if answer.is_unknown:
        names = {each.attribute for each in fields} | {each.label for each in fields}
        answer.similar = get_close_matches(name, names, n=3, cutoff=0.5)
    return answer


def explain_field(
    session: Session, ids: RecordIds, field: MappedField, sides: RecordSides, at: datetime | None = None
) -> ExplanationAnswer:
    """Explain a known field of a record with both sides."""
    rows = record_events.record_events(session, ids, until=at, names=field_names(field), limit=LOOKED_AT)
    decided = next((row for row in rows if value_in(row, field) is not ABSENT), None)
    refused = next(
        (
            row
            for row in rows
            if row.reason is not None and is_about_rejected(row, field) and (not decided or row.id > decided.id)
        ),
        None,
    )
    unread = _first_read(sides, at) if decided is None else None
    value, hull, pipedrive = _values(session, ids, field, sides, decided, at)
    sentence = unread or _sentence(decided, refused, field, at)
    if (
        decided is None
        and refused is None
        and at is None
        and (read := _empty_read(session, ids, field, sides)) is not None
    ):
        sentence = f"{field.attribute} was empty in Pipedrive when {_reader(read)} read it (event {read.id})."
    steps = _chain(session, ids, field, decided) if decided else []
    if refused is not None:
        steps.append(_refusal(refused))
    is_mapped = field.incoming or field.outgoing
    return ExplanationAnswer(
        entity=ids.entity,
        pipedrive_id=ids.pipedrive_id,
        hull_id=ids.hull_id,
        field=FieldShape.model_validate(field),
        at=at,
        sentence=sentence,
        value=value,
        hull=hull,
        pipedrive=pipedrive,
        direction=decided.event.partition(".")[0] if decided else None,
        event_id=decided.id if decided else None,
        steps=steps if unread else [*steps, _values_step(field, decided, hull, pipedrive, sides, at)],
        is_unknown=not is_mapped and decided is None and value is None is hull is pipedrive,
        similar=[],
    )


def field_names(field: MappedField) -> FieldNames:
    """Return how events name the field."""
    keys = [field.key, "first_name", "last_name"] if field.key == "name" else [field.key]
    return FieldNames(
        attribute=_needle(field.attribute),
        keys=[_needle(key) for key in keys],
        codes=sorted({field.code, field.key}),
    )


def _needle(name: str) -> bytes:
    return orjson.dumps(name) + b":"


def _first_read(sides: RecordSides, at: datetime | None) -> str | None:
    """Return the sentence for a moment before the record was first read; None for a later one."""
    if at is None or sides.mapping is None or sides.mapping.first_seen_at <= at:
        return None
    return f"Not known: this record was first read at {_written(sides.mapping.first_seen_at)}."


def _empty_read(session: Session, ids: RecordIds, field: MappedField, sides: RecordSides) -> SyncEvent | None:
    """Return the newest event that shows that the record was read while the field was empty; None if it has a value."""
    if not field.incoming or sides.pipedrive is None or field.in_pipedrive(sides.pipedrive) is not None:
        return None
    recent = record_events.record_events(session, ids, limit=LOOKED_AT)
    return next((row for row in recent if row.event.startswith("incoming") and row.event.endswith(".success")), None)


def _reader(read: SyncEvent) -> str:
    return f"fetch run {read.run_id}" if read.run_id is not None else f"the pipeline ({read.cause.replace('_', ' ')})"


def _written(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _values(
    session: Session,
    ids: RecordIds,
    field: MappedField,
    sides: RecordSides,
    decided: SyncEvent | None,
    at: datetime | None,
) -> tuple[Any, Any, Any]:
    """Return (the value that the chain leads to, Hull's value, Pipedrive's value)."""
    chain = value_in(decided, field) if decided else ABSENT
    if at is not None and chain is not ABSENT:
        return chain, chain, chain
    if at is not None and (later := record_events.next_field_event(session, ids, after=at, names=field_names(field))):
        return _before(later, field)
    hull, pipedrive = sides.in_hull(field), field.in_pipedrive(sides.pipedrive)
    if chain is ABSENT:
        chain = hull if field.incoming else pipedrive
    return chain, hull, pipedrive


def _before(later: SyncEvent, field: MappedField) -> tuple[Any, Any, Any]:
    """Return the value before the first event about the field. Hull may never have received the value that a write replaced."""
    found = value_of(later, field, later.before)
    value = None if found is ABSENT else found
    if later.event.startswith(Direction.OUTGOING):
        return (None if field.incoming else value), None, value
    return value, value, value


def _chain(session: Session, ids: RecordIds, field: MappedField, decided: SyncEvent) -> list[StepShape]:
    if decided.event.startswith(Direction.OUTGOING):
        return _sent(session, ids, field, decided)
    sent = explanation_steps.find_write_before(session, ids, decided)
    if sent is not None:
        return [
            *_sent(session, ids, field, sent, with_read_back=False),
            explanation_steps.describe_read_back(decided, _change(decided, field)),
        ]
    return [
        explanation_steps.find_origin(session, decided, _change(decided, field)),
        explanation_steps.find_rule(session, decided, field, Direction.INCOMING),
        explanation_steps.find_identity(session, ids, decided),
        explanation_steps.find_message(session, decided),
    ]


def _sent(
    session: Session, ids: RecordIds, field: MappedField, sent: SyncEvent, *, with_read_back: bool = True
) -> list[StepShape]:
    steps = [
        explanation_steps.find_origin(session, sent, None),
        explanation_steps.find_identity(session, ids, sent),
        explanation_steps.find_rule(session, sent, field, Direction.OUTGOING),
        explanation_steps.find_write(session, sent, _change(sent, field)),
    ]
    return [*steps, *explanation_steps.find_read_back(session, ids, sent, field)] if with_read_back else steps


def _change(row: SyncEvent, field: MappedField) -> ChangeShape | None:
    """Return the change of the field in an event; of a write, that of the field that returns to Hull as this attribute."""
    value_in_fields = (
        field.written
        if row.event.startswith(Direction.OUTGOING)
        else lambda values: values.get(field.attribute, ABSENT)
    )
    after = value_in_fields(values_of(row.after))
    if after is ABSENT:
        return None
    before = value_in_fields(values_of(row.before))
    label = field.label if row.event.startswith(Direction.OUTGOING) else field.attribute
    return ChangeShape(
        name=field.name,
        label=label or field.attribute,
        before=None if before is ABSENT else before,
        after=after,
        is_first=row.before is None,
    )


def _refusal(row: SyncEvent) -> StepShape:
    facts = [
        make_fact("Reason", row.reason, ("reason", row.reason)),
        make_fact("Detail", row.detail),
        make_fact("Event", row.id, ("event", row.id)),
    ]
    return make_step(
        "problem", "Rejected value", describe(row.reason or "", row.event.partition(".")[0]), at=row.at, facts=facts
    )


def _values_step(
    field: MappedField, decided: SyncEvent | None, hull: Any, pipedrive: Any, sides: RecordSides, at: datetime | None
) -> StepShape:
    """Return the last step: the values of both sides."""
    if at is not None:
        sentence = "Both sides had these values, as far as the events of this field show."
    elif hull == pipedrive:
        sentence = "Both sides have the same value, as last read and sent."
    elif decided is None:
        sentence = "The two sides differ, and no stored event shows an attempt to change that."
    else:
        sentence = "The two sides differ: one was changed since the event above, or writes the value in its own format."
    if at is None:
        sentence += " Hull itself was not queried: pipeline verify compares with its values now."
    facts = [
        FactShape(name="Last known in Hull" if field.incoming else "Last report of Hull", value=hull, ref=None),
        FactShape(name="Pipedrive", value=pipedrive, ref=None),
    ]
    if at is None and sides.as_of is not None:
        facts.append(make_fact("Last change of the record in Pipedrive", _written(sides.as_of)))
    return StepShape(kind="value", title="Values", sentence=sentence, at=at, facts=facts, change=None)


SET_BY: Final[Mapping[str, str]] = {
    "fetch": "Pipedrive, and read by a fetch",
    "webhook": "Pipedrive, and reported by a webhook",
    "read_back": "Hull, and confirmed by Pipedrive",
    "backfill": "Pipedrive, and sent to Hull because of new settings",
    "notification": "Hull, and written to Pipedrive",
    "export": "Hull, and sent to Pipedrive manually",
    "verify": "Pipedrive, and sent to Hull by the repair of a comparison",
}
"""Cause of an event → how the value was set."""


def _sentence(decided: SyncEvent | None, refused: SyncEvent | None, field: MappedField, at: datetime | None) -> str:
    when = " at that moment" if at else ""
    if decided is None:
        if refused is not None:
            return f"A value of {field.attribute} was rejected, and no other value was synchronized before."
        return f"No stored event shows why {field.attribute} has its value{when}."
    side = "Hull, and written to Pipedrive" if decided.event.startswith("outgoing") else "Pipedrive"
    set_by = SET_BY.get(decided.cause, f"{side} ({decided.cause.replace('_', ' ')})")
    before = "Until then, " if at else ""
    later = " A later value was rejected." if refused is not None else ""
    return f"{before}{field.attribute} was last set by {set_by}.{later}"
