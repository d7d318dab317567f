"""`/c/<name>/failures`: failures grouped by cause; one group; one failure. The filter is part of the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from flask import request
from markupsafe import Markup
from pydantic import ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from db import failure_filter
from db.connector import Connector
from db.failure import OF_RECORDS, Failure
from db.failure_filter import FailureFilter
from db.session import transaction
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.times import read_moment
from pipeline.jobs.replays.preview import preview_failures
from pipeline.jobs.replays.preview_records import ReplayEffect
from pipeline.operations.cached_answers import Shared
from pipeline.operations.failures import (
    DAYS,
    FailuresFilter,
    FailureShape,
    GroupShape,
    GroupsRequest,
    describe_failure,
    find_failure,
    groups_of,
    title_of,
)
from pipeline.operations.replay_preview import sum_of
from pipeline.operations.replays import WORDS
from pipeline.web import auth
from pipeline.web.console import charts
from pipeline.web.console.layout import before_id, connector_path, forget_open, page, plural, split_page
from pipeline.web.console.pages import Pages, mistakes_of
from pipeline.web.console.workers import task_url

PAGE = 50
GROUPS = 100
SAMPLE = 200
"""Maximum of failures of a group for which the page previews a replay."""
MOMENTS: Final = ("since", "until")
NAMES: Final = tuple(name for name in GroupsRequest.model_fields if name not in ("connector", "ids"))
SPANS: Final = (("1h", "the last hour"), ("24h", "the last 24 hours"), ("7d", "the last 7 days"))
LABELS: Final[Mapping[str, str]] = {
    "fingerprint": "group",
    "entity": "record type",
    "settings_version": "settings version",
}
"""Part of a filter → its label, if it differs."""


class InvalidFilter(Exception):
    """A part of the filter in the address is invalid; the text names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureChoice:
    """The filter of a page.

    chosen  for operations
    filter  for the database
    given   its parts in the address
    """

    chosen: FailuresFilter
    filter: FailureFilter
    given: Mapping[str, str]

    @property
    def query(self) -> str:
        """The query of the address."""
        return urlencode([*self.given.items(), *(("id", each) for each in self.filter.ids)])

    @property
    def words(self) -> str:
        """The filter as part of a sentence; empty for all open failures."""
        parts = [
            f"{LABELS.get(name, name)} {value.replace('T', ' ')}"
            for name, value in self.given.items()
            if (name, value) != ("state", "open")
        ]
        if self.filter.ids:
            some = self.filter.ids
            parts.append(f"failure {some[0]}" if len(some) == 1 else f"{len(some)} selected failures")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureList:
    """The list of one filter, and the choices of the filter form."""

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
    """Show failures by cause, the largest groups first."""
    mistake = ""
    try:
        choice = read_choice(connector, request.args)
    except InvalidFilter as error:
        choice, mistake = read_choice(connector, MultiDict()), str(error)
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
        spark=_spark,
        days=DAYS,
        twice=lambda values: [(each, each) for each in values],
    )


def show_group(connector: Connector, fingerprint: str) -> Response:
    """Show the failures of one cause, with a preview of their replay."""
    before = before_id()
    try:
        choice = read_choice(connector, request.args, fingerprint=fingerprint)
    except InvalidFilter as error:
        raise auth.missing(str(error), "Go back to the list of failures.") from None
    with transaction() as session:
        found = failure_filter.find_failures(session, choice.filter, before_id=before, limit=PAGE + 1)
        groups = groups_of(session, choice.filter, limit=1)
        latest = groups or groups_of(
            session, FailureFilter(connector_key=connector.key, fingerprint=fingerprint, state=None), limit=1
        )
        if not latest:
            raise auth.missing("This group of failures does not exist.", "It may belong to another connector.")
        shown, more = split_page(found, PAGE)
        previews = preview_failures(session, shown)
        total = sum_of(session, choice.filter, sample=SAMPLE) if choice.filter.state == "open" else None
    return page(
        "failure_group.html",
        connector=connector,
        tab="failures",
        group=latest[0],
        count=groups[0].count if groups else 0,
        rows=shown,
        previews=previews,
        sum=total,
        choice=choice,
        title_of=title_of,
        more=more,
        kinds=ReplayEffect,
        spark=_spark,
    )


def show_failure(connector: Connector, failure_id: int) -> Response:
    """Show one failure with its next step and all details."""
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
    """Return a failure of the connector. Raises: Refused, 404."""
    found = find_failure(session, connector.key, failure_id)
    if found is None:
        raise auth.missing(
            f"Failure {failure_id} of {connector.name} does not exist.", "Go back to the list of failures."
        )
    return found


def read_choice(connector: Connector, given: MultiDict[str, str], **fixed: str) -> FailureChoice:
    """Read the filter of an address or a form. Raises InvalidFilter."""
    kept = {name: given[name].strip() for name in NAMES if given.get(name, "").strip()} | fixed
    ids = sorted({each.strip() for each in given.getlist("id") if each.strip()}, key=lambda each: (len(each), each))
    moments = {name: _moment(kept[name]) for name in MOMENTS if name in kept}
    try:
        asked = GroupsRequest.model_validate({"connector": connector.name, **kept, **moments, "ids": ids})
    except ValidationError as error:
        raise InvalidFilter(f"{'; '.join(mistakes_of(error))}.") from None
    chosen = FailuresFilter(**{name: getattr(asked, name) for name in FailuresFilter.model_fields})
    return FailureChoice(chosen=chosen, filter=chosen.filter(connector.key, asked.chosen_state), given=kept)


def _moment(given: str) -> datetime:
    """Return the moment of a filter, counted from the current minute, so that viewers share cached answers."""
    try:
        return read_moment(given, datetime.now(UTC).replace(second=0, microsecond=0))
    except ValueError as error:
        raise InvalidFilter(str(error)) from None


def record_path(connector: Connector, failure: FailureShape) -> str | None:
    """Return the address of the failure's record, if it has one."""
    if failure.kind not in OF_RECORDS or failure.record_id is None:
        return None
    way = "hull/" if failure.direction == Direction.OUTGOING else ""
    name = f"{way}{quote(failure.record_id, safe='')}"
    return connector_path(connector, f"records/{Entity(failure.entity)}/{name}")


def _spark(daily: Sequence[int]) -> Markup:
    """Return a line chart of failures a day, up to today."""
    words = f"{', '.join(map(str, daily))} on the last {len(daily)} days, today last"
    return charts.spark(daily, outcome="error", words=words)


def _read(chosen: FailureFilter) -> FailureList:
    with transaction() as session:
        groups = groups_of(session, chosen, limit=GROUPS)
        anything = FailureFilter(connector_key=chosen.connector_key, state=None)
        last = failure_filter.find_failures(session, anything, limit=1)
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
    """Forget the cached lists and counts of failures after a change."""
    _listed.forget()
    forget_open()


def _sentence(listed: FailureList, choice: FailureChoice) -> str:
    state = choice.filter.state
    kind = {"open": "open", "replayed": "replayed", "discarded": "discarded"}.get(state or "", "")
    if not listed.total:
        words = f" ({choice.words})" if choice.words else ""
        return f"No {kind} failure{words}.".replace("  ", " ")
    causes = plural(len(listed.groups), "group")
    what = plural(listed.total, f"{kind} failure".strip())
    return f"{what} in {causes}."
