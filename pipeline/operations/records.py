"""Records: search them, show both sides, show their history, and explain the value of a field."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import identifier_search, record_events
from db.change import waiting_changes
from db.failure_filter import open_of_record
from db.record_events import RecordIds
from db.session import transaction
from db.sync_event import SyncEvent
from pipeline.domain.deletions import DELETED_STATES
from pipeline.domain.kinds import Direction, Entity, Role
from pipeline.operations.call import Call
from pipeline.operations.errors import not_found
from pipeline.operations.events import EventShape, describe_event, labels_of
from pipeline.operations.explanation_steps import matched_words
from pipeline.operations.explanations import ExplanationAnswer, explain
from pipeline.operations.failures import FailureShape
from pipeline.operations.mapped_fields import FieldShape, is_about_rejected, mapped_fields, value_in
from pipeline.operations.models import LARGEST_ID, ConnectorRequest, EntityName, Moment, RowId, Shape, Text, Value
from pipeline.operations.record_sides import RecordSides, find_record, read_sides
from pipeline.operations.registry import operation
from pipeline.operations.search import LONGEST, SEARCHED, search
from pipeline.sync.compiled import CompiledSettings, compiled_for
from pipeline.transform.hull_reports import ABSENT

PATH: Final = "/connectors/<connector>/records"
ONE: Final = f"{PATH}/<entity>/<record>"
HISTORY: Final = 50
"""Events on one page of a record's history."""
LOOKED_BACK: Final = 300
"""Number of events searched for the last change of each field; an explanation searches all."""
STATES: Final = {
    "shell": "This Organization is only referenced by a Person. It is read within half a minute, or by the next fetch.",
    "conflict": "Hull has merged several Pipedrive records into one, so nothing of this record is sent.",
    "creating": "The record is being created in Pipedrive.",
    "unknown": "Pipedrive did not answer when the record was created: it is looked up before it is created again.",
}
"""State of an id mapping → sentence."""
NAMED: Final = 4
"""Maximum of fields that the sentence names."""


class FoundShape(Shape):
    """`by` is the identifier that matched. A record that was never matched has no Pipedrive id."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    by: str


class RowShape(Shape):
    """One field on both sides. `is_reported`: Hull's value is known; `last` is the newest event about the field."""

    field: FieldShape
    pipedrive: Value
    hull: Value
    differs: bool
    is_refused: bool
    is_reported: bool
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
    before: Annotated[RowId | None, Field(description="Only events older than this id.")] = None


class FieldAsked(OfRecord):
    """A field now, or at a moment in the past."""

    field: Annotated[str, Field(min_length=1, max_length=300, description="An attribute, a field's code or its name.")]
    at: Moment | None = None


class Sought(ConnectorRequest):
    q: Annotated[str, Field(min_length=1, max_length=LONGEST, description=SEARCHED.capitalize())]


@operation(f"GET {PATH}", role=Role.VIEWER, command="records search CONNECTOR Q", example="acme ada@acme.com")
def search_records(call: Call, request: Sought) -> FoundAnswer:
    """Find records by an id of either side, an e-mail, a domain or an external id."""
    with transaction() as session:
        found = search(session, call.connector.key, request.q)
    return FoundAnswer(records=[FoundShape.model_validate(each) for each in found])


@operation(f"GET {ONE}", role=Role.VIEWER, command="records show CONNECTOR RECORD", example="acme ada@acme.com")
def show_record(call: Call, request: OfRecord) -> RecordAnswer:
    """Show one record: both sides field by field, its id mapping, and its latest events."""
    with transaction() as session:
        return read_record(session, _find_record(session, call, request))


@operation(f"GET {ONE}/history", role=Role.VIEWER, command="records history CONNECTOR RECORD", example="acme 4711")
def show_history(call: Call, request: HistoryAsked) -> HistoryAnswer:
    """Show the events of one record, in both directions."""
    with transaction() as session:
        return read_history(session, _find_record(session, call, request), before_id=request.before)


