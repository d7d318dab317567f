"""Jobs as people look at them: what each is for, how far it is, what a person may do with it, and where its result is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from db import job as rows
from db import log_export, plan, replay
from db.job import Job
from pipeline.domain.reasons import advice_of, meaning_of
from pipeline.errors import Rejected
from pipeline.jobs import actions
from pipeline.jobs.sends import handed_over
from pipeline.jobs.verify import verify
from pipeline.sync.job_queue import EXPORT, LOG_EXPORT, PLAN, REPLAY, SEND, SETTINGS_SYNC, STATUS, VERIFY

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
"""Kinds of jobs that a connector has → their names. The creation of a connector is the job of none."""
ROUTINE: Final = STATUS
"""Hull requests it every few minutes: jobs of this kind that are done are listed only by their kind."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """`done` of `of` units; `of` is None where it is not known."""

    done: int
    of: int | None
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job.

    kind_name  name of the kind; `title` is what this job is for
    state      `waiting` (for a worker, or until `due_at`), `running`, `paused`, `done`, `failed`, `refused` or `aborted`
    waits_for  what it waits for: a remote system that does not answer, or a limit of calls
    progress   None for a job of one step
    reason     why it failed or was refused, with its `meaning` and the next step as `advice`
    result_id  number of its plan, its replay or its file of the log
    failure_id the open failure of one that failed
    acts       what a person may do: `pause`, `resume`, `abort`
    """

    id: int
    kind: str
    kind_name: str
    title: str
    state: str
    waits_for: str | None
    progress: JobProgress | None
    reason: str | None
    meaning: str
    advice: str
    result_id: int | None
    failure_id: int | None
    acts: tuple[str, ...]
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None


def list_jobs(
    session: Session,
    connector_key: int,
    *,
    kind: str | None = None,
    state: str | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> list[JobView]:
    """Return jobs of a connector, newest first; routine ones that are done only if `kind` names them."""
    found = rows.find_jobs(
        session, connector_key, kind=kind, state=state, routine=ROUTINE, before_id=before_id, limit=limit
    )
    return [_view(session, job, is_running=is_running) for job, is_running in found]


def find_job(session: Session, connector_key: int, job_id: int) -> JobView | None:
    """Return one job of a connector."""
    found = rows.find_job(session, connector_key, job_id)
    return None if found is None else _view(session, found[0], is_running=found[1])


def _view(session: Session, job: Job, *, is_running: bool) -> JobView:
    failure = actions.failure_of(session, job)
    name = KINDS.get(job.kind, job.kind)
    return JobView(
        id=job.id,
        kind=job.kind,
        kind_name=name,
        title=job.title or name,
        state=job.state if job.state != "due" else "running" if is_running else "waiting",
        waits_for=job.waits_for,
        progress=_progress(session, job),
        reason=job.reason,
        meaning=meaning_of(job.reason) if job.reason else "",
        advice=advice_of(job.reason) if job.reason else "",
        result_id=int(job.dedupe_key) if job.kind in (PLAN, REPLAY, LOG_EXPORT) else None,
        failure_id=None if failure is None else failure.id,
        acts=actions.acts_on(session, job),
        created_at=job.created_at,
        due_at=job.due_at,
        ended_at=job.ended_at,
    )


def _progress(session: Session, job: Job) -> JobProgress | None:
    if job.kind not in PROGRESS:
        return None
    with suppress(Rejected):  # another version wrote what is stored of it
        return PROGRESS[job.kind](session, job)
    return None


def _lines(_session: Session, job: Job) -> JobProgress:
    return JobProgress(job.progress, None, "lines")


def _sent(_session: Session, job: Job) -> JobProgress:
    sent, of, _missing = handed_over(job)
    return JobProgress(sent, of, "records")


def _compared(_session: Session, job: Job) -> JobProgress:
    parts = verify.progress_of(job).entities
    is_whole = job.dedupe_key.split(":")[1] == "all"
    expected = sum(max(part.expected, part.compared) for part in parts) if is_whole else None
    return JobProgress(job.progress, expected or None, "records")


def _planned(session: Session, job: Job) -> JobProgress | None:
    found = plan.get_plan(session, int(job.dedupe_key))
    return None if found is None else JobProgress(found.examined, found.known, "records")


def _replayed(session: Session, job: Job) -> JobProgress | None:
    found = replay.find_replay(session, int(job.dedupe_key))
    if found is None:
        return None
    counts = replay.item_counts(session, [found.id])[found.id]
    return JobProgress(sum(counts.get(state, 0) for state in replay.OUTCOMES), found.total, "failures")


def _written(session: Session, job: Job) -> JobProgress | None:
    found = log_export.find_export(session, job.connector_key or 0, int(job.dedupe_key))
    return None if found is None else JobProgress(found.events, None, "events")


PROGRESS: Final[Mapping[str, Callable[[Session, Job], JobProgress | None]]] = {
    EXPORT: _lines,
    SEND: _sent,
    VERIFY: _compared,
    PLAN: _planned,
    REPLAY: _replayed,
    LOG_EXPORT: _written,
}
