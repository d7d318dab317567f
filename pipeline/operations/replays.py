"""Replays: failures that are processed again at a set pace, with the outcome of each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import replay as rows
from db.failure_filter import FailureFilter
from db.replay import Replay
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.insight import replays as insight
from pipeline.jobs.replays import start
from pipeline.operations.call import Call
from pipeline.operations.errors import conflict, not_found
from pipeline.operations.failures import Edited, Expected, FailuresChosen, get_failure, payload_of
from pipeline.operations.models import ConnectorRequest, Done, Listed, RowRequest, Shape
from pipeline.operations.registry import operation
from pipeline.operations.values import RowId, Text, Why

PATH: Final = "/connectors/<connector>/replays"
ItemState = Literal[
    "waiting", "sent", "came_through", "already_applied", "superseded", "skipped", "failed_again", "refused", "aborted"
]


class ReplayShape(Shape):
    """`counts`: state → number of items; `left_s`: seconds that the pace needs for the waiting items.

    If a replay has stopped, `reason` says why, and `advice` what to do before you resume it.
    """

    id: int
    asked_by: str
    why: str
    chosen: dict[str, Any]
    per_second: float
    state: str
    reason: str | None
    meaning: str
    advice: str
    detail: Text | None
    total: int
    settled: int
    counts: dict[str, int]
    left_s: float
    summary: str
    created_at: datetime
    ended_at: datetime | None


class ReplaysAnswer(BaseModel):
    replays: list[ReplayShape]


class ReplayItemShape(Shape):
    """One failure of a replay. `task_id` is the last Celery task of the batch that carried it."""

    id: int
    failure_id: int
    title: str
    reason: str
    state: str
    words: str
    detail: Text | None
    sent_at: datetime | None
    settled_at: datetime | None
    batch_id: int | None
    task_id: str | None
    new_failure_id: int | None


class ReplayItemsAnswer(BaseModel):
    items: list[ReplayItemShape]


class NewReplay(ConnectorRequest):
    failures: FailuresChosen
    count: Expected
    why: Why
    per_second: Annotated[
        float, Field(ge=start.SLOWEST, le=start.FASTEST, description="Maximum of failures per second.")
    ] = start.PER_SECOND


class EditedReplay(Edited):
    why: Why


class ReplaysAsked(Listed, ConnectorRequest):
    """Replays of a connector."""


class ReplayItemsAsked(RowRequest):
    state: ItemState | None = None
    after: Annotated[RowId | None, Field(description="Only items after this one.")] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50


@operation(
    f"POST {PATH}",
    role=Role.OPERATOR,
    audit_action="failures.replay",
    command="failures replay CONNECTOR",
    example="acme --reason no_update_time --wait",
)
def begin_replay(call: Call, request: NewReplay) -> ReplayShape:
    """Replay the open failures of a filter, unless there are more by now than you counted.

    Each record is read or decided again, so an older state never overwrites a newer one.
    """
    chosen = request.failures.filter(call.connector.key)
    with call.transaction() as session:
        begun = start.begin(
            session,
            chosen,
            by=call.caller.name,
            why=request.why,
            per_second=request.per_second,
            at_most=request.count,
        )
        _note_begin(call, session, begun, chosen, [])
        return _shape(session, begun)


@operation(
    "POST /connectors/<connector>/failures/<id>/replay-edited",
    role=Role.OPERATOR,
    audit_action="failures.replay",
    command="failures replay-edited CONNECTOR ID",
    example='acme 17 --payload-file payload.json --why "the title was wrong"',
)
def replay_edited(call: Call, request: EditedReplay) -> ReplayShape:
    """Replay one failure with an edited payload instead of the received one."""
    chosen = FailureFilter(connector_key=call.connector.key, ids=(request.id,))
    with call.transaction() as session:
        edited = payload_of(request, get_failure(session, call, request.id))
        begun = start.begin(session, chosen, by=call.caller.name, why=request.why, payloads={request.id: edited})
        _note_begin(call, session, begun, chosen, [request.id])
        return _shape(session, begun)


@operation(f"GET {PATH}", role=Role.VIEWER, command="failures replays list CONNECTOR")
def list_replays(call: Call, request: ReplaysAsked) -> ReplaysAnswer:
    """List replays, newest first."""
    with transaction() as session:
        found = rows.latest_replays(session, call.connector.key, before_id=request.before, limit=request.limit)
        shown = insight.progress_of(session, found)
    return ReplaysAnswer(replays=[ReplayShape.model_validate(each) for each in shown])


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="failures replays show CONNECTOR ID", example="acme 12")
def show_replay(call: Call, request: RowRequest) -> ReplayShape:
    """Show one replay and its progress."""
    with transaction() as session:
        return _shape(session, _get(session, call, request.id))


@operation(
    f"GET {PATH}/<id>/items",
    role=Role.VIEWER,
    command="failures replays items CONNECTOR ID",
    example="acme 12 --state failed_again",
)
def list_replay_items(call: Call, request: ReplayItemsAsked) -> ReplayItemsAnswer:
    """List the items of a replay with their outcomes, in the order of sending."""
    with transaction() as session:
        replay = _get(session, call, request.id)
        found = insight.items_of(session, replay.id, state=request.state, after_id=request.after, limit=request.limit)
    return ReplayItemsAnswer(items=[ReplayItemShape.model_validate(each) for each in found])


@operation(
    f"POST {PATH}/<id>/pause",
    role=Role.OPERATOR,
    audit_action="replay.pause",
    command="failures replays pause CONNECTOR ID",
    example="acme 12",
)
def pause_replay(call: Call, request: RowRequest) -> Done:
    """Pause a replay: no more items are sent; items already sent continue."""
    return _act(call, request, start.pause, "paused")


@operation(
    f"POST {PATH}/<id>/resume",
    role=Role.OPERATOR,
    audit_action="replay.resume",
    command="failures replays resume CONNECTOR ID",
    example="acme 12",
)
def resume_replay(call: Call, request: RowRequest) -> Done:
    """Resume a replay that was paused or has stopped."""
    return _act(call, request, partial(start.resume, by=call.caller.name), "resumed")


@operation(
    f"POST {PATH}/<id>/abort",
    role=Role.OPERATOR,
    audit_action="replay.abort",
    command="failures replays abort CONNECTOR ID",
    example="acme 12",
)
def abort_replay(call: Call, request: RowRequest) -> Done:
    """Abort a replay; failures that were not sent stay open."""
    return _act(call, request, partial(start.abort, by=call.caller.name), "aborted")


def _act(call: Call, request: RowRequest, act: Callable[[Session, int], bool], done: str) -> Done:
    with call.transaction(str(request.id)) as session:
        replay = _get(session, call, request.id)
        if not act(session, replay.id):
            raise conflict("wrong_state", f"Replay {replay.id} is {replay.state}, so it cannot be {done}.")
    return Done(done=done)


def _note_begin(call: Call, session: Session, begun: Replay, chosen: FailureFilter, corrected: list[int]) -> None:
    detail = {"replay": begun.id, "failures": begun.total, "corrected": corrected}
    call.note(session, start.words_of(chosen), why=begun.why, detail=detail)


def _shape(session: Session, replay: Replay) -> ReplayShape:
    return ReplayShape.model_validate(insight.progress_of(session, [replay])[0])


def _get(session: Session, call: Call, replay_id: int) -> Replay:
    found = rows.find_replay(session, replay_id)
    if found is None or found.connector_key != call.connector.key:
        raise not_found("There is no such replay of this connector.", "Go back to the list of replays.")
    return found
