"""Failures: what could not be synchronized, kept with its payload until it is replayed or discarded."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import failure_filter
from db.failure import Failure
from db.failure_filter import FailureFilter
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.insight import failures as insight
from pipeline.insight import payloads, verdicts
from pipeline.jobs.replays.preview_records import MEANINGS
from pipeline.jobs.replays.start import MoreThanExpected, NothingToReplay, words_of
from pipeline.operations.call import Call
from pipeline.operations.errors import not_found
from pipeline.operations.models import (
    Asked,
    ConnectorRequest,
    Counted,
    DirectionName,
    EntityName,
    RowRequest,
    Shape,
)
from pipeline.operations.registry import operation
from pipeline.operations.values import Moment, Number, RowId, Short, Text, Value, Why

PATH: Final = "/connectors/<connector>/failures"
Expected = Annotated[
    int, Field(ge=1, le=2**31 - 1, description="The number you counted; if there are more by now, nothing is done.")
]


class FailuresChosen(Asked):
    """A filter of failures. Omitted fields match everything; `since` and `until` compare the time of the last failed attempt."""

    ids: list[RowId] = Field(default_factory=list, max_length=1000)
    direction: DirectionName | None = None
    entity: EntityName | None = None
    kind: Literal["record", "field", "batch", "control"] | None = None
    reason: Short | None = None
    field: Short | None = None
    fingerprint: Short | None = None
    settings_version: Number | None = None
    since: Moment | None = None
    until: Moment | None = None

    def filter(self, connector_key: int, state: str | None = "open") -> FailureFilter:
        """Return the filter as the database reads it; `state` None is every state."""
        named = {name: getattr(self, name) for name in FailuresChosen.model_fields if name != "ids"}
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


class FieldChangeShape(Shape):
    field: str
    name: Text
    before: Value
    after: Value


class FieldProblemShape(Shape):
    field: str
    reason: str
    detail: Text


class VerdictShape(Shape):
    """The preview of a replay. `kind` is `changes`, `creates`, `looks_up`, `matches`, `runs`, `nothing`, `superseded`,
    `skipped`, `fails_again`, `refused`, `unknown` or `closed`."""

    kind: str
    detail: Text
    note: str
    reason: str | None
    changes: list[FieldChangeShape]
    problems: list[FieldProblemShape]
    tokens: float

    @property
    def words(self) -> str:
        """Return the text of the kind."""
        return MEANINGS[self.kind]


class AttemptShape(Shape):
    """A replay that contains the failure."""

    replay_id: int
    state: str
    detail: Text | None
    at: datetime | None
    new_failure_id: int | None


class WholeAnswer(Shape):
    """One failure with all details. `payload` is the record as received, null for viewers; `is_cut`: only its start is shown."""

    failure: FailureShape
    title: str
    meaning: str
    advice: str
    payload: Value
    payload_bytes: int
    is_cut: bool
    traceback: Text | None
    exchange: dict[str, Any] | None
    task_id: str | None
    verdict: VerdictShape
    earlier: list[FailureShape]
    replays: list[AttemptShape]
    is_editable: bool


class GroupsAsked(FailuresChosen, ConnectorRequest):
    state: Literal["open", "replayed", "discarded", "all"] = "open"

    @property
    def chosen_state(self) -> str | None:
        """The state of the filter; None for every state."""
        return None if self.state == "all" else self.state


class FailuresAsked(GroupsAsked):
    before: RowId | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class ReplayForeseen(FailuresChosen, ConnectorRequest):
    """Open failures of a connector."""


class Discarding(ConnectorRequest):
    failures: FailuresChosen
    count: Expected
    why: Why


class Edited(RowRequest):
    """A failure and an edited payload."""

    payload: dict[str, Any]


class GroupsAnswer(BaseModel):
    groups: list[GroupShape]


class JudgedShape(BaseModel):
    """A failure with the preview of its replay."""

    failure: FailureShape
    verdict: VerdictShape


class FailuresAnswer(BaseModel):
    failures: list[JudgedShape]


class SumAnswer(Shape):
    """The preview of replaying a selection: `kinds` counts the results of the newest `looked` of `total` failures."""

    total: int
    looked: int
    is_sample: bool
    harmless: int
    kinds: dict[str, int]
    tokens: int


class DifferenceShape(Shape):
    """One changed place in a payload, such as `user.tier` or `segments[0].id`."""

    path: Text
    before: Value
    after: Value
    is_new: bool
    is_gone: bool


class EditAnswer(BaseModel):
    """The differences of an edited payload, and the preview of its replay; nothing was done."""

    differences: list[DifferenceShape]
    verdict: VerdictShape


@operation(f"GET {PATH}", role=Role.VIEWER, command="failures list CONNECTOR", example="acme --reason too_long")
def list_failures(call: Call, request: FailuresAsked) -> FailuresAnswer:
    """List failures by filter, newest first, each with the preview of its replay."""
    chosen = request.filter(call.connector.key, request.chosen_state)
    with transaction() as session:
        found = failure_filter.page_of_failures(session, chosen, before_id=request.before, limit=request.limit)
        foreseen = verdicts.verdicts_of(session, found)
    return FailuresAnswer(
        failures=[
            JudgedShape(
                failure=FailureShape.model_validate(each), verdict=VerdictShape.model_validate(foreseen[each.id])
            )
            for each in found
        ]
    )


@operation(f"GET {PATH}/groups", role=Role.VIEWER, command="failures groups CONNECTOR")
def list_groups(call: Call, request: GroupsAsked) -> GroupsAnswer:
    """List failures grouped by cause, the largest group first."""
    with transaction() as session:
        found = insight.groups_of(session, request.filter(call.connector.key, request.chosen_state))
    return GroupsAnswer(groups=[GroupShape.model_validate(each) for each in found])


@operation(
    f"GET {PATH}/verdict",
    role=Role.VIEWER,
    command="failures preview CONNECTOR",
    example="acme --reason no_update_time",
)
def foresee_replay(call: Call, request: ReplayForeseen) -> SumAnswer:
    """Count the open failures of a filter and preview their replay; nothing is done."""
    with transaction() as session:
        return SumAnswer.model_validate(verdicts.sum_of(session, request.filter(call.connector.key)))


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="failures show CONNECTOR ID", example="acme 17")
def show_failure(call: Call, request: RowRequest) -> WholeAnswer:
    """Show one failure with the preview of its replay; payload and HTTP exchange for operators and admins only."""
    with transaction() as session:
        whole = insight.whole(session, get_failure(session, call, request.id))
        reads = Role(call.caller.role).may(Role.OPERATOR)
        found = {name: getattr(whole, name) for name in WholeAnswer.model_fields if hasattr(whole, name)}
        more = {"traceback": whole.failure.traceback, "exchange": whole.failure.exchange if reads else None}
        if not reads:
            found["payload"] = None
        return WholeAnswer.model_validate(found | more, from_attributes=True)


@operation(
    f"POST {PATH}/discard",
    role=Role.OPERATOR,
    audit_action="failures.discard",
    command="failures discard CONNECTOR",
    example='acme --ids 17 --why "deleted by sales"',
)
def discard_failures(call: Call, request: Discarding) -> Counted:
    """Discard open failures, unless there are more by now than you counted."""
    chosen = request.failures.filter(call.connector.key)
    with call.transaction() as session:
        ids = failure_filter.open_ids(session, chosen)
        if not ids:
            raise NothingToReplay("no open failure matches")
        if len(ids) > request.count:
            raise MoreThanExpected(f"{len(ids)} instead of {request.count}")
        closed = len(failure_filter.close_all(session, ids, "discarded", by=call.caller.name, why=request.why))
        call.note(session, words_of(chosen), why=request.why, detail={"failures": closed})
    return Counted(done="discarded", count=closed)


@operation(
    f"POST {PATH}/<id>/try-payload",
    role=Role.OPERATOR,
    changes=False,
    command="failures try-payload CONNECTOR ID",
    example="acme 17 --payload-file payload.json",
)
def try_payload(call: Call, request: Edited) -> EditAnswer:
    """Show the differences of an edited payload and preview its replay; nothing is done."""
    with transaction() as session:
        failure = get_failure(session, call, request.id)
        edited = payload_of(request, failure)
        changed = payloads.differences(failure, edited)
        verdict = verdicts.verdict_of(session, failure, edited)
    differences = [DifferenceShape.model_validate(each) for each in changed]
    return EditAnswer(differences=differences, verdict=VerdictShape.model_validate(verdict))


def payload_of(request: Edited, failure: Failure) -> bytes:
    """Return an edited payload as it would be sent. Raises PayloadMistake."""
    return payloads.read_edited(json.dumps(request.payload, ensure_ascii=False), failure)


def get_failure(session: Session, call: Call, failure_id: int) -> Failure:
    """Return a failure of the call's connector. Raises OperationError."""
    found = insight.find_failure(session, call.connector.key, failure_id)
    if found is None:
        raise not_found("There is no such failure of this connector.", "Go back to the list of failures.")
    return found
