"""Explain why a field has its value: the chain from the source to the current value, step by step.

    origin → decision → call → read-back → value

The newest event about the field explains it; everything else is found from there: the delivery or the run that caused
it, the rule and the settings in force, the batch and its calls, and the other half of a write and its read-back. For a
moment in the past, it is the newest event up to then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.orm import Session

from db import record_events as asked
from db.record_events import Touching, Whose
from db.sync_event import SyncEvent
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.reasons import describe
from pipeline.insight import links
from pipeline.insight.events import ChangeShape, values_of
from pipeline.insight.links import ExplanationStep
from pipeline.insight.mapped import ABSENT, MappedField, find_field, mapped_fields, said_in, value_in
from pipeline.insight.record import RecordSides, read_sides
from pipeline.sync.compiled import plan_for

LOOKED_AT = 20
"""Events that may be about the field by their text; their values decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a field of a record has its value.

    value           the resulting value, as in Hull
    hull            Hull's value as far as known, now or at the requested moment
    pipedrive       Pipedrive's value, converted as for Hull
    direction       the direction of the value; None if no stored event has it
    event_id        the event that decided
    steps           the chain, in chronological order
    """

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    field: MappedField
    at: datetime | None
    sentence: str
    value: Any
    hull: Any
    pipedrive: Any
    direction: str | None
    event_id: int | None
    steps: tuple[ExplanationStep, ...]

    @property
    def is_unknown(self) -> bool:
        """Whether no such field is mapped, or is known to have been."""
        is_mapped = self.field.incoming or self.field.outgoing
        return not is_mapped and self.event_id is None and self.value is None is self.hull is self.pipedrive


def explain(session: Session, whose: Whose, name: str, at: datetime | None = None) -> Explanation:
    """Explain the field of that name (attribute, code or label), now or as of a moment."""
    plan = plan_for(session, whose.connector_key, Entity(whose.entity))
    field = find_field(mapped_fields(plan), name)
    return explain_field(session, whose, field, read_sides(session, whose), at)


def explain_field(
    session: Session, whose: Whose, field: MappedField, sides: RecordSides, at: datetime | None = None
) -> Explanation:
    """Return the same for a known field, with both sides read."""
    rows = asked.record_events(session, whose, until=at, touching=touching(field), limit=LOOKED_AT)
    decided = next((row for row in rows if value_in(row, field) is not ABSENT), None)
    refused = next((row for row in rows if _is_refusal(row, field) and (not decided or row.id > decided.id)), None)
    value, hull, pipedrive = _values(session, whose, field, sides, decided, at)
    steps = _chain(session, whose, field, decided) if decided else []
    if refused is not None:
        steps.append(_refusal(refused))
    return Explanation(
        entity=whose.entity,
        pipedrive_id=whose.pipedrive_id,
        hull_id=whose.hull_id,
        field=field,
        at=at,
        sentence=_sentence(decided, refused, field, at),
        value=value,
        hull=hull,
        pipedrive=pipedrive,
        direction=decided.event.partition(".")[0] if decided else None,
        event_id=decided.id if decided else None,
        steps=(*steps, *_ending(decided, hull, pipedrive, sides, at)),
    )


def touching(field: MappedField) -> Touching:
    """How events name the field."""
    keys = [field.key, "first_name", "last_name"] if field.key == "name" else [field.key]
    return Touching(
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
    whose: Whose,
    field: MappedField,
    sides: RecordSides,
    decided: SyncEvent | None,
    at: datetime | None,
) -> tuple[Any, Any, Any]:
    """(what the chain leads to, what Hull holds, what Pipedrive holds)."""
    chain = value_in(decided, field) if decided else ABSENT
    if at is not None and chain is not ABSENT:
        return chain, chain, chain
    if at is not None and (later := asked.next_touching(session, whose, after=at, touching=touching(field))):
        return _before(later, field)
    hull, pipedrive = sides.in_hull(field), field.in_pipedrive(sides.pipedrive)
    if chain is ABSENT:
        chain = hull if field.incoming else pipedrive
    return chain, hull, pipedrive


def _before(later: SyncEvent, field: MappedField) -> tuple[Any, Any, Any]:
    """Return the value before the first event about the field. Hull may never have received the value that a write replaced."""
    found = said_in(later, field, later.before)
    value = None if found is ABSENT else found
    if later.event.startswith(Direction.OUTGOING):
        return (None if field.incoming else value), None, value
    return value, value, value


def _chain(session: Session, whose: Whose, field: MappedField, decided: SyncEvent) -> list[ExplanationStep]:
    if decided.event.startswith(Direction.OUTGOING):
        return _sent(session, whose, field, decided)
    sent = links.write_before(session, whose, decided)
    if sent is not None:
        return [
            *_sent(session, whose, field, sent, with_read_back=False),
            links.read_back(decided, _change(decided, field)),
        ]
    return [
        links.origin(session, decided, _change(decided, field)),
        links.rule(session, decided, field, Direction.INCOMING),
        links.identity(session, whose, decided),
        links.told_hull(session, decided),
    ]


def _sent(
    session: Session, whose: Whose, field: MappedField, sent: SyncEvent, *, with_read_back: bool = True
) -> list[ExplanationStep]:
    steps = [
        links.origin(session, sent, None),
        links.identity(session, whose, sent),
        links.rule(session, sent, field, Direction.OUTGOING),
        links.written(session, sent, _change(sent, field)),
    ]
    return [*steps, *links.read_back_of(session, whose, sent, field)] if with_read_back else steps


def _change(row: SyncEvent, field: MappedField) -> ChangeShape | None:
    """What the event did to the field, or, of a write, to the field that comes to Hull as this attribute."""
    said = (
        field.written
        if row.event.startswith(Direction.OUTGOING)
        else lambda values: values.get(field.attribute, ABSENT)
    )
    after = said(values_of(row.after))
    if after is ABSENT:
        return None
    before = said(values_of(row.before))
    label = field.label if row.event.startswith(Direction.OUTGOING) else field.attribute
    return ChangeShape(
        name=field.name,
        label=label or field.attribute,
        before=None if before is ABSENT else before,
        after=after,
        is_first=row.before is None,
    )


def _refusal(row: SyncEvent) -> ExplanationStep:
    return ExplanationStep(
        kind="problem",
        title="Not synchronized since",
        sentence=describe(row.reason or ""),
        at=row.at,
        facts=(
            links.Fact(name="Reason", value=row.reason, ref=links.Ref("reason", row.reason)),
            links.Fact(name="Detail", value=row.detail),
            links.Fact(name="Event", value=row.id, ref=links.Ref("event", row.id)),
        ),
    )


def _ending(
    decided: SyncEvent | None, hull: Any, pipedrive: Any, sides: RecordSides, at: datetime | None
) -> Sequence[ExplanationStep]:
    """The current values of both sides."""
    facts = [
        links.Fact(name="Hull", value=hull, is_value=True),
        links.Fact(name="Pipedrive", value=pipedrive, is_value=True),
    ]
    if at is not None:
        sentence = "So it was on both sides, as far as the events of this field tell."
    elif hull == pipedrive:
        sentence = "Both sides hold the same."
    elif decided is None:
        sentence = "The two sides differ, and nothing that is kept tells of an attempt to change that."
    else:
        sentence = "The two sides differ: one of them was changed, or spells it in its own way, since the event above."
    return [
        ExplanationStep(kind="value", title="The value", sentence=sentence, at=at or sides.as_of, facts=tuple(facts))
    ]


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
