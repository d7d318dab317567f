"""`/c/<name>/runs`: current and past fetches, each with its walks, batches and failures; and one batch."""

from __future__ import annotations

from typing import Final

from flask import request
from werkzeug.wrappers import Response

from db import run as rows
from db.connector import Connector
from db.session import transaction
from db.token_ledger import moment
from pipeline.operations import run_progress
from pipeline.operations import runs as operations
from pipeline.operations.cached_answers import Shared
from pipeline.operations.errors import OperationError
from pipeline.operations.runs import BatchAnswer, RunDetailsAnswer
from pipeline.web import auth
from pipeline.web.console import overview
from pipeline.web.console.layout import before_id, done, page, query_choice, split_page
from pipeline.web.console.pages import Pages, perform
from pipeline.web.console.workers import TASK_AT

PAGE: Final = 50
CHOICES: Final = {
    "entity": ("person", "organization"),
    "kind": ("full", "incremental", "backfill"),
    "state": ("running", "done", "stopped", "cancelled"),
}
STATES: Final = ("waiting", "ready", "running", "done", "failed", "cancelled")
"""States of batches."""
STAGES: Final = ("extract", "transform", "load")
Key = tuple[int, int, str | None, int | None]


def add(pages: Pages) -> None:
    pages.page("/c/<name>/runs", list_runs)
    pages.page("/c/<name>/runs/<int:run_id>", show_run)
    pages.action("/c/<name>/runs/<int:run_id>/cancel", cancel)
    pages.page("/c/<name>/batches/<int:batch_id>", show_batch)


def list_runs(connector: Connector) -> Response:
    chosen = {name: query_choice(name, values) for name, values in CHOICES.items()}
    before = before_id()
    with transaction() as session:
        found = rows.find_runs(session, connector.key, before=before, limit=PAGE + 1, **chosen)
        running = len(rows.runs_in_state(session, connector.key, "running"))
        now = moment(session)
    shown, more = split_page(found, PAGE)
    runs = [run_progress.describe_run(run, now) for run in shown]
    return page(
        "runs.html",
        connector=connector,
        tab="runs",
        runs=runs,
        more=more,
        sentence=_sentence(running),
        running=running,
        choices=CHOICES,
        chosen=chosen,
    )


def show_run(connector: Connector, run_id: int) -> Response:
    state = request.args.get("state")
    story = _story((connector.key, run_id, state if state in STATES else None, before_id()))
    return page("run.html", connector=connector, tab="runs", story=story, run=story.run, flower=TASK_AT, state=state)


def cancel(_connector: Connector, run_id: int) -> Response:
    try:
        perform(operations.cancel_run, id=run_id)
        notice = f"Run {run_id} was cancelled. Delivered records stay."
    except OperationError as error:
        if error.code != "run_ended":
            raise auth.refusal("run", error.message, "Choose a run from the list.", error.status) from None
        notice = "The run had already ended."
    _story.forget()
    overview.forget_overview()
    return done(request.path.removesuffix("/cancel"), notice)


def show_batch(connector: Connector, batch_id: int) -> Response:
    story = _batch((connector.key, batch_id))
    at = STAGES.index(story.batch.stage)
    stages = [(name, "done" if n < at else story.batch.state if n == at else "none") for n, name in enumerate(STAGES)]
    return page("batch.html", connector=connector, tab="runs", story=story, stages=stages, flower=TASK_AT)


def _sentence(running: int) -> str:
    if not running:
        return "No fetch is running."
    return "One fetch is running." if running == 1 else f"{running} fetches are running."


def _read_run(key: Key) -> RunDetailsAnswer:
    _, run_id, state, before = key
    return perform(operations.show_run_details, id=run_id, state=state, before=before)


def _read_batch(key: tuple[int, int]) -> BatchAnswer:
    return perform(operations.show_batch, id=key[1])


_story = Shared(_read_run)
_batch = Shared(_read_batch)
"""The keys of both begin with the connector's key."""
