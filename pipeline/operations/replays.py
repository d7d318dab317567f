"""Replays: failures that are processed again at a set pace, with the outcome of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import failure_filter
from db import replay as rows
from db.failure import Failure
from db.failure_filter import FailureFilter
from db.job import Job, newest_jobs
from db.replay import OUTCOMES, SENT, WAITING, Replay
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.domain.reasons import advice_of, meaning_of
from pipeline.jobs import runtime
from pipeline.jobs.replays import start
from pipeline.operations.call import Call
from pipeline.operations.errors import conflict, not_found
from pipeline.operations.failures import (
    EditedPayloadRequest,
    Expected,
    FailuresFilter,
    get_failure,
    payload_of,
    title_of,
)
from pipeline.operations.models import ConnectorRequest, Done, PageRequest, RowId, RowRequest, Shape, Text, Why
from pipeline.operations.registry import operation
from pipeline.sync.job_queue import REPLAY

WORDS: Mapping[str, str] = {
    WAITING: "waiting",
    SENT: "in flight",
    "came_through": "succeeded",
    "already_applied": "already applied",
    "superseded": "superseded",
    "skipped": "skipped",
    "failed_again": "failed again",
    "refused": "cannot be replayed",
    "aborted": "not sent",
}
"""State of an item → its text, in the order of summaries."""
PATH: Final = "/connectors/<connector>/replays"
ItemState = Literal[
    "waiting", "sent", "came_through", "already_applied", "superseded", "skipped", "failed_again", "refused", "aborted"
]


class ReplayShape(Shape):
    """`counts`: state → number of items; `left_s`: seconds that the pace needs for the waiting items.

    If a replay has stopped, `reason` is why, and `advice` what to do before you resume it.
    """

    id: int
    requested_by: str
    why: str
    chosen: dict[str, Any]
    per_second: float
    state: str
    reason: str | None
    meaning: str
    advice: str
    detail: Text | None
    total: int
    finished: int
    counts: dict[str, int]
    left_s: float
    summary: str
    created_at: datetime
    ended_at: datetime | None

    @property
    def waiting(self) -> int:
        """Return the number of items that were not sent yet."""
        return self.counts.get(WAITING, 0)

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None

    @property
    def mood(self) -> str:
        """Return the state for an icon and a colour: a replay with items that failed again is not shown as a success."""
        failed = self.counts.get("failed_again", 0) + self.counts.get("refused", 0)
        if self.state != "done" or not failed:
            return self.state
        return "error" if failed == self.total else "warning"


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
    finished_at: datetime | None
    batch_id: int | None
    task_id: str | None
    new_failure_id: int | None


class ReplayItemsAnswer(BaseModel):
    items: list[ReplayItemShape]


class NewReplay(ConnectorRequest):
    failures: FailuresFilter
    count: Expected
    why: Why
    per_second: Annotated[
        float, Field(ge=start.SLOWEST, le=start.FASTEST, description="Maximum of failures per second.")
    ] = start.PER_SECOND


class EditedReplay(EditedPayloadRequest):
    why: Why


class ReplaysAsked(PageRequest, ConnectorRequest):
    """Replays of a connector."""


class ReplayItemsAsked(RowRequest):
    state: Annotated[ItemState | None, Field(description="Only items with this outcome.")] = None
    after: Annotated[RowId | None, Field(description="Only items after this one.")] = None
    limit: Annotated[int, Field(ge=1, le=500, description="Maximum number of items.")] = 50


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
        _note_start(call, session, begun, chosen)
        return _describe(session, begun)


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
        _note_start(call, session, begun, chosen, request.id)
        return _describe(session, begun)


@operation(f"GET {PATH}", role=Role.VIEWER, command="failures replays list CONNECTOR")
def list_replays(call: Call, request: ReplaysAsked) -> ReplaysAnswer:
    """List replays, newest first."""
    with transaction() as session:
        found = rows.latest_replays(session, call.connector.key, before_id=request.before, limit=request.limit)
        return ReplaysAnswer(replays=describe_replays(session, found))


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="failures replays show CONNECTOR ID", example="acme 12")
def show_replay(call: Call, request: RowRequest) -> ReplayShape:
    """Show one replay and its progress."""
    with transaction() as session:
        return _describe(session, _get(session, call, request.id))


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
        found = rows.items_of(session, replay.id, state=request.state, after_id=request.after, limit=request.limit)
        known = failure_filter.failures_by_id(session, [each.failure_id for each in found])
        batches = rows.facts_of_batches(session, [each.batch_id for each in found if each.batch_id is not None])
        return ReplayItemsAnswer(items=[_describe_item(each, known.get(each.failure_id), batches) for each in found])


@operation(
    f"POST {PATH}/<id>/pause",
    role=Role.OPERATOR,
    audit_action="replay.pause",
    command="failures replays pause CONNECTOR ID",
    example="acme 12",
)
def pause_replay(call: Call, request: RowRequest) -> Done:
    """Pause a replay: no more items are sent; items already sent continue."""
    return _act(call, request, runtime.pause, "paused")


@operation(
    f"POST {PATH}/<id>/resume",
    role=Role.OPERATOR,
    audit_action="replay.resume",
    command="failures replays resume CONNECTOR ID",
    example="acme 12",
)
def resume_replay(call: Call, request: RowRequest) -> Done:
    """Resume a replay that was paused or has stopped."""
    return _act(call, request, partial(runtime.resume, by=call.caller.name), "resumed")


@operation(
    f"POST {PATH}/<id>/abort",
    role=Role.OPERATOR,
    audit_action="replay.abort",
    command="failures replays abort CONNECTOR ID",
    example="acme 12",
)
def abort_replay(call: Call, request: RowRequest) -> Done:
    """Abort a replay; failures that were not sent stay open."""
    return _act(call, request, partial(runtime.abort, by=call.caller.name), "aborted")


def describe_replays(session: Session, found: Sequence[Replay]) -> list[ReplayShape]:
    """Return replays of one connector with their progress."""
    counts, jobs = rows.item_counts(session, [each.id for each in found]), _jobs_of(session, found)
    return [_with_progress(each, jobs.get(each.id), counts[each.id]) for each in found]


def _describe(session: Session, replay: Replay) -> ReplayShape:
    return describe_replays(session, [replay])[0]


def _jobs_of(session: Session, replays: Sequence[Replay]) -> dict[int, Job]:
    """Return replay → its job, for replays of one connector."""
    if not replays:
        return {}
    found = newest_jobs(session, replays[0].connector_key, REPLAY, [str(each.id) for each in replays])
    return {int(key): job for key, job in found.items()}


def _state_of(replay: Replay, job: Job | None) -> str:
    """Return `done`, `aborted`, or the state of its job: `running`, `paused`, or `stopped` if it failed."""
    if job is None or replay.state in ("done", "aborted"):
        return replay.state
    return {"due": "running", "paused": "paused", "failed": "stopped"}.get(job.state, replay.state)


def _with_progress(replay: Replay, job: Job | None, counts: Mapping[str, int]) -> ReplayShape:
    state = _state_of(replay, job)
    reason = replay.reason if state == "stopped" else None
    advice = f"{advice_of(reason)} Then resume the replay.".strip() if reason else ""
    items = "1 item" if replay.total == 1 else f"{replay.total:,} items"
    by_state = [f"{counts[state]:,} {words}" for state, words in WORDS.items() if counts.get(state)]
    return ReplayShape(
        id=replay.id,
        requested_by=replay.requested_by,
        why=replay.why,
        chosen=replay.chosen,
        per_second=replay.per_second,
        state=state,
        reason=reason,
        meaning=meaning_of(reason),
        advice=advice,
        detail=replay.detail if reason else None,
        total=replay.total,
        finished=sum(counts.get(state, 0) for state in OUTCOMES),
        counts=dict(counts),
        left_s=counts.get(WAITING, 0) / replay.per_second,
        summary=f"{items}: {', '.join(by_state)}.",
        created_at=replay.created_at,
        ended_at=replay.ended_at if state not in ("running", "paused") else None,
    )


def _describe_item(
    row: rows.ReplayItem, failure: Failure | None, batches: Mapping[int, tuple[str | None, str]]
) -> ReplayItemShape:
    title, reason = (title_of(failure), failure.reason) if failure is not None else ("deleted", "")
    return ReplayItemShape(
        id=row.id,
        failure_id=row.failure_id,
        title=title,
        reason=reason,
        state=row.state,
        words=WORDS[row.state],
        detail=row.detail,
        sent_at=row.sent_at,
        finished_at=row.finished_at,
        batch_id=row.batch_id,
        task_id=batches.get(row.batch_id or 0, (None, ""))[0],
        new_failure_id=row.new_failure_id,
    )


def _act(call: Call, request: RowRequest, act: Callable[[Session, Job], bool], done: str) -> Done:
    """Act on the job of a replay."""
    with call.transaction(str(request.id)) as session:
        replay = _get(session, call, request.id)
        job = _jobs_of(session, [replay]).get(replay.id)
        if job is None or not act(session, job):
            raise conflict("wrong_state", f"Replay {replay.id} is {_state_of(replay, job)}, so it cannot be {done}.")
    return Done(done=done)


def _note_start(call: Call, session: Session, begun: Replay, chosen: FailureFilter, *corrected: int) -> None:
    detail = {"replay": begun.id, "failures": begun.total, "corrected": list(corrected)}
    call.note(session, start.words_of(chosen), why=begun.why, detail=detail)


def _get(session: Session, call: Call, replay_id: int) -> Replay:
    found = rows.find_replay(session, replay_id)
    if found is None or found.connector_key != call.connector.key:
        raise not_found("There is no such replay of this connector.", "Go back to the list of replays.")
    return found
