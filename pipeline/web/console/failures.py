"""`/c/<name>/failures`: failures grouped by cause; one cause; one failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flask import request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from db import failure_filter
from db.connector import Connector
from db.failure import OF_RECORDS, Failure
from db.failure_filter import FailureFilter
from db.session import transaction
from pipeline.domain.kinds import Direction, Entity
from pipeline.jobs.replays.preview import preview_failures
from pipeline.jobs.replays.preview_records import ReplayEffect
from pipeline.operations.cached_answers import Shared
from pipeline.operations.failures import (
    DAYS,
    FailureShape,
    GroupShape,
    describe_failure,
    find_failure,
    groups_of,
    title_of,
)
from pipeline.operations.replay_preview import sum_of
from pipeline.operations.replays import WORDS
from pipeline.web.console import guard
from pipeline.web.console.failure_choice import SPANS, FailureChoice, NotAFilter, read_choice
from pipeline.web.console.flower import task_url
from pipeline.web.console.frame import before_id, forget_open, page, plural
from pipeline.web.console.guard import Pages

TAB = ("failures", "Failures")
PAGE = 50
GROUPS = 100
SAMPLE = 200
"""Maximum of failures of a group for which the page previews a replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureList:
    """What the list shows of one filter, with the choices there are."""

    groups: Sequence[GroupShape]
    total: int
    last: Failure | None
    reasons: Sequence[str]
    fields: Sequence[str]
    versions: Sequence[int]


def add(pages: Pages) -> None:
    pages.page("/c/<name>/failures", show_groups)
    pages.page("/c/<name>/failures/group/<fingerprint>", show_group)
    pages.page("/c/<name>/failures/<int:failure_id>", show_failure)


def show_groups(connector: Connector) -> Response:
    """What failed, by cause, those first that hold most."""
    mistake = ""
    try:
        choice = read_choice(connector, request.args)
    except NotAFilter as wrong:
        choice, mistake = read_choice(connector, MultiDict()), str(wrong)
    listed = _listed(choice.filter)
    return page(
        "failures.html",
        connector=connector,
        tab="failures",
        status=400 if mistake else 200,
        mistake=mistake,
        choice=choice,
        listed=listed,
        sentence=_sentence(listed, choice),
        spans=SPANS,
        points=points,
        days=DAYS,
        twice=lambda values: [(each, each) for each in values],
    )


def show_group(connector: Connector, fingerprint: str) -> Response:
    """The failures of one cause, with what replaying them would come to."""
    before = before_id()
    try:
        choice = read_choice(connector, request.args, fingerprint=fingerprint)
    except NotAFilter as wrong:
        raise guard.missing(str(wrong), "Go back to the list of failures.") from None
    with transaction() as session:
        found = failure_filter.page_of_failures(session, choice.filter, before_id=before, limit=PAGE + 1)
        groups = groups_of(session, choice.filter, limit=1)
        latest = groups or groups_of(
            session, FailureFilter(connector_key=connector.key, fingerprint=fingerprint, state=None), limit=1
        )
        if not latest:
            raise guard.missing("There is no such group of failures.", "It may have been another connector's.")
        shown = found[:PAGE]
        each_verdict = preview_failures(session, shown)
        total = sum_of(session, choice.filter, sample=SAMPLE) if choice.filter.state == "open" else None
    return page(
        "failure_group.html",
        connector=connector,
        tab="failures",
        group=latest[0],
        count=groups[0].count if groups else 0,
        rows=shown,
        verdicts=each_verdict,
        sum=total,
        choice=choice,
        title_of=title_of,
        more=shown[-1].id if len(found) > PAGE else None,
        kinds=ReplayEffect,
        points=points,
    )


def show_failure(connector: Connector, failure_id: int) -> Response:
    """Show one failure with its advice and all details."""
    with transaction() as session:
        whole = describe_failure(session, get_failure(session, connector, failure_id))
    return page(
        "failure.html",
        connector=connector,
        tab="failures",
        whole=whole,
        failure=whole.failure,
        record_path=record_path(connector, whole.failure),
        task_url=task_url(whole.task_id),
        item_words=WORDS,
    )


def get_failure(session: Any, connector: Connector, failure_id: int) -> Failure:
    """Raises: Refused, 404, also for another connector's."""
    found = find_failure(session, connector.key, failure_id)
    if found is None:
        raise guard.missing(
            f"There is no failure {failure_id} of {connector.name}.", "Go back to the list of failures."
        )
    return found


def record_path(connector: Connector, failure: FailureShape) -> str | None:
    """The page of the failure's record."""
    if failure.kind not in OF_RECORDS or failure.record_id is None:
        return None
    way = "hull/" if failure.direction == Direction.OUTGOING else ""
    name = f"{way}{quote(failure.record_id, safe='')}"
    return f"/c/{quote(connector.name, safe='')}/records/{Entity(failure.entity)}/{name}"


def points(values: Sequence[int], width: int = 96, height: int = 20) -> str:
    """Return a line through these values for `<polyline>`: it begins at zero, and the last value is at its right end."""
    top, step = max(*values, 1), (width - 2) / max(1, len(values) - 1)
    return " ".join(
        f"{1 + position * step:.1f},{height - 2 - value / top * (height - 4):.1f}"
        for position, value in enumerate(values)
    )


def _read(chosen: FailureFilter) -> FailureList:
    with transaction() as session:
        groups = groups_of(session, chosen, limit=GROUPS)
        anything = FailureFilter(connector_key=chosen.connector_key, state=None)
        last = failure_filter.page_of_failures(session, anything, limit=1)
        causes = failure_filter.causes_of(session, chosen.connector_key or 0, chosen.state)
        return FailureList(
            groups=groups,
            total=sum(each.count for each in groups)
            if len(groups) < GROUPS
            else failure_filter.count_failures(session, chosen),
            last=last[0] if last else None,
            reasons=sorted({reason for reason, _, _ in causes}),
            fields=sorted({field for _, field, _ in causes if field is not None}),
            versions=sorted({version for _, _, version in causes if version is not None}),
        )


_listed = Shared(_read)


def forget_lists() -> None:
    """Redirect to the failures after an action."""
    _listed.forget()
    forget_open()


def _sentence(listed: FailureList, choice: FailureChoice) -> str:
    state = choice.filter.state
    kind = {"open": "open", "replayed": "replayed", "discarded": "discarded"}.get(state or "", "")
    if not listed.total:
        words = f" ({choice.words})" if choice.words else ""
        return f"No {kind} failure{words}.".replace("  ", " ")
    causes = plural(len(listed.groups), "cause")
    what = plural(listed.total, f"{kind} failure".strip())
    return f"{what} of {causes}." if state != "open" else f"{what} of {causes} wait for a person."
