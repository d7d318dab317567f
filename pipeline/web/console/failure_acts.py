"""Forms that replay failures, correct a payload first, or discard them. Each first shows how many failures it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

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
from pipeline.operations.errors import OperationError
from pipeline.operations.failures import discard_failures, groups_of, title_of, try_payload
from pipeline.operations.replay_preview import sum_of
from pipeline.operations.replays import begin_replay, replay_edited
from pipeline.web.console import guard
from pipeline.web.console.calls import perform, sentence_of
from pipeline.web.console.failure_choice import FailureChoice, NotAFilter, read_choice
from pipeline.web.console.failures import forget_lists, get_failure
from pipeline.web.console.frame import done, page
from pipeline.web.console.guard import Pages

PACES = (1, 5, 10, 50, 200)
"""Items a second that are offered."""
LONGEST_WHY = 500


def add(pages: Pages) -> None:
    pages.page("/c/<name>/failures/replay", confirm_replay, needs=Role.OPERATOR)
    pages.action("/c/<name>/failures/replay", start_replay)
    pages.page("/c/<name>/failures/discard", confirm_discard, needs=Role.OPERATOR)
    pages.action("/c/<name>/failures/discard", discard)
    pages.page("/c/<name>/failures/<int:failure_id>/edit", show_edit, needs=Role.OPERATOR)
    pages.action("/c/<name>/failures/<int:failure_id>/edit", send_edited)


def confirm_replay(connector: Connector, mistake: str = "", status: int = 200) -> Response:
    """How many, what they would come to, and what it costs; nothing has been done."""
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
    return done(f"{_base(connector)}/replays/{begun.id}", f"Replay {begun.id} has begun.")


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
        return confirm_discard(connector, "Say why: people who look later want to know.", 400)
    try:
        closed = perform(discard_failures, failures=choice.chosen, count=request.form.get("count"), why=why).count
    except OperationError as error:
        return confirm_discard(connector, sentence_of(error), 400)
    forget_lists()
    return done(f"{_base(connector)}/failures", f"{closed:,} discarded: {why}")


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
            return _edit_page(connector, failure, text, changed=tried.differences, verdict=tried.verdict, why=why)
        begun = perform(replay_edited, id=failure_id, payload=payload, why=why or "payload corrected")
    except OperationError as error:
        return _edit_page(connector, failure, text, status=400, mistake=sentence_of(error))
    return done(f"{_base(connector)}/replays/{begun.id}", f"Replay {begun.id} sends the corrected payload.")


def _edit_page(connector: Connector, failure: Failure, text: str, *, status: int = 200, **more: Any) -> Response:
    values = {"mistake": "", "changed": None, "verdict": None, "why": "", **more}
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
        raise guard.missing(
            "This payload cannot be corrected here.",
            "Correct the record in Pipedrive, then replay: it is read again from there."
            if incoming
            else "Only open failures of records on their way to Pipedrive have one.",
        )
    return failure


def _choice(connector: Connector) -> FailureChoice:
    try:
        choice = read_choice(connector, request.values)
    except NotAFilter as wrong:
        raise guard.missing(str(wrong), "Go back to the list of failures.") from None
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


def _base(connector: Connector) -> str:
    return f"/c/{quote(connector.name, safe='')}"
