"""Records: search them, show both sides, show their history, and explain the value of a field."""

from __future__ import annotations

from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db.record_events import Whose
from db.session import transaction
from pipeline.domain.kinds import Entity, Role
from pipeline.insight import record as insight
from pipeline.insight import search, standing
from pipeline.insight.events import ChangeShape, EventShape
from pipeline.insight.explain import Explanation, explain
from pipeline.insight.mapped import mapped_fields
from pipeline.operations.call import Call
from pipeline.operations.errors import not_found
from pipeline.operations.failures import FailureShape
from pipeline.operations.models import ConnectorRequest, EntityName, Shape
from pipeline.operations.registry import operation
from pipeline.operations.values import LARGEST_ID, Moment, RowId, Text, Value
from pipeline.sync.compiled import plan_for

PATH = "/connectors/<connector>/records"
ONE = f"{PATH}/<entity>/<record>"


class FoundShape(Shape):
    """`by` is the identifier that matched. A record that was never matched has no Pipedrive id."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    by: str


class FieldShape(Shape):
    """A mapped field. `owner` wins conflicts of an outgoing field; `arrow` shows its directions."""

    name: str
    attribute: str
    label: str
    code: str
    key: str
    type: str
    is_custom: bool
    incoming: bool
    outgoing: bool
    owner: str | None
    arrow: str


class RowShape(Shape):
    """One field on both sides. `is_heard`: Hull's value is known; `last` is the latest event about the field."""

    field: FieldShape
    pipedrive: Value
    hull: Value
    differs: bool
    is_refused: bool
    is_heard: bool
    last: EventShape | None


class ClaimShape(Shape):
    """A value that identifies the record. `holds`: the record is sent with it; `wanted_by`: the record that waits for it."""

    claim: str
    value: Text
    holds: bool
    wanted_by: int | None


class OrganizationShape(BaseModel):
    pipedrive_id: int
    is_known: bool


class WaitingShape(Shape):
    """A change that is pending."""

    direction: str
    cause: str
    since: datetime
    due_at: datetime


