"""The log of sync events, by filter: a page to look at, or a stream to take away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from db import event_log
from db.departure import forebears
from db.event_log import EventFilter, Subject
from db.event_log import TooMuch as TooMuch  # noqa: PLC0414 - for those who ask
from db.sync_event import SyncEvent
from pipeline.domain.kinds import Entity
from pipeline.insight.events import Event, described
from pipeline.insight.mapped import labels_of
from pipeline.insight.search import search
from pipeline.jobs.log_exports import EXPORTED, SLOWEST_MS
from pipeline.jobs.log_exports import PAGE as FILE_PAGE
from pipeline.jobs.log_lines import CSV, FORMS
from pipeline.sync.compiled import plan_for

PAGE: Final = 100
LOOKED_BACK: Final = timedelta(days=1)
"""How far back is looked for what no index finds, unless the filter itself says how far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Newest first; `more` is where the next page begins, None on the last one.

    since  how far back was looked, where that was not as far as there are events
    """

    events: tuple[Event, ...]
    more: int | None
    since: datetime | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Outcome → how many of those that are shown."""
        return dict(Counter(each.outcome for each in self.events).most_common())


def read_log(connector_key: int, wanted: EventFilter, before_id: int | None = None, limit: int = PAGE) -> LogPage:
    """A page of the log.

    Raises: TooMuch when the filter would look through more than may be waited for.
    """
    since = None if wanted.is_found_soon else datetime.now(UTC) - LOOKED_BACK
    looked_for = replace(wanted, since=since) if since else wanted
    with event_log.bounded() as session:
        rows = event_log.page_of_events(session, connector_key, looked_for, before_id=before_id, limit=limit + 1)
    with event_log.bounded() as session:
        labels = all_labels(session, connector_key)
    more = rows[limit - 1].id if len(rows) > limit else None
    return LogPage(events=tuple(described(row, labels) for row in rows[:limit]), more=more, since=since)


def all_labels(session: Session, connector_key: int) -> dict[str, str]:
    """Key of a field → its name in Pipedrive, of both entities."""
    return {key: name for entity in Entity for key, name in labels_of(plan_for(session, connector_key, entity)).items()}


def about(session: Session, connector_key: int, wanted: EventFilter, record: str) -> EventFilter:
    """Return the filter, narrowed to every record that an id, an e-mail, a domain or an external id finds."""
    found = [each for each in search(session, connector_key, record) if wanted.entity in (None, each.entity)]
    if not found:
        text = record.strip()
        is_number = text.isascii() and text.isdigit() and len(text) <= 18
        unknown = (
            Subject(entity=wanted.entity, pipedrive_id=int(text))
            if is_number
            else Subject(entity=wanted.entity, hull_id=text)
        )
        return replace(wanted, subjects=(unknown,))
    subjects = [Subject(entity=each.entity, pipedrive_id=each.pipedrive_id, hull_id=each.hull_id) for each in found]
    subjects += [
        Subject(entity=entity, pipedrive_id=merged)
        for each in found
        if each.pipedrive_id is not None
        for entity, merged in forebears(session, connector_key, each.pipedrive_id)
        if entity == each.entity
    ]
    return replace(wanted, subjects=tuple(subjects))


def export_csv(connector_key: int, wanted: EventFilter, before_id: int | None = None) -> Iterator[str]:
    """Lines of CSV, newest first, that no spreadsheet takes for formulas."""
    yield FORMS[CSV].head
    for row in _stream(connector_key, wanted, before_id):
        yield FORMS[CSV].line(row)


def _stream(connector_key: int, wanted: EventFilter, before_id: int | None) -> Iterator[SyncEvent]:
    """By a page and a transaction at a time: whoever reads slowly holds nothing up."""
    left = EXPORTED
    while left > 0:
        with event_log.bounded(SLOWEST_MS) as session:
            limit = min(FILE_PAGE, left)
            rows = event_log.page_of_events(session, connector_key, wanted, before_id=before_id, limit=limit)
        yield from rows
        if len(rows) < limit:
            return
        left, before_id = left - len(rows), rows[-1].id
