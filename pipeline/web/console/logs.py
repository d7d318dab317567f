"""`/c/<name>/logs`: the list of sync events with a filter in the address, one event, and exports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from flask import request
from werkzeug.wrappers import Response

from db.connector import Connector
from db.log_export import RETENTION_HOURS
from pipeline.domain.kinds import Direction, Entity, Outcome, Role
from pipeline.domain.reasons import REASONS
from pipeline.jobs.log_exports import EXPORTED
from pipeline.operations import events
from pipeline.operations.cached_answers import Shared
from pipeline.operations.errors import OperationError
from pipeline.operations.events import EventsAnswer
from pipeline.web.answers import download
from pipeline.web.console.layout import before_id, connector_path, done, page
from pipeline.web.console.pages import Pages, perform

NAMES: Final = ("direction", "entity", "outcome", "reason", "cause", "record", "run", "batch", "since", "until")
MORE: Final = frozenset({"reason", "cause", "run", "batch", "until"})
"""Filters that are collapsed by default."""
CAUSES: Final = ("webhook", "fetch", "notification", "read_back", "backfill", "replay", "export", "linked_user")
SAVED: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("Errors, last 24 hours", {"outcome": "error", "since": "24h"}),
    ("Skips", {"outcome": "skip"}),
    ("Outgoing", {"direction": "outgoing"}),
    ("Webhooks, last 24 hours", {"cause": "webhook", "since": "24h"}),
    ("All events", {}),
)
"""Common filters, as links."""
PAGE: Final = 100

Given = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """The filter of one address, not evaluated yet: `2h` is relative to the time of the query."""

    connector_key: int
    given: Given
    before_id: int | None


def add(pages: Pages) -> None:
    pages.page("/c/<name>/logs", show)
    pages.page("/c/<name>/logs/<int:event_id>", show_event)
    pages.action("/c/<name>/logs/export", begin_export, needs=Role.VIEWER)
    pages.page("/c/<name>/exports/<int:export_id>", show_export)
    pages.page("/c/<name>/exports/<int:export_id>/file", download_export)


def show(connector: Connector) -> Response:
    """Show the events of a filter; all viewers of one address share a query."""
    wanted = LogFilter(connector_key=connector.key, given=_given(request.args), before_id=before_id())
    mistake, found, status = "", None, HTTPStatus.OK
    try:
        found = _pages(wanted)
    except OperationError as error:
        mistake, status = f"{error.message} {error.next_step}".rstrip(), error.status
    return page(
        "logs.html",
        connector=connector,
        tab="logs",
        status=status,
        found=found,
        counts=dict(Counter(each.outcome for each in found.events).most_common()) if found else {},
        mistake=mistake,
        chosen=dict(wanted.given),
        more_chosen=bool(MORE.intersection(name for name, _ in wanted.given)),
        saved=[(label, f"?{urlencode(each)}" if each else "?") for label, each in SAVED],
        exported=[*wanted.given, *([("before", str(wanted.before_id))] if wanted.before_id else [])],
        is_live=wanted.before_id is None and found is not None,
        choices={
            "direction": list(Direction),
            "entity": list(Entity),
            "outcome": list(Outcome),
            "cause": CAUSES,
            "reason": sorted(REASONS),
        },
    )


def show_event(connector: Connector, event_id: int) -> Response:
    """Show one event, and other events of its record in the same batch."""
    return page("event.html", connector=connector, tab="logs", found=perform(events.show_event, id=event_id))


def begin_export(connector: Connector) -> Response:
    """Have a worker write the events of the filter to a file, and show its progress."""
    chosen: dict[str, Any] = {"format": request.form.get("format", ""), **dict(_given(request.form))}
    if before := request.form.get("before"):
        chosen["before"] = before
    export = perform(events.begin_export, **chosen).export
    return done(connector_path(connector, f"exports/{export.id}"))


def show_export(connector: Connector, export_id: int) -> Response:
    """Show the progress of an export, and the link to its file."""
    export = perform(events.show_export, id=export_id).export
    level, sentence = {
        "writing": ("running", f"The file is being written: {export.events:,} events so far."),
        "done": ("done", f"The file is complete: {export.events:,} events."),
        "cut": ("warning", f"The file ends after {export.events:,} events, because the export took too long."),
        "aborted": ("aborted", "The export was aborted."),
    }.get(export.state, ("failed", "The file could not be written. See Failures."))
    return page(
        "log_export.html",
        connector=connector,
        tab="logs",
        export=export,
        level=level,
        sentence=sentence,
        most=EXPORTED,
        hours=RETENTION_HOURS,
    )


def download_export(_connector: Connector, export_id: int) -> Response:
    return download(perform(events.download_export, id=export_id))


def _given(fields: Mapping[str, str]) -> Given:
    """Return the filter in a query or a form."""
    return tuple((name, value) for name in NAMES if (value := fields.get(name, "").strip()[:300]))


def _read(wanted: LogFilter) -> EventsAnswer:
    return perform(events.list_events, limit=PAGE, before=wanted.before_id, **dict(wanted.given))


_pages = Shared(_read)
