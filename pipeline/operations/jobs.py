"""Jobs such as exports, sends, comparisons, plans and replays, with their progress. Pause, resume and abort them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import job as rows
from db import log_export, plan, replay
from db.job import Job
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.domain.reasons import advice_of, meaning_of
from pipeline.errors import Rejected
from pipeline.jobs import runtime, sends
from pipeline.jobs.verify import verify
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError, conflict, not_found
from pipeline.operations.models import ConnectorRequest, Done, PageRequest, RowRequest, Shape
from pipeline.operations.registry import operation
from pipeline.sync.job_queue import EXPORT, LOG_EXPORT, PLAN, REPLAY, SEND, SETTINGS_SYNC, STATUS, VERIFY

PATH: Final = "/connectors/<connector>/jobs"
KINDS: Final[Mapping[str, str]] = {
    SETTINGS_SYNC: "Settings from Hull",
    EXPORT: "Export of Hull",
    STATUS: "Status to Hull",
    SEND: "Send to Pipedrive",
    VERIFY: "Comparison",
    PLAN: "Plan of settings",
    REPLAY: "Replay of failures",
    LOG_EXPORT: "Log as a file",
}
"""Kinds of jobs that belong to a connector → their names."""
ROUTINE: Final = STATUS
"""Hull requests it every few minutes: done jobs of this kind are listed only if `kind` names it."""

JobKind = Literal["settings_sync", "export", "status", "send", "verify", "plan", "replay", "log_export"]
JobState = Literal["waiting", "running", "paused", "done", "failed", "refused", "aborted"]


class ProgressShape(Shape):
    """`of` is null where it is not known."""

    done: int
    of: int | None
    unit: str


class JobShape(Shape):
    """One job. `acts` are the actions that are possible now; `result_id` is the number of its plan, replay or file.

    `reason` is why it failed, and `advice` what to do next.
    """

    id: int
    kind: str
    kind_name: str
    title: str
    state: JobState
    waits_for: str | None
    progress: ProgressShape | None
    reason: str | None
    meaning: str
    advice: str
    result_id: int | None
    failure_id: int | None
    acts: list[str]
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None


class JobsAnswer(BaseModel):
    jobs: list[JobShape]


class JobsAsked(PageRequest, ConnectorRequest):
    """Jobs of a connector."""

    kind: Annotated[JobKind | None, Field(description="The kind of job.")] = None
    state: Annotated[JobState | None, Field(description="The state of the job.")] = None


@operation(f"GET {PATH}", role=Role.VIEWER, command="jobs list CONNECTOR", example="acme --state failed")
def list_jobs(call: Call, request: JobsAsked) -> JobsAnswer:
    """List jobs, newest first. Done jobs that write the status to Hull are listed only if `kind` is `status`."""
    with transaction() as session:
        found = rows.find_jobs(
            session,
            call.connector.key,
            kind=request.kind,
            state=request.state,
            routine=ROUTINE,
            before_id=request.before,
            limit=request.limit,
        )
        return JobsAnswer(jobs=[_describe(session, job, is_running=is_running) for job, is_running in found])


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="jobs show CONNECTOR ID", example="acme 12")
def show_job(call: Call, request: RowRequest) -> JobShape:
    """Show one job and its progress."""
    with transaction() as session:
        found = rows.find_job(session, call.connector.key, request.id)
        if found is None:
            raise _no_such(call)
        return _describe(session, found[0], is_running=found[1])


@operation(
    f"POST {PATH}/<id>/pause",
    role=Role.OPERATOR,
    audit_action="job.pause",
    command="jobs pause CONNECTOR ID",
    example="acme 12",
)
def pause_job(call: Call, request: RowRequest) -> Done:
    """Pause a job until it is resumed. The results of its steps are kept; a step that is interrupted is repeated."""
    return _act(call, request, runtime.pause, "paused")


@operation(
    f"POST {PATH}/<id>/resume",
    role=Role.OPERATOR,
    audit_action="job.resume",
    command="jobs resume CONNECTOR ID",
    example="acme 12",
)
def resume_job(call: Call, request: RowRequest) -> Done:
    """Resume a job that was paused or that failed, after its last step."""
    return _act(call, request, partial(runtime.resume, by=call.caller.name), "resumed")


@operation(
    f"POST {PATH}/<id>/abort",
    role=Role.OPERATOR,
    audit_action="job.abort",
    command="jobs abort CONNECTOR ID",
    example="acme 12",
)
def abort_job(call: Call, request: RowRequest) -> Done:
    """Abort a job. The results of its steps are kept; a plan that is being computed is discarded."""
    return _act(call, request, partial(runtime.abort, by=call.caller.name), "aborted")


def _act(call: Call, request: RowRequest, act: Callable[[Session, Job], bool], done: str) -> Done:
    with call.transaction() as session:
        found = rows.find_job(session, call.connector.key, request.id)
        if found is None:
            raise _no_such(call)
        job = found[0]
        call.note(session, f"job {job.id}: {job.title or KINDS.get(job.kind, job.kind)}")
        if not act(session, job):
            session.refresh(job)  # it may have ended or failed while this waited for its lock
            raise _not_possible(call, job, done)
    return Done(done=done)


def _not_possible(call: Call, job: Job, done: str) -> OperationError:
    if job.state in rows.OPEN and not (done == "resumed" or job.state == "paused"):
        message = f"A job of the kind {KINDS.get(job.kind, job.kind)!r} cannot be {done}: it ends by itself."
        return conflict("wrong_kind", message)
    next_step = f"See: pipeline jobs show {call.connector.name} {job.id}"
    return conflict("wrong_state", f"Job {job.id} is {job.state}, so it cannot be {done}.", next_step)


def _no_such(call: Call) -> OperationError:
    return not_found("There is no such job of this connector.", f"See: pipeline jobs list {call.connector.name}")


def _describe(session: Session, job: Job, *, is_running: bool) -> JobShape:
    failure = runtime.failure_of(session, job)
    name = KINDS.get(job.kind, job.kind)
    return JobShape(
        id=job.id,
        kind=job.kind,
        kind_name=name,
        title=job.title or name,
        state=job.state if job.state != "due" else "running" if is_running else "waiting",
        waits_for=job.waits_for,
        progress=_progress(session, job),
        reason=job.reason,
        meaning=meaning_of(job.reason),
        advice=advice_of(job.reason),
        result_id=int(job.dedupe_key) if job.kind in (PLAN, REPLAY, LOG_EXPORT) else None,
        failure_id=None if failure is None else failure.id,
        acts=list(runtime.acts_on(session, job)),
        created_at=job.created_at,
        due_at=job.due_at,
        ended_at=job.ended_at,
    )


def _progress(session: Session, job: Job) -> ProgressShape | None:
    if job.kind not in PROGRESS:
        return None
    with suppress(Rejected):  # another version of this program wrote its checkpoint
        return PROGRESS[job.kind](session, job)
    return None


def _lines(_session: Session, job: Job) -> ProgressShape:
    return ProgressShape(done=job.progress, of=None, unit="lines")


def _sent(_session: Session, job: Job) -> ProgressShape:
    sent, of, _missing = sends.progress_of(job)
    return ProgressShape(done=sent, of=of, unit="records")


def _compared(_session: Session, job: Job) -> ProgressShape:
    parts = verify.progress_of(job).entities
    is_whole = job.dedupe_key.split(":")[1] == "all"
    expected = sum(max(part.expected, part.compared) for part in parts) if is_whole else None
    return ProgressShape(done=job.progress, of=expected or None, unit="records")


def _planned(session: Session, job: Job) -> ProgressShape | None:
    found = plan.get_plan(session, int(job.dedupe_key))
    return None if found is None else ProgressShape(done=found.examined, of=found.known, unit="records")


def _replayed(session: Session, job: Job) -> ProgressShape | None:
    found = replay.find_replay(session, int(job.dedupe_key))
    if found is None:
        return None
    counts = replay.item_counts(session, [found.id])[found.id]
    done = sum(counts.get(state, 0) for state in replay.OUTCOMES)
    return ProgressShape(done=done, of=found.total, unit="failures")


def _written(session: Session, job: Job) -> ProgressShape | None:
    found = log_export.find_export(session, job.connector_key or 0, int(job.dedupe_key))
    return None if found is None else ProgressShape(done=found.events, of=None, unit="events")


PROGRESS: Final[Mapping[str, Callable[[Session, Job], ProgressShape | None]]] = {
    EXPORT: _lines,
    SEND: _sent,
    VERIFY: _compared,
    PLAN: _planned,
    REPLAY: _replayed,
    LOG_EXPORT: _written,
}