@operation(
    f"GET {ONE}/explain",
    role=Role.VIEWER,
    command="explain CONNECTOR RECORD",
    example="acme 4711 --entity person --field pipedrive/name --at 2h",
)
def explain_field(call: Call, request: FieldAsked) -> ExplanationAnswer:
    """Explain why a field has its value, now or at a moment in the past: every step from the origin to the value."""
    with transaction() as session:
        return explain(session, _find_record(session, call, request), request.field, request.at)


def _find_record(session: Session, call: Call, request: OfRecord) -> RecordIds:
    kind, name = Entity(request.entity), request.record
    found = None
    if request.by == "hull":
        found = find_record(session, call.connector.key, kind, hull_id=name)
    elif name.isascii() and name.isdigit() and int(name) <= LARGEST_ID:
        found = find_record(session, call.connector.key, kind, pipedrive_id=int(name))
    if found is None:
        raise not_found(
            "This connector knows no such record.", "If Pipedrive shows the record, the next fetch adds it."
        )
    return found


def read_record(session: Session, ids: RecordIds) -> RecordAnswer:
    """Return both sides of a record, its id mapping, and what is wrong with it."""
    plan = compiled_for(session, ids.connector_key, Entity(ids.entity))
    sides = read_sides(session, ids)
    mapping = sides.mapping
    recent = record_events.record_events(session, ids, limit=LOOKED_BACK)
    history = _page(plan, recent)
    fields = _rows(plan, sides, recent)
    state = mapping.state if mapping else "never joined"
    merged_into = mapping.merged_into if mapping else None
    names = _names(ids)
    failures = open_of_record(session, ids.connector_key, ids.entity, names)
    return RecordAnswer(
        entity=ids.entity,
        pipedrive_id=ids.pipedrive_id,
        hull_id=ids.hull_id,
        title=_title(sides),
        level=_level(ids, state, fields, has_failed=bool(failures)),
        sentence=_sentence(ids, state, merged_into, fields, has_failed=bool(failures)),
        state=state,
        matched=matched_words(mapping.matched_by if mapping and mapping.pipedrive_id else None),
        first_seen_at=mapping.first_seen_at if mapping else None,
        updated_at=mapping.updated_at if mapping else None,
        as_of=sides.as_of,
        merged_into=merged_into,
        deleted_at=mapping.deleted_at if mapping else None,
        awaits_account=mapping.awaits_account if mapping else None,
        fields=fields,
        claims=_claims(session, ids),
        organization=_organization(session, ids, sides),
        persons=persons if isinstance(persons := (sides.pipedrive or {}).get("people_count"), int) else None,
        failures=[FailureShape.model_validate(each) for each in failures],
        waiting=[
            WaitingShape(direction=each.direction, cause=each.cause, since=each.created_at, due_at=each.due_at)
            for each in waiting_changes(session, ids.connector_key, ids.entity, names)
        ],
        snapshot=sides.pipedrive,
        report=sides.report,
        events=history.events,
        more=history.more,
    )


def read_history(session: Session, ids: RecordIds, *, before_id: int | None = None) -> HistoryAnswer:
    """Return a page of the events of a record, newest first."""
    plan = compiled_for(session, ids.connector_key, Entity(ids.entity))
    return _page(plan, record_events.record_events(session, ids, before_id=before_id, limit=HISTORY + 1))


def _page(plan: CompiledSettings, rows: Sequence[SyncEvent]) -> HistoryAnswer:
    labels = labels_of(plan)
    more = rows[HISTORY - 1].id if len(rows) > HISTORY else None
    return HistoryAnswer(events=[describe_event(row, labels) for row in rows[:HISTORY]], more=more)


def _title(sides: RecordSides) -> str:
    for side in (sides.pipedrive, sides.report, sides.delivered):
        for name in ("name", "email", "domain", "pipedrive/name"):
            value = (side or {}).get(name)
            if isinstance(value, str) and value.strip():
                return value
    return ""


