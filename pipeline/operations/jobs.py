"""Jobs: long work such as exports, sends, comparisons, plans and replays; how far each is; pause, resume and abort it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final, Literal

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import job as rows
from db.job import Job
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.insight import jobs as insight
from pipeline.jobs import actions
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError, conflict, not_found
from pipeline.operations.models import ConnectorRequest, Done, Listed, RowRequest, Shape
from pipeline.operations.registry import operation

PATH: Final = "/connectors/<connector>/jobs"
JobKind = Literal["settings_sync", "export", "status", "send", "verify", "plan", "replay", "log_export"]
JobState = Literal["waiting", "running", "paused", "done", "failed", "refused", "aborted"]


class ProgressShape(Shape):
    """`of` is null where it is not known."""

    done: int
    of: int | None
    unit: str


class JobShape(Shape):
    """One job: `title` is what it is for, `acts` what may be done with it now.

    One that failed says why by its `reason`, and the next step by `advice`. `result_id` is the number of its plan, replay or file.
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


class JobsAsked(Listed, ConnectorRequest):
    """Jobs of a connector."""

    kind: JobKind | None = None
    state: JobState | None = None


@operation(f"GET {PATH}", role=Role.VIEWER, command="jobs list CONNECTOR", example="acme --state failed")
def list_jobs(call: Call, request: JobsAsked) -> JobsAnswer:
    """List jobs, newest first. Writing the status to Hull is routine: such jobs that are done are listed only by their kind."""
    with transaction() as session:
        found = insight.list_jobs(
            session,
            call.connector.key,
            kind=request.kind,
            state=request.state,
            before_id=request.before,
            limit=request.limit,
        )
    return JobsAnswer(jobs=[JobShape.model_validate(each) for each in found])


@operation(f"GET {PATH}/<id>", role=Role.VIEWER, command="jobs show CONNECTOR ID", example="acme 12")
def show_job(call: Call, request: RowRequest) -> JobShape:
    """Show one job, and how far it is."""
    with transaction() as session:
        found = insight.find_job(session, call.connector.key, request.id)
    if found is None:
        raise _no_such(call)
    return JobShape.model_validate(found)


@operation(
    f"POST {PATH}/<id>/pause",
    role=Role.OPERATOR,
    audit_action="job.pause",
    command="jobs pause CONNECTOR ID",
    example="acme 12",
)
def pause_job(call: Call, request: RowRequest) -> Done:
    """Have no worker run a job until it is resumed. What its steps wrote stays, and the step that runs now is repeated later."""
    return _act(call, request, actions.pause, "paused")


@operation(
    f"POST {PATH}/<id>/resume",
    role=Role.OPERATOR,
    audit_action="job.resume",
    command="jobs resume CONNECTOR ID",
    example="acme 12",
)
def resume_job(call: Call, request: RowRequest) -> Done:
    """Continue a job that was paused, or that failed: behind its last step."""
    return _act(call, request, partial(actions.resume, by=call.caller.name), "resumed")


@operation(
    f"POST {PATH}/<id>/abort",
    role=Role.OPERATOR,
    audit_action="job.abort",
    command="jobs abort CONNECTOR ID",
    example="acme 12",
)
def abort_job(call: Call, request: RowRequest) -> Done:
    """End a job before its end. What its steps wrote stays; a plan that is being computed is discarded."""
    return _act(call, request, partial(actions.abort, by=call.caller.name), "aborted")


def _act(call: Call, request: RowRequest, act: Callable[[Session, Job], bool], done: str) -> Done:
    with call.transaction() as session:
        found = rows.find_job(session, call.connector.key, request.id)
        if found is None:
            raise _no_such(call)
        job = found[0]
        call.note(session, f"job {job.id}: {job.title or insight.KINDS.get(job.kind, job.kind)}")
        if not act(session, job):
            raise _not_possible(call, job, done)
    return Done(done=done)


def _not_possible(call: Call, job: Job, done: str) -> OperationError:
    if job.kind == "replay" and job.state in rows.OPEN:
        message = f"Job {job.id} is a replay, which is {done} as a replay."
        return conflict(
            "wrong_kind", message, f"See: pipeline failures replays --help; its number is {job.dedupe_key}."
        )
    if job.state in rows.OPEN and not (done == "resumed" or job.state == "paused"):
        message = f"A job of the kind {insight.KINDS.get(job.kind, job.kind)!r} cannot be {done}: it ends by itself."
        return conflict("wrong_kind", message)
    next_step = f"See: pipeline jobs show {call.connector.name} {job.id}"
    return conflict("wrong_state", f"Job {job.id} is {job.state}, so it cannot be {done}.", next_step)


def _no_such(call: Call) -> OperationError:
    return not_found("There is no such job of this connector.", f"See: pipeline jobs list {call.connector.name}")
