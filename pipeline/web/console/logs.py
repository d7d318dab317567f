"""`/c/<name>/logs`: every sync event, newest first and live, by a filter that stands in the address; a page for each; export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode

from flask import request
from werkzeug.wrappers import Response

from db import event_log
from db.connector import Connector
from db.event_log import EventFilter
from db.log_export import RETENTION_HOURS, LogExport
from db.session import transaction
from pipeline.domain.kinds import Direction, Entity, Outcome
from pipeline.domain.reasons import REASONS
from pipeline.domain.roles import Role
from pipeline.insight import log
from pipeline.insight.events import described
from pipeline.insight.log import LogPage, TooMuch
from pipeline.insight.moments import read_moment
from pipeline.insight.shared import Shared
from pipeline.jobs.log_exports import EXPORTED, TooMany
from pipeline.jobs.log_lines import FORMS, facts
from pipeline.web.console import guard, log_export
from pipeline.web.console.frame import before_id, done, page
from pipeline.web.console.guard import Pages

TAB: Final = ("logs", "Logs")
NAMES: Final = ("direction", "entity", "outcome", "reason", "cause", "record", "run", "batch", "since", "until")
MORE: Final = frozenset({"reason", "cause", "run", "batch", "until"})
"""Those that are asked for less often: folded away until they are."""
CAUSES: Final = ("webhook", "fetch", "notification", "read_back", "backfill", "replay", "export", "linked_user")
SAVED: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("Failures of a day", {"outcome": "error", "since": "24h"}),
    ("Skips", {"outcome": "skip"}),
    ("Outgoing", {"direction": "outgoing"}),
    ("By webhook", {"cause": "webhook", "since": "24h"}),
    ("Everything", {}),
)
"""Filters that are asked for most, as links."""
TOO_MUCH: Final = "This filter would look through too many events. Narrow it by a time range, a record or a run."

TOO_MANY: Final = "Several files of this connector are being written already."

Given = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """What all viewers of one address share: the filter as it was written, so that `2h` goes with the time."""

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
    """One question for all who look at the same address."""
    asked = LogFilter(connector_key=connector.key, given=_given(), before_id=before_id())
    mistake, found, status = "", None, HTTPStatus.OK
    try:
        found = _pages(asked)
    except ValueError as wrong:
        mistake, status = str(wrong), HTTPStatus.BAD_REQUEST
    except TooMuch:
        mistake, status = TOO_MUCH, HTTPStatus.BAD_REQUEST
    return page(
        "logs.html",
        connector=connector,
        tab=TAB[0],
        status=status,
        found=found,
        mistake=mistake,
        chosen=dict(asked.given),
        more_chosen=bool(MORE.intersection(name for name, _ in asked.given)),
        saved=[(words, f"?{urlencode(each)}" if each else "?") for words, each in SAVED],
        exported=[*asked.given, *([("before", str(asked.before_id))] if asked.before_id else [])],
        forms=FORMS,
        is_live=asked.before_id is None and found is not None,
        choices={
            "direction": list(Direction),
            "entity": list(Entity),
            "outcome": list(Outcome),
            "cause": CAUSES,
            "reason": sorted(REASONS),
        },
    )


def show_event(connector: Connector, event_id: int) -> Response:
    """Everything that is known of one event, and what else its batch did to the record."""
    with transaction() as session:
        row = event_log.find_event(session, connector.key, event_id)
        if row is None:
            raise guard.missing(f"There is no event {event_id} of {connector.name}.", "Events are kept for 90 days.")
        labels = log.all_labels(session, connector.key)
        beside = [described(each, labels) for each in event_log.neighbours(session, row)]
    return page(
        "event.html", connector=connector, tab=TAB[0], event=described(row, labels), beside=beside, facts=facts(row)
    )


def begin_export(connector: Connector) -> Response:
    """Have a worker write the events of the filter to a file, and show how far it is."""
    given, kind, before = dict(_given(request.form)), request.form.get("kind", ""), request.form.get("before")
    if kind not in FORMS:
        raise guard.Refused(HTTPStatus.BAD_REQUEST, f"A file is one of {', '.join(FORMS)}.")
    try:
        wanted = filter_of(connector.key, given)
        before_id = _number("before", {"before": before}) if before else None
        export = log_export.order(connector, kind, wanted, before_id, chosen=list(given))
    except ValueError as wrong:
        raise guard.Refused(HTTPStatus.BAD_REQUEST, str(wrong)) from None
    except TooMuch:
        raise guard.Refused(HTTPStatus.BAD_REQUEST, TOO_MUCH) from None
    except TooMany:
        raise guard.Refused(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY, "Wait until one of them is written.") from None
    return done(f"/c/{quote(connector.name, safe='')}/exports/{export.id}")


def show_export(connector: Connector, export_id: int) -> Response:
    """Whether a file is written, and where it is."""
    export = _found(connector, export_id)
    mood, sentence = {
        "writing": ("running", f"The file is being written: {export.events:,} events so far."),
        "done": ("done", f"The file is written: {export.events:,} events."),
        "cut": ("warning", f"The file ends after {export.events:,} events: reading on would take too long."),
    }.get(export.state, ("failed", "The file could not be written. See Failures."))
    return page(
        "log_export.html",
        connector=connector,
        tab=TAB[0],
        export=export,
        mood=mood,
        sentence=sentence,
        most=EXPORTED,
        hours=RETENTION_HOURS,
    )


def download_export(connector: Connector, export_id: int) -> Response:
    export = _found(connector, export_id)
    if not export.is_ready:
        raise guard.Refused(HTTPStatus.CONFLICT, "The file is not written yet.", "Look at its page.")
    return log_export.download(export)


def _found(connector: Connector, export_id: int) -> LogExport:
    export = log_export.find(connector, export_id)
    if export is None:
        raise guard.missing(
            f"There is no export {export_id} of {connector.name}.", f"Files are kept for {RETENTION_HOURS} hours."
        )
    return export


def _given(fields: Mapping[str, str] | None = None) -> Given:
    """The filter as it was written, in the address or in these fields."""
    given = request.args if fields is None else fields
    return tuple((name, value) for name in NAMES if (value := given.get(name, "").strip()[:300]))


def _read(asked: LogFilter) -> LogPage:
    return log.read_log(asked.connector_key, filter_of(asked.connector_key, dict(asked.given)), asked.before_id)


_pages = Shared(_read)


def filter_of(connector_key: int, given: Mapping[str, str]) -> EventFilter:
    """The filter that an address means.

    Raises: ValueError, a sentence that names what cannot be read.
    """
    now = datetime.now(UTC)
    wanted = EventFilter(
        direction=_one_of("direction", given, list(Direction)),
        entity=_one_of("entity", given, list(Entity)),
        outcome=_one_of("outcome", given, list(Outcome)),
        reason=given.get("reason"),
        cause=given.get("cause"),
        run_id=_number("run", given),
        batch_id=_number("batch", given),
        since=read_moment(given["since"], now) if "since" in given else None,
        until=read_moment(given["until"], now) if "until" in given else None,
    )
    if "record" not in given:
        return wanted
    with event_log.bounded() as session:
        return log.about(session, connector_key, wanted, given["record"])


def _one_of(name: str, given: Mapping[str, str], choices: list[str]) -> str | None:
    value = given.get(name)
    if value is not None and value not in choices:
        raise ValueError(f"There is no {name} {value[:40]!r}; choose one of {', '.join(choices)}.")
    return value


def _number(name: str, given: Mapping[str, str]) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise ValueError(f"A {name} is named by its number, not by {value[:40]!r}.")
    return int(value)