def _rows(plan: CompiledSettings, sides: RecordSides, recent: Sequence[SyncEvent]) -> list[RowShape]:
    rows = []
    for field in mapped_fields(plan):
        last = next((row for row in recent if value_in(row, field) is not ABSENT), None)
        refused = next((row for row in recent if row.event.endswith(".error") and is_about_rejected(row, field)), None)
        is_refused = refused is not None and (last is None or refused.id > last.id)
        pipedrive, hull = field.in_pipedrive(sides.pipedrive), sides.in_hull(field)
        is_reported = field.incoming or sides.report is not None
        shown = refused if is_refused else last
        rows.append(
            RowShape(
                field=FieldShape.model_validate(field),
                pipedrive=pipedrive,
                hull=hull,
                differs=is_reported and bool(pipedrive != hull),
                is_refused=is_refused,
                is_reported=is_reported,
                last=describe_event(shown) if shown is not None else None,
            )
        )
    return rows


def _claims(session: Session, ids: RecordIds) -> list[ClaimShape]:
    if ids.pipedrive_id is None:
        return []
    found = identifier_search.list_identifiers(session, ids.connector_key, ids.entity, ids.pipedrive_id)
    return [ClaimShape.model_validate(each) for each in found]


def _organization(session: Session, ids: RecordIds, sides: RecordSides) -> OrganizationShape | None:
    if ids.entity != Entity.PERSON:
        return None
    linked = (sides.pipedrive or {}).get("org_id")
    if not isinstance(linked, int):
        return None
    mapping = record_events.find_record_mapping(session, ids.connector_key, Entity.ORGANIZATION, linked, None)
    return OrganizationShape(pipedrive_id=linked, is_known=mapping is not None)


def _names(ids: RecordIds) -> dict[str, str]:
    """Return direction → the id of the record on the side that it comes from."""
    names = {}
    if ids.pipedrive_id is not None:
        names[str(Direction.INCOMING)] = str(ids.pipedrive_id)
    if ids.hull_id is not None:
        names[str(Direction.OUTGOING)] = ids.hull_id
    return names


def _sentence(
    ids: RecordIds, state: str, merged_into: int | None, fields: Sequence[RowShape], *, has_failed: bool
) -> str:
    """Return whether both sides agree, or why they do not, as a sentence."""
    kind = Entity(ids.entity)
    if state in DELETED_STATES:
        into = f" into {ids.entity} {merged_into}" if merged_into is not None else ""
        return f"This {kind.value.capitalize()} is {state}{into} in Pipedrive."
    if state in STATES:
        return STATES[state]
    if ids.pipedrive_id is None:
        return f"This {kind.hull.capitalize()} is not matched with a {kind.value.capitalize()} in Pipedrive."
    return "Some values of this record were not synchronized." if has_failed else _agreement(fields)


def _agreement(fields: Sequence[RowShape]) -> str:
    if len(fields) <= 1:
        return "No fields are mapped yet, so only the id is synchronized."
    differing = [row.field.attribute for row in fields if row.differs]
    unknown = sum(not row.is_reported for row in fields)
    if not differing and unknown:
        same = f"Both sides have the same values in {len(fields) - unknown} of {len(fields)} mapped fields"
        values = f"{unknown} outgoing value{'' if unknown == 1 else 's'}"
        return f"{same}; {values} not received from Hull yet."
    if not differing:
        return f"Both sides have the same values in all {len(fields)} mapped fields, as last read and sent."
    more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    verb = "differs" if len(differing) == 1 else "differ"
    return f"{len(differing)} of {len(fields)} mapped fields {verb}: {', '.join(differing[:NAMED])}{more}."


def _level(ids: RecordIds, state: str, fields: Sequence[RowShape], *, has_failed: bool) -> str:
    """Return the level of the sentence, for an icon and a colour."""
    if has_failed or state == "conflict":
        return "error"
    if state in DELETED_STATES or ids.pipedrive_id is None:
        return "skip"
    return "ok" if state == "full" and not any(row.differs for row in fields) else "warning"
