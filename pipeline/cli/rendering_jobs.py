"""What the commands of jobs print for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import moment, say, table
from pipeline.operations import jobs
from pipeline.operations.jobs import JobsAnswer, JobsAsked, JobShape
from pipeline.operations.models import Done, RowRequest
from pipeline.operations.registry import Operation


def _list(_request: JobsAsked, answer: JobsAnswer) -> None:
    table(
        "",
        ("job", "kind", "for", "state", "progress", "since (UTC)", "reason"),
        [(j.id, j.kind, j.title, j.state, _progress(j), j.created_at, j.reason) for j in answer.jobs],
        empty="No such job.",
    )


def _progress(job: JobShape) -> str:
    if job.progress is None:
        return ""
    of = "" if job.progress.of is None else f" of {job.progress.of:,}"
    return f"{job.progress.done:,}{of} {job.progress.unit}"


def _show(request: RowRequest, job: JobShape) -> None:
    say(f"Job {job.id}, {job.kind_name}: {job.title}")
    say(f"  {job.state} {_progress(job)}".rstrip())
    ended = f", ended {moment(job.ended_at)}" if job.ended_at else ""
    say(f"  since {moment(job.created_at)}{ended} UTC")
    if job.state == "waiting" and job.waits_for:
        say(f"  it waits for {job.waits_for} until {moment(job.due_at)} UTC")
    if job.reason:
        say(f"  {job.reason}: {job.meaning}")
        say(f"  Next: {job.advice}")
    for act in job.acts:
        say(f"  pipeline jobs {act} {request.connector} {job.id}")


def _moved(request: RowRequest, answer: Done) -> None:
    say(f"Job {request.id} is {answer.done}.")


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    jobs.abort_job: Presentation(show=_moved),
    jobs.list_jobs: Presentation(show=_list),
    jobs.pause_job: Presentation(show=_moved),
    jobs.resume_job: Presentation(show=_moved),
    jobs.show_job: Presentation(show=_show),
}
