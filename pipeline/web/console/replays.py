"""`/c/<name>/replays`: what was set going again, how far it is, and what became of every item."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from flask import request
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from db import replay as rows
from db.connector import Connector
from db.session import transaction
from pipeline.operations.cached_answers import Shared
from pipeline.operations.errors import OperationError
from pipeline.operations.replays import (
    WORDS,
    ReplayShape,
    abort_replay,
    describe_items,
    describe_replays,
    pause_replay,
    resume_replay,
)
from pipeline.web.console import guard
from pipeline.web.console.calls import perform
from pipeline.web.console.flower import task_url
from pipeline.web.console.frame import before_id, done, page, took
from pipeline.web.console.guard import Pages

PAGE = 50
MARKS = {
    "waiting": "waiting",
    "sent": "running",
    "came_through": "success",
    "already_applied": "success",
    "superseded": "skip",
    "skipped": "skip",
    "failed_again": "error",
    "refused": "error",
    "aborted": "skip",
}
"""State of an item → the state with the same icon and colour."""


ACTS: Final = {
    "pause": (pause_replay, "Paused: items already sent continue, no more are sent."),
    "resume": (resume_replay, "Resumed."),
    "abort": (abort_replay, "It is aborted: what was not sent stays open."),
}
"""Actions on a replay, and the message of the page afterwards."""


def add(pages: Pages) -> None:
    pages.page("/c/<name>/replays", show_replays)
    pages.page("/c/<name>/replays/<int:replay_id>", show_replay)
    pages.action("/c/<name>/replays/<int:replay_id>/<act>", act_on)


def show_replays(connector: Connector) -> Response:
    before = before_id()
    with transaction() as session:
        found = rows.latest_replays(session, connector.key, before_id=before, limit=PAGE + 1)
        shown = describe_replays(session, found[:PAGE])
    more = shown[-1].id if len(found) > PAGE else None
    return page("replays.html", connector=connector, tab="failures", replays=shown, more=more, sentence=_of_all(shown))


def show_replay(connector: Connector, replay_id: int) -> Response:
    progress = _progress(replay_id)
    if progress is None or progress.connector_key != connector.key:
        raise _no_such(connector, replay_id)
    state = request.args.get("state") or None
    after = before_id("after")
    with transaction() as session:
        found = describe_items(session, replay_id, state=state, after_id=after, limit=PAGE + 1)
    return page(
        "replay.html",
        connector=connector,
        tab="failures",
        replay=progress,
        items=found[:PAGE],
        more=found[PAGE - 1].id if len(found) > PAGE else None,
        state=state,
        words=WORDS,
        marks=MARKS,
        sentence=_of_one(progress),
        task_url=task_url,
    )


def act_on(connector: Connector, replay_id: int, act: str) -> Response:
    """Pause, resume or abort."""
    if act not in ACTS:
        raise _no_such(connector, replay_id)
    declared, said = ACTS[act]
    try:
        perform(declared, id=replay_id)
    except OperationError as error:
        if error.status is HTTPStatus.NOT_FOUND:
            raise _no_such(connector, replay_id) from None
        said = "Nothing was changed: it was not in a state for that any more."
    _progress.forget()
    return done(f"/c/{quote(connector.name, safe='')}/replays/{replay_id}", said)


def _no_such(connector: Connector, replay_id: int) -> guard.Refused:
    return guard.missing(f"There is no replay {replay_id} of {connector.name}.", "Go back to the list of replays.")


def _read(replay_id: int) -> ReplayShape | None:
    with transaction() as session:
        return _one(session, replay_id)


def _one(session: Session, replay_id: int) -> ReplayShape | None:
    found = rows.find_replay(session, replay_id)
    return describe_replays(session, [found])[0] if found is not None else None


_progress = Shared(_read)


def _of_one(progress: ReplayShape) -> str:
    """The answer: how far it is, and how it will end."""
    if progress.state == "stopped":
        return f"Stopped: {progress.meaning} {progress.waiting:,} of {progress.total:,} wait."
    if progress.is_over:
        return progress.summary
    done_so_far = f"{progress.settled:,} of {progress.total:,} have their outcome"
    if progress.state == "paused":
        return f"Paused by a person: {done_so_far}, {progress.waiting:,} wait."
    if progress.waiting:
        return f"In flight: {done_so_far}, the rest is sent in {took(progress.left_s)}."
    return f"All is sent: {done_so_far}."


def _of_all(shown: list[ReplayShape]) -> str:
    open_ones = sum(not each.is_over for each in shown)
    stopped = sum(each.state == "stopped" for each in shown)
    if not shown:
        return "Nothing has been replayed yet."
    under_way = f"{open_ones} in flight." if open_ones else "No replay is in flight."
    if not stopped:
        return under_way
    return f"{under_way} {stopped} stopped by {'itself' if stopped == 1 else 'themselves'}."
