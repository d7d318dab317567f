"""Failures: what could not be synchronized, kept with its payload until it is replayed or discarded."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import failure as rows
from db import failure_closing, failure_filter
from db import replay as replay_rows
from db.batch import Batch
from db.failure import Failure
from db.failure_filter import FailureFilter
from db.session import transaction
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Entity, Role
from pipeline.domain.reasons import advice_of, meaning_of
from pipeline.jobs.replays.preview import preview_failures
from pipeline.jobs.replays.start import MoreThanExpected, NothingToReplay, words_of
from pipeline.operations import edited_payloads
from pipeline.operations.call import Call
from pipeline.operations.edited_payloads import DifferenceShape, is_editable
from pipeline.operations.errors import not_found
from pipeline.operations.models import (
    ConnectorRequest,
    Counted,
    DirectionName,
    EntityName,
    Moment,
    Number,
    PageOnly,
    ReasonCode,
    RequestModel,
    RowId,
    RowRequest,
    Shape,
    Short,
    Text,
    Value,
    Why,
    shape_of,
)
from pipeline.operations.registry import operation
from pipeline.operations.replay_preview import ReplayPreviewShape, SumAnswer, sum_of

DAYS: Final = 14
"""Number of days in the trend of a group."""
LONGEST_READ: Final = 200_000
"""Maximum number of bytes of a payload in an answer; a longer one is cut."""


PATH: Final = "/connectors/<connector>/failures"
FailureKind = Literal["record", "field", "batch", "control"]
Expected = Annotated[
    int,
    Field(
        ge=1, le=2**31 - 1, description="The number of failures you counted. If there are more now, nothing is done."
    ),
]


class FailuresFilter(RequestModel):
    """A filter of failures. Omitted fields match everything; `since` and `until` compare the time of the last failed attempt."""

    ids: list[RowId] = Field(default_factory=list, max_length=1000, description="An id; several may be given.")
    direction: DirectionName | None = None
    entity: EntityName | None = None
    kind: Annotated[FailureKind | None, Field(description="What failed.")] = None
    reason: ReasonCode | None = None
    field: Annotated[Short | None, Field(description="The code of the field that was left out.")] = None
    fingerprint: Annotated[Short | None, Field(description="The group of failures with one cause.")] = None
    settings_version: Annotated[Number | None, Field(description="The version of the settings in force then.")] = None
    since: Moment | None = None
    until: Moment | None = None

    def filter(self, connector_key: int, state: str | None = "open") -> FailureFilter:
        """Return the filter as the database reads it; `state` None is every state."""
        named = {name: getattr(self, name) for name in FailuresFilter.model_fields if name != "ids"}
        return FailureFilter(connector_key=connector_key, ids=tuple(self.ids), state=state, **named)


class FailureShape(Shape):
    """A failure without its payload."""

    id: int
    kind: str
    subject: str
    direction: str
    entity: str
    record_id: str | None
    batch_id: int | None
    run_id: int | None
    stage: str
    reason: str
    detail: Text
    field: str | None
    fingerprint: str
    attempts: int
    state: str
    closed_by: str | None
    closed_why: str | None
    settings_version: int | None
    created_at: datetime
    updated_at: datetime


class GroupShape(Shape):
    """Failures with the same cause; `daily` counts the new ones of each recent day, today last."""

    fingerprint: str
    title: str
    kind: str
    direction: str
    entity: str
    stage: str
    reason: str
    field: str | None
    detail: Text
    meaning: str
    advice: str
    count: int
    first_at: datetime
    last_at: datetime
    daily: list[int]


class AttemptShape(Shape):
    """A replay that contains the failure."""

    replay_id: int
    state: str
    detail: Text | None
    at: datetime | None
    new_failure_id: int | None


class FailureDetailsAnswer(Shape):
    """One failure with all details. `payload` is the record as received, null for viewers; `is_cut`: only its start is shown."""

    failure: FailureShape
    title: str
    meaning: str
    advice: str
    payload: Value
    payload_bytes: int
    is_cut: bool
    batch: PageOnly[dict[str, Any] | None] = None
    traceback: Text | None
    exchange: dict[str, Any] | None
    task_id: str | None
    preview: ReplayPreviewShape
    earlier: list[FailureShape]
    replays: list[AttemptShape]
    is_editable: bool


class GroupsRequest(FailuresFilter, ConnectorRequest):
    state: Annotated[
        Literal["open", "replayed", "discarded", "all"], Field(description="The state of the failures.")
    ] = "open"

    @property
    def chosen_state(self) -> str | None:
        """The state of the filter; None for every state."""
        return None if self.state == "all" else self.state


class FailuresRequest(GroupsRequest):
    before: Annotated[RowId | None, Field(description="Only failures older than this id.")] = None
    limit: Annotated[int, Field(ge=1, le=100, description="Maximum number of entries.")] = 50


class ReplayPreviewRequest(FailuresFilter, ConnectorRequest):
    """Open failures of a connector."""


class DiscardRequest(ConnectorRequest):
    failures: FailuresFilter
    count: Expected
    why: Why


class EditedPayloadRequest(RowRequest):
    """A failure and an edited payload."""

    payload: Annotated[dict[str, Any], Field(description="The whole edited payload.")]


class GroupsAnswer(BaseModel):
    groups: list[GroupShape]


class PreviewedFailureShape(BaseModel):
    """A failure with the preview of its replay."""

    failure: FailureShape
    preview: ReplayPreviewShape


class FailuresAnswer(BaseModel):
    failures: list[PreviewedFailureShape]


class EditAnswer(BaseModel):
    """The differences of an edited payload, and the preview of its replay; nothing was done."""

    differences: list[DifferenceShape]
    preview: ReplayPreviewShape


@operation(f"GET {PATH}", role=Role.VIEWER, command="failures list CONNECTOR", example="acme --reason too_long")
def list_failures(call: Call, request: FailuresRequest) -> FailuresAnswer:
    """List failures by filter, newest first, each with the preview of its replay."""
    chosen = request.filter(call.connector.key, request.chosen_state)
    with transaction() as session:
        found = failure_filter.find_failures(session, chosen, before_id=request.before, limit=request.limit)
        previews = preview_failures(session, found)
    return FailuresAnswer(
        failures=[
            PreviewedFailureShape(
                failure=FailureShape.model_validate(each), preview=ReplayPreviewShape.model_validate(previews[each.id])
            )
            for each in found
        ]
    )


@operation(f"GET {PATH}/groups", role=Role.VIEWER, command="failures groups CONNECTOR")
def list_groups(call: Call, request: GroupsRequest) -> GroupsAnswer:
    """List failures grouped by cause, the largest group first."""
    with transaction() as session:
        return GroupsAnswer(groups=groups_of(session, request.filter(call.connector.key, request.chosen_state)))


@operation(
    f"GET {PATH}/preview",
    role=Role.VIEWER,
    command="failures preview CONNECTOR",
    example="acme --reason no_update_time",
)
def preview_replay(call: Call, request: ReplayPreviewRequest) -> SumAnswer:
    """Count the open failures of a filter and preview their replay; nothing is done."""
    with transaction() as session:
        return sum_of(session, request.filter(call.connector.key))


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="failures show CONNECTOR ID", example="acme 17")
def show_failure(call: Call, request: RowRequest) -> FailureDetailsAnswer:
    """Show one failure with the preview of its replay; payload and HTTP exchange for operators and admins only."""
    with transaction() as session:
        found = describe_failure(session, get_failure(session, call, request.id))
    if Role(call.caller.role).may(Role.OPERATOR):
        return found
    return found.model_copy(update={"payload": None, "exchange": None})


@operation(
    f"POST {PATH}/discard",
    role=Role.OPERATOR,
    audit_action="failures.discard",
    command="failures discard CONNECTOR",
    example='acme --ids 17 --why "deleted by sales"',
)
def discard_failures(call: Call, request: DiscardRequest) -> Counted:
    """Discard open failures, unless there are more by now than you counted."""
    chosen = request.failures.filter(call.connector.key)
    with call.transaction() as session:
        ids = failure_filter.open_ids(session, chosen)
        if not ids:
            raise NothingToReplay("no open failure matches")
        if len(ids) > request.count:
            raise MoreThanExpected(f"{len(ids)} instead of {request.count}")
        closed = len(failure_closing.close_all(session, ids, "discarded", by=call.caller.name, why=request.why))
        call.note(session, words_of(chosen), why=request.why, detail={"failures": closed})
    return Counted(done="discarded", count=closed)


@operation(
    f"POST {PATH}/<id>/try-payload",
    role=Role.OPERATOR,
    changes=False,
    command="failures try-payload CONNECTOR ID",
    example="acme 17 --payload-file payload.json",
)
def try_payload(call: Call, request: EditedPayloadRequest) -> EditAnswer:
    """Show the differences of an edited payload and preview its replay; nothing is done."""
    with transaction() as session:
        failure = get_failure(session, call, request.id)
        edited = payload_of(request, failure)
        changed = edited_payloads.differences(failure, edited)
        preview = preview_failures(session, [failure], {failure.id: edited})[failure.id]
    return EditAnswer(differences=changed, preview=ReplayPreviewShape.model_validate(preview))


def payload_of(request: EditedPayloadRequest, failure: Failure) -> bytes:
    """Return an edited payload as it would be sent. Raises OperationError."""
    return edited_payloads.read_edited(json.dumps(request.payload, ensure_ascii=False), failure)


def get_failure(session: Session, call: Call, failure_id: int) -> Failure:
    """Return a failure of the call's connector. Raises OperationError."""
    found = find_failure(session, call.connector.key, failure_id)
    if found is None:
        raise not_found("There is no such failure of this connector.", "Go back to the list of failures.")
    return found


