"""`/c/<name>/jobs`: jobs such as exports, comparisons, plans and replays, with their progress. Pause, resume and abort them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, get_args

from werkzeug.wrappers import Response

from db import job as rows
from db.connector import Connector
from db.session import transaction
from pipeline.operations import jobs as operations
from pipeline.operations.cached_answers import forget_all
from pipeline.operations.errors import OperationError
from pipeline.operations.jobs import KINDS, JobShape, JobState
from pipeline.operations.registry import Operation
from pipeline.web import auth
from pipeline.web.console.layout import (
    before_id,
    connector_path,
    done,
    page,
    plural,
    query_choice,
    split_page,
)
from pipeline.web.console.pages import Pages, perform, sentence_of

PAGE: Final = 50
STATES: Final[tuple[str, ...]] = get_args(JobState)
ACTS: Final[Mapping[str, tuple[str, Operation[Any, Any], str]]] = {
    "pause": ("Pause", operations.pause_job, "is paused: no worker continues it until it is resumed."),
    "resume": ("Resume", operations.resume_job, "continues after its last step."),
    "abort": ("Abort", operations.abort_job, "is aborted; the results of its steps are kept."),
}
"""Action → (its button, its operation, the message of the page afterwards)."""
RESULTS: Final[Mapping[str, tuple[str, str]]] = {
    "settings_sync": ("History of settings", "settings/history"),
    "export": ("Events", "logs?cause=export"),
    "send": ("Sent records", "logs?cause=send"),
    "verify": ("Differences", "actions#verify"),
    "plan": ("Plan", "plans/{}"),
    "replay": ("Replay", "replays/{}"),
    "log_export": ("File", "exports/{}"),
}
"""Kind → (text, address of its result below the connector's)."""


def add(pages: Pages) -> None:
    pages.page("/c/<name>/jobs", list_jobs)
    pages.action("/c/<name>/jobs/<int:job_id>/<act>", act_on)


def list_jobs(connector: Connector) -> Response:
    chosen = {"kind": query_choice("kind", KINDS), "state": query_choice("state", STATES)}
    with transaction() as session:
        in_flight = rows.count_open(session, connector.key)
    shown, more = split_page(perform(operations.list_jobs, before=before_id(), limit=PAGE + 1, **chosen).jobs, PAGE)
    return page(
        "jobs.html",
        connector=connector,
        tab="jobs",
        jobs=shown,
        more=more,
        sentence=f"{plural(in_flight, 'job')} {'is' if in_flight == 1 else 'are'} running."
        if in_flight
        else "No job is running.",
        in_flight=in_flight,
        choices={"kind": dict(KINDS), "state": {each: each for each in STATES}},
        chosen=chosen,
        acts=ACTS,
        result_of=_result_of,
    )


def act_on(connector: Connector, job_id: int, act: str) -> Response:
    """Pause, resume or abort."""
    if act not in ACTS:
        raise auth.missing("There is nothing at this address.", "Choose a job from Jobs.")
    _, declared, message = ACTS[act]
    try:
        perform(declared, id=job_id)
        notice = f"Job {job_id} {message}"
    except OperationError as error:
        if error.status is HTTPStatus.NOT_FOUND:
            raise
        notice = f"Nothing was changed: {sentence_of(error)}"
    forget_all()
    return done(connector_path(connector, "jobs"), notice)


def _result_of(job: JobShape) -> tuple[str, str] | None:
    """Return (text, address below the connector's) of the result of a job; of its failure if it failed."""
    if job.failure_id is not None:
        return f"Failure {job.failure_id}", f"failures/{job.failure_id}"
    if job.kind not in RESULTS:
        return None
    text, where = RESULTS[job.kind]
    return text, where.format(job.result_id)
