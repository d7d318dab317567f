"""Replays: replay or discard failures, correct a payload, and show the progress of each replay.

Each form first shows the number of failures that it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from flask import request
from werkzeug.wrappers import Response

from db import failure_filter
from db.connector import Connector
from db.failure import OF_RECORDS, Failure
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.jobs.replays import start
from pipeline.jobs.replays.preview_records import ReplayEffect
from pipeline.operations import edited_payloads
from pipeline.operations import replays as operations
from pipeline.operations.cached_answers import Shared
from pipeline.operations.errors import OperationError
from pipeline.operations.failures import discard_failures, groups_of, title_of, try_payload
from pipeline.operations.replay_preview import sum_of
from pipeline.operations.replays import (
    WORDS,
    ReplayShape,
    abort_replay,
    begin_replay,
    list_replay_items,
    list_replays,
    pause_replay,
    replay_edited,
    resume_replay,
)
from pipeline.web import auth
from pipeline.web.console.failures import FailureChoice, InvalidFilter, forget_lists, get_failure, read_choice
from pipeline.web.console.layout import before_id, connector_path, done, page, plural, query_choice, split_page, took
from pipeline.web.console.pages import Pages, perform, sentence_of
from pipeline.web.console.workers import task_url

PAGE = 50
PACES = (1, 5, 10, 50, 200)
"""Choices of items per second."""
LONGEST_WHY = 500
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
    "abort": (abort_replay, "Aborted: failures that were not sent stay open."),
}
"""Actions on a replay, and the message of the page afterwards."""


def add(pages: Pages) -> None:
    pages.page("/c/<name>/replays", show_replays)
    pages.page("/c/<name>/replays/<int:replay_id>", show_replay)
    pages.action("/c/<name>/replays/<int:replay_id>/<act>", act_on)
    pages.page("/c/<name>/failures/replay", confirm_replay, needs=Role.OPERATOR)
    pages.action("/c/<name>/failures/replay", start_replay)
    pages.page("/c/<name>/failures/discard", confirm_discard, needs=Role.OPERATOR)
    pages.action("/c/<name>/failures/discard", discard)
    pages.page("/c/<name>/failures/<int:failure_id>/edit", show_edit, needs=Role.OPERATOR)
    pages.action("/c/<name>/failures/<int:failure_id>/edit", send_edited)


def show_replays(connector: Connector) -> Response:
    shown, more = split_page(perform(list_replays, before=before_id(), limit=PAGE + 1).replays, PAGE)
    return page("replays.html", connector=connector, tab="failures", replays=shown, more=more, sentence=_summary(shown))


def show_replay(connector: Connector, replay_id: int) -> Response:
    try:
        progress = _progress((connector.key, replay_id))
    except OperationError:
        raise _no_such(connector, replay_id) from None
    state = query_choice("state", WORDS)
    found = perform(list_replay_items, id=replay_id, state=state, after=before_id("after"), limit=PAGE + 1).items
    shown, more = split_page(found, PAGE)
    return page(
        "replay.html",
        connector=connector,
        tab="failures",
        replay=progress,
        items=shown,
        more=more,
        state=state,
        words=WORDS,
        marks=MARKS,
        sentence=_progress_text(progress),
        task_url=task_url,
    )


def act_on(connector: Connector, replay_id: int, act: str) -> Response:
    """Pause, resume or abort."""
    if act not in ACTS:
        raise _no_such(connector, replay_id)
    declared, notice = ACTS[act]
    try:
        perform(declared, id=replay_id)
    except OperationError as error:
        if error.status is HTTPStatus.NOT_FOUND:
            raise _no_such(connector, replay_id) from None
        notice = "Nothing was changed: the replay is in another state now."
    _progress.forget()
    return done(connector_path(connector, f"replays/{replay_id}"), notice)


def confirm_replay(connector: Connector, mistake: str = "", status: int = 200) -> Response:
    """Show the number of failures, the preview and the cost; nothing is done."""
    choice = _choice(connector)
    with transaction() as session:
        total = sum_of(session, choice.filter)
    return page(
        "failure_replay.html",
        connector=connector,
        tab="failures",
        status=status,
        mistake=mistake,
        choice=choice,
        sum=total,
        paces=PACES,
        pace=_pace(request.form.get("per_second", "")),
        kinds=ReplayEffect,
        why=request.form.get("why", ""),
    )


def start_replay(connector: Connector) -> Response:
    """Start the confirmed replay, unless there are more failures by now: then show the page again."""
    choice, form = _choice(connector), request.form
    why, pace = _why() or "console", _pace(form.get("per_second", ""))
    try:
        begun = perform(begin_replay, failures=choice.chosen, count=form.get("count"), why=why, per_second=pace)
    except OperationError as error:
        return confirm_replay(connector, sentence_of(error), 400)
    return done(connector_path(connector, f"replays/{begun.id}"), f"Replay {begun.id} has started.")


def confirm_discard(connector: Connector, mistake: str = "", status: int = 200) -> Response:
    choice = _choice(connector)
    with transaction() as session:
        count = failure_filter.count_failures(session, choice.filter)
        groups = groups_of(session, choice.filter, limit=10)
    return page(
        "failure_discard.html",
        connector=connector,
        tab="failures",
        status=status,
        mistake=mistake,
        choice=choice,
        count=count,
        groups=groups,
        why=request.form.get("why", ""),
    )


def discard(connector: Connector) -> Response:
    """Discard the selected failures, unless there are more than the page showed: then show the page again."""
    choice, why = _choice(connector), _why()
    if not why:
        return confirm_discard(connector, "Give a reason: it is kept in the audit log.", 400)
    try:
        closed = perform(discard_failures, failures=choice.chosen, count=request.form.get("count"), why=why).count
    except OperationError as error:
        return confirm_discard(connector, sentence_of(error), 400)
    forget_lists()
    return done(connector_path(connector, "failures"), f"{plural(closed, 'failure')} discarded: {why}")


def show_edit(connector: Connector, failure_id: int) -> Response:
    with transaction() as session:
        failure = _editable(session, connector, failure_id)
    return _edit_page(connector, failure, edited_payloads.text_of(failure))


def send_edited(connector: Connector, failure_id: int) -> Response:
    """First show the difference and the preview; then, with the second button, replay."""
    text, why = request.form.get("payload", "").replace("\r\n", "\n"), _why()
    with transaction() as session:
        failure = _editable(session, connector, failure_id)
    try:
        payload = edited_payloads.parse_edited(text, failure)
        if request.form.get("step") != "send":
            tried = perform(try_payload, id=failure_id, payload=payload)
            return _edit_page(connector, failure, text, changed=tried.differences, preview=tried.preview, why=why)
        begun = perform(replay_edited, id=failure_id, payload=payload, why=why or "payload corrected")
    except OperationError as error:
        return _edit_page(connector, failure, text, status=400, mistake=sentence_of(error))
    return done(connector_path(connector, f"replays/{begun.id}"), f"Replay {begun.id} sends the corrected payload.")


def _no_such(connector: Connector, replay_id: int) -> auth.Refused:
    return auth.missing(f"There is no replay {replay_id} of {connector.name}.", "Go back to the list of replays.")


def _read(key: tuple[int, int]) -> ReplayShape:
    return perform(operations.show_replay, id=key[1])


_progress = Shared(_read)
"""Key of the connector and id → the replay."""


def _progress_text(progress: ReplayShape) -> str:
    if progress.state == "stopped":
        return f"Stopped: {progress.meaning} {progress.waiting:,} of {progress.total:,} items are waiting."
    if progress.is_over:
        return progress.summary
    finished = f"{progress.finished:,} of {progress.total:,} items are finished"
    if progress.state == "paused":
        return f"Paused by an operator: {finished}, {progress.waiting:,} are waiting."
    if progress.waiting:
        return f"Running: {finished}; the rest is sent within {took(progress.left_s)}."
    return f"All items are sent: {finished}."


def _summary(shown: Sequence[ReplayShape]) -> str:
    if not shown:
        return "There are no replays yet."
    open_ones, stopped = sum(not each.is_over for each in shown), sum(each.state == "stopped" for each in shown)
    unfinished = (
        f"{plural(open_ones, 'replay')} {'is' if open_ones == 1 else 'are'} not finished."
        if open_ones
        else "All replays are finished."
    )
    return f"{unfinished} {plural(stopped, 'replay')} stopped because of an error." if stopped else unfinished


def _edit_page(connector: Connector, failure: Failure, text: str, *, status: int = 200, **more: Any) -> Response:
    values = {"mistake": "", "changed": None, "preview": None, "why": "", **more}
    return page(
        "failure_edit.html",
        connector=connector,
        tab="failures",
        status=status,
        failure=failure,
        title=title_of(failure),
        text=text,
        **values,
    )


def _editable(session: Any, connector: Connector, failure_id: int) -> Failure:
    failure = get_failure(session, connector, failure_id)
    if not edited_payloads.is_editable(failure):
        incoming = failure.kind in OF_RECORDS and failure.direction == "incoming"
        raise auth.missing(
            "This payload cannot be corrected here.",
            "Correct the record in Pipedrive, then replay the failure: the replay reads the record again."
            if incoming
            else "Only open failures of outgoing records have a payload to correct.",
        )
    return failure


def _choice(connector: Connector) -> FailureChoice:
    try:
        choice = read_choice(connector, request.values)
    except InvalidFilter as wrong:
        raise auth.missing(str(wrong), "Go back to the list of failures.") from None
    return replace(choice, filter=choice.chosen.filter(connector.key))


def _why() -> str:
    return request.form.get("why", "").strip()[:LONGEST_WHY]


def _pace(given: str) -> float:
    try:
        pace = float(given)
    except ValueError:
        return start.PER_SECOND
    is_usable = start.SLOWEST <= pace <= start.FASTEST
    return pace if is_usable else start.PER_SECOND