def find_failure(session: Session, connector_key: int, failure_id: int) -> Failure | None:
    """Return the connector's failure with this id."""
    found = session.get(Failure, failure_id)
    return found if found is not None and found.connector_key == connector_key else None


def groups_of(session: Session, chosen: FailureFilter, *, limit: int = 100) -> list[GroupShape]:
    """Return failures grouped by cause, the largest group first."""
    found = failure_filter.group_failures(session, chosen, limit=limit)
    daily = failure_filter.failed_by_day(session, chosen, DAYS)
    return [
        shape_of(
            GroupShape,
            each.sample,
            fingerprint=each.fingerprint,
            title=title_of(each.sample),
            meaning=meaning_of(each.sample.reason),
            advice=advice_of(each.sample.reason, each.sample.direction),
            count=each.count,
            first_at=each.first_at,
            last_at=each.last_at,
            daily=list(daily.get(each.fingerprint, [0] * DAYS)),
        )
        for each in found
    ]


def describe_failure(session: Session, failure: Failure) -> FailureDetailsAnswer:
    """Return all details of one failure, with the current preview of its replay."""
    body = rows.payload_of(failure)
    batch = session.get(Batch, failure.batch_id) if failure.batch_id is not None else None
    return shape_of(
        FailureDetailsAnswer,
        failure,
        failure=FailureShape.model_validate(failure),
        title=title_of(failure),
        meaning=meaning_of(failure.reason),
        advice=advice_of(failure.reason, failure.direction),
        payload=_readable(body),
        payload_bytes=len(body or b""),
        is_cut=len(body or b"") > LONGEST_READ,
        task_id=failure.task_id or (batch.task_id if batch is not None else None),
        batch=None if batch is None else {"id": batch.id, "state": batch.state, "stage": batch.stage},
        preview=ReplayPreviewShape.model_validate(preview_failures(session, [failure])[failure.id]),
        earlier=[
            FailureShape.model_validate(each)
            for each in failure_filter.same_subject(session, failure)
            if each.id != failure.id
        ],
        replays=_attempts(session, failure),
        is_editable=is_editable(failure),
    )


def title_of(failure: Failure | FailureShape) -> str:
    """Return what failed, as `User 5bd3…`, `Person 17`, `label_ids of Person 17`, `batch 12`, `resolve_hull_ids`."""
    if failure.kind == "control":
        return failure.stage
    if failure.kind == "batch":
        return f"batch {failure.batch_id}"
    entity = Entity(failure.entity)
    name = entity.value if failure.direction == "incoming" else entity.hull
    of = f"{failure.field} of " if failure.kind == "field" else ""
    return f"{of}{name.capitalize()} {failure.record_id or 'without an id'}"


def _readable(body: bytes | None) -> Any:
    """Return a payload for display: parsed if it is JSON and not nested too deeply, else as text."""
    if body is None:
        return None
    try:
        return read_lenient(body) if len(body) <= LONGEST_READ else body[:LONGEST_READ].decode("utf-8", "replace")
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def _attempts(session: Session, failure: Failure) -> list[AttemptShape]:
    """Return the replays that contain a failure, newest first."""
    return [
        shape_of(AttemptShape, item, at=item.finished_at or item.sent_at)
        for item in replay_rows.items_for(session, [failure.id])
    ]
