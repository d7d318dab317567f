"""Explain why a field has its value: the chain from the source to the current value, step by step.

    origin → decision → call → read-back → value

The newest event about the field explains it; everything else is found from there: the delivery or the run that caused
it, the rule and the settings in force, the batch and its calls, and the other half of a write and its read-back. For a
moment in the past, it is the newest event up to then.
"""

from __future__ import annotations

from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any

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
from pipeline.operations.explanation_steps import StepShape, make_fact
from pipeline.operations.mapped_fields import (
    FieldShape,
    MappedField,
    find_field,
    mapped_fields,
    value_in,
    value_of,
)
from pipeline.operations.models import Shape, Text, Value
from pipeline.operations.record_sides import RecordSides, read_sides
from pipeline.sync.compiled import plan_for
from pipeline.transform.hull_reports import ABSENT

LOOKED_AT = 20
"""Events that may be about the field by their text; their values decide."""


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


def explain(session: Session, whose: RecordIds, name: str, at: datetime | None = None) -> ExplanationAnswer:
    """Explain the field of that name (attribute, code or label), now or as of a moment."""
    fields = mapped_fields(plan_for(session, whose.connector_key, Entity(whose.entity)))
    answer = explain_field(session, whose, find_field(fields, name), read_sides(session, whose), at)
    if answer.is_unknown:
        names = {each.attribute for each in fields} | {each.label for each in fields}
        answer.similar = get_close_matches(name, names, n=3, cutoff=0.5)
    return answer


def explain_field(
    session: Session, whose: RecordIds, field: MappedField, sides: RecordSides, at: datetime | None = None
) -> ExplanationAnswer:
    """Return the same for a known field, with both sides read."""
    rows = record_events.record_events(session, whose, until=at, names=touching(field), limit=LOOKED_AT)
    decided = next((row for row in rows if value_in(row, field) is not ABSENT), None)
    refused = next((row for row in rows if _is_refusal(row, field) and (not decided or row.id > decided.id)), None)
    value, hull, pipedrive = _values(session, whose, field, sides, decided, at)
    steps = _chain(session, whose, field, decided) if decided else []
    if refused is not None:
        steps.append(_refusal(refused))
    is_mapped = field.incoming or field.outgoing
    return ExplanationAnswer(
        entity=whose.entity,
        pipedrive_id=whose.pipedrive_id,
        hull_id=whose.hull_id,
        field=FieldShape.model_validate(field),
        at=at,
        sentence=_sentence(decided, refused, field, at),
        value=value,
        hull=hull,
        pipedrive=pipedrive,
        direction=decided.event.partition(".")[0] if decided else None,
        event_id=decided.id if decided else None,
        steps=[*steps, _current_values(decided, hull, pipedrive, sides, at)],
        is_unknown=not is_mapped and decided is None and value is None is hull is pipedrive,
        similar=[],
    )


def touching(field: MappedField) -> FieldNames:
    """Return how events name the field."""
    keys = [field.key, "first_name", "last_name"] if field.key == "name" else [field.key]
    return FieldNames(
        attribute=_needle(field.attribute),
        keys=[_needle(key) for key in keys],
        codes=sorted({field.code, field.key}),
    )


def _needle(name: str) -> bytes:
    return orjson.dumps(name) + b":"


def _is_refusal(row: SyncEvent, field: MappedField) -> bool:
    return row.reason is not None and (row.detail or "").startswith((f"{field.code}: ", f"{field.key}: "))


def _values(
    session: Session,
    whose: RecordIds,
    field: MappedField,
    sides: RecordSides,
    decided: SyncEvent | None,
    at: datetime | None,
) -> tuple[Any, Any, Any]:
    """Return (the value that the chain leads to, Hull's value, Pipedrive's value)."""
    chain = value_in(decided, field) if decided else ABSENT
    if at is not None and chain is not ABSENT:
        return chain, chain, chain
    if at is not None and (later := record_events.next_field_event(session, whose, after=at, names=touching(field))):
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


def _chain(session: Session, whose: RecordIds, field: MappedField, decided: SyncEvent) -> list[StepShape]:
    if decided.event.startswith(Direction.OUTGOING):
        return _sent(session, whose, field, decided)
    sent = explanation_steps.find_write_before(session, whose, decided)
    if sent is not None:
        return [
            *_sent(session, whose, field, sent, with_read_back=False),
            explanation_steps.describe_read_back(decided, _change(decided, field)),
        ]
    return [
        explanation_steps.find_origin(session, decided, _change(decided, field)),
        explanation_steps.find_rule(session, decided, field, Direction.INCOMING),
        explanation_steps.find_identity(session, whose, decided),
        explanation_steps.find_message(session, decided),
    ]


def _sent(
    session: Session, whose: RecordIds, field: MappedField, sent: SyncEvent, *, with_read_back: bool = True
) -> list[StepShape]:
    steps = [
        explanation_steps.find_origin(session, sent, None),
        explanation_steps.find_identity(session, whose, sent),
        explanation_steps.find_rule(session, sent, field, Direction.OUTGOING),
        explanation_steps.find_write(session, sent, _change(sent, field)),
    ]
    return [*steps, *explanation_steps.find_read_back(session, whose, sent, field)] if with_read_back else steps


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
    return StepShape(
        kind="problem",
        title="Not synchronized since",
        sentence=describe(row.reason or ""),
        at=row.at,
        facts=[
            make_fact("Reason", row.reason, ("reason", row.reason)),
            make_fact("Detail", row.detail),
            make_fact("Event", row.id, ("event", row.id)),
        ],
        change=None,
    )


def _current_values(
    decided: SyncEvent | None, hull: Any, pipedrive: Any, sides: RecordSides, at: datetime | None
) -> StepShape:
    """Return the last step: the values of both sides."""
    if at is not None:
        sentence = "So it was on both sides, as far as the events of this field tell."
    elif hull == pipedrive:
        sentence = "Both sides hold the same."
    elif decided is None:
        sentence = "The two sides differ, and nothing that is kept tells of an attempt to change that."
    else:
        sentence = "The two sides differ: one of them was changed, or spells it in its own way, since the event above."
    return StepShape(
        kind="value",
        title="The value",
        sentence=sentence,
        at=at or sides.as_of,
        facts=[make_fact("Hull", hull), make_fact("Pipedrive", pipedrive)],
        change=None,
    )


def _sentence(decided: SyncEvent | None, refused: SyncEvent | None, field: MappedField, at: datetime | None) -> str:
    when = " at that moment" if at else ""
    if decided is None:
        if refused is not None:
            return f"A value for {field.attribute} was refused, and none was carried over before."
        return f"Nothing that is kept tells how {field.attribute} came to be as it is{when}."
    says = {
        "fetch": "Pipedrive said so when it was last fetched",
        "webhook": "a webhook of Pipedrive contained it",
        "read_back": "Pipedrive answered so to a write of Hull's",
        "backfill": "new settings brought it over from what Pipedrive had said",
        "notification": "Hull said so, and it was written to Pipedrive",
        "export": "it was sent to Pipedrive manually",
    }
    default = (
        "Hull said so, and it was written to Pipedrive" if decided.event.startswith("outgoing") else "Pipedrive said so"
    )
    why = says.get(decided.cause, f"{default} ({decided.cause.replace('_', ' ')})")
    return f"{field.attribute} is as it is{when} because {why}." + (
        " A later value was refused." if refused is not None else ""
    )