class RecordAnswer(Shape):
    """One record. `state` and `matched` describe its id mapping; `snapshot` is Pipedrive's record as last read, `report` Hull's."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    title: Text
    level: str
    sentence: Text
    state: str
    matched: str
    first_seen_at: datetime | None
    updated_at: datetime | None
    as_of: datetime | None
    merged_into: int | None
    deleted_at: datetime | None
    awaits_account: str | None
    fields: list[RowShape]
    claims: list[ClaimShape]
    organization: OrganizationShape | None
    persons: int | None
    failures: list[FailureShape]
    waiting: list[WaitingShape]
    snapshot: Value
    report: Value
    events: list[EventShape]
    more: int | None


class RefShape(Shape):
    """What a fact refers to: a `delivery`, `run`, `batch`, `event`, `settings` or `reason`."""

    kind: str
    id: int | str | None


class FactShape(Shape):
    name: str
    value: Value
    ref: RefShape | None


class StepShape(Shape):
    """`origin`, `identity`, `rule`, `call`, `read_back`, `problem` or `value`."""

    kind: str
    title: str
    sentence: Text
    at: datetime | None
    facts: list[FactShape]
    change: ChangeShape | None


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


class FoundAnswer(BaseModel):
    records: list[FoundShape]


class HistoryAnswer(BaseModel):
    """Newest first; pass `more` as `before` for the next page."""

    events: list[EventShape]
    more: int | None


class OfRecord(ConnectorRequest):
    """A record, by its id on either side."""

    entity: EntityName
    record: Annotated[str, Field(min_length=1, max_length=200, description="A Pipedrive id, or a Hull id.")]
    by: Annotated[Literal["pipedrive", "hull"], Field(description="The system of the id.")] = "pipedrive"


class HistoryAsked(OfRecord):
    before: RowId | None = None


class FieldAsked(OfRecord):
    """A field now, or at a moment in the past."""

    field: Annotated[str, Field(min_length=1, max_length=300, description="An attribute, a field's code or its name.")]
    at: Moment | None = None


class Sought(ConnectorRequest):
    q: Annotated[str, Field(min_length=1, max_length=search.LONGEST, description=search.SEARCHED.capitalize())]


@operation(f"GET {PATH}", role=Role.VIEWER, command="records search CONNECTOR Q", example="acme ada@acme.com")
def search_records(call: Call, request: Sought) -> FoundAnswer:
    """Find records by an id of either side, an e-mail, a domain or an external id."""
    with transaction() as session:
        found = search.search(session, call.connector.key, request.q)
    return FoundAnswer(records=[FoundShape.model_validate(each) for each in found])


@operation(f"GET {ONE}", role=Role.VIEWER, command="records show CONNECTOR RECORD", example="acme ada@acme.com")
def show_record(call: Call, request: OfRecord) -> RecordAnswer:
    """Show one record: both sides field by field, its id mapping, and its latest events."""
    with transaction() as session:
        record = insight.read_record(session, _whose(session, call, request))
    return RecordAnswer(**_facts(record))


@operation(f"GET {ONE}/history", role=Role.VIEWER, command="records history CONNECTOR RECORD", example="acme 4711")
def show_history(call: Call, request: HistoryAsked) -> HistoryAnswer:
    """Show the events of one record, in both directions."""
    with transaction() as session:
        events, more = insight.history(session, _whose(session, call, request), before_id=request.before)
    return HistoryAnswer(events=events, more=more)


@operation(
    f"GET {ONE}/explain",
    role=Role.VIEWER,
    command="explain CONNECTOR RECORD",
    example="acme 4711 --entity person --field pipedrive/name --at 2h",
)
def explain_field(call: Call, request: FieldAsked) -> ExplanationAnswer:
    """Explain why a field has its value, now or at a moment in the past: every step from the origin to the value."""
    with transaction() as session:
        whose = _whose(session, call, request)
        found = explain(session, whose, request.field, request.at)
        similar = _similar(session, whose, request.field) if found.is_unknown else []
    return ExplanationAnswer(**_explained(found), is_unknown=found.is_unknown, similar=similar)


def _whose(session: Session, call: Call, request: OfRecord) -> Whose:
    kind, name = Entity(request.entity), request.record
    found = None
    if request.by == "hull":
        found = insight.find_whose(session, call.connector.key, kind, hull_id=name)
    elif name.isascii() and name.isdigit() and int(name) <= LARGEST_ID:
        found = insight.find_whose(session, call.connector.key, kind, pipedrive_id=int(name))
    if found is None:
        raise not_found(
            "This connector knows no such record.", "If Pipedrive shows the record, the next fetch adds it."
        )
    return found


def _facts(record: insight.Record) -> dict[str, Any]:
    """Return the values of the answer, with the status text."""
    whole = {name: getattr(record, name) for name in RecordAnswer.model_fields if hasattr(record, name)}
    whose = record.whose
    known = {"entity": whose.entity, "pipedrive_id": whose.pipedrive_id, "hull_id": whose.hull_id}
    organization = (
        {"pipedrive_id": record.organization[0], "is_known": record.organization[1]} if record.organization else None
    )
    words = {"sentence": standing.sentence_of(record), "level": standing.mood_of(record)}
    return {**whole, **known, **words, "organization": organization}


def _explained(found: Explanation) -> dict[str, Any]:
    return {
        name: getattr(found, name) for name in ExplanationAnswer.model_fields if name not in ("is_unknown", "similar")
    }


def _similar(session: Session, whose: Whose, name: str) -> list[str]:
    """Return mapped fields with a name like this one: a typing error, most of the time."""
    fields = mapped_fields(plan_for(session, whose.connector_key, Entity(whose.entity)))
    names = {each.attribute for each in fields} | {each.label for each in fields}
    return get_close_matches(name, names, n=3, cutoff=0.5)
