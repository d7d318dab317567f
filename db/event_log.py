"""Queries of the log of sync events, page by page, by id.

Most events are incoming successes; the others have a partial index. A filter that excludes successes repeats the condition of that
index. Other filters find matches quickly, or are limited by their times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, or_, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from db.batch import Batch
from db.record_events import RecordIds, batch_events
from db.run import Run
from db.session import transaction
from db.sync_event import HAS_REASON, NOTABLE, SyncEvent
from pipeline.domain.kinds import Direction, Entity, Outcome

SLOWEST_MS: Final = 2_000
"""Time limit of one query: a filter without a match would read the whole log."""
BATCH_LASTS: Final = timedelta(days=2)
"""Events of a batch are searched for this long after its creation."""
_JOBS: Final = "job"


class TooManyEvents(Exception):
    """The query exceeds its time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One record by its ids: events from before it was matched have its Hull id only.

    entity  None for both entities
    """

    entity: str | None
    pipedrive_id: int | None = None
    hull_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """A filter of events; None matches everything.

    event     a name; * matches anything
    subjects  the records, and those that were merged into them; empty for all records
    """

    direction: str | None = None
    entity: str | None = None
    outcome: str | None = None
    event: str | None = None
    reason: str | None = None
    cause: str | None = None
    subjects: tuple[Subject, ...] = ()
    run_id: int | None = None
    batch_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_found_soon(self) -> bool:
        """Whether a page is found quickly, by an index or because there are many such events."""
        is_bounded = self.since or self.run_id or self.batch_id or self.reason or self.subjects
        return bool(is_bounded) or not (self.cause or self.event)

    @property
    def names(self) -> list[str] | None:
        """The names of the events that match; None for all names."""
        if not (self.direction or self.outcome or self.entity):
            return None
        subjects = [Entity(self.entity).hull, _JOBS] if self.entity else [*(each.hull for each in Entity), _JOBS]
        directions = [self.direction] if self.direction else list(Direction)
        outcomes = [self.outcome] if self.outcome else [*Outcome, "start", "progress"]
        return [".".join(parts) for parts in product(directions, subjects, outcomes)]


_NO_REASON: Final = frozenset({Outcome.SUCCESS.value, "start", "progress"})
"""Last parts of the names of events without a reason."""

SUCCESSES: Final = frozenset(f"{Direction.INCOMING}.{each.hull}.{Outcome.SUCCESS}" for each in Entity)
"""Names of most events."""


def page_of_events(
    session: Session,
    connector_key: int,
    wanted: EventFilter,
    *,
    before_id: int | None = None,
    after_id: int | None = None,
    limit: int = 100,
) -> list[SyncEvent]:
    """Return events with a lower id than `before_id`, newest first; with `after_id` those with a higher id, oldest first.

    Raises TooManyEvents in a transaction of `bounded`.
    """
    query = _chosen(session, connector_key, wanted)
    if before_id is not None:
        query = query.where(SyncEvent.id < before_id)
    if after_id is not None:
        return list(session.scalars(query.where(SyncEvent.id > after_id).order_by(SyncEvent.id).limit(limit)))
    return list(session.scalars(query.order_by(SyncEvent.id.desc()).limit(limit)))


@contextmanager
def bounded(slowest_ms: int | None = None) -> Iterator[Session]:
    """Open a transaction with a time limit for each query. Raises TooManyEvents if a query exceeds it."""
    try:
        with transaction() as session:
            session.execute(text(f"SET LOCAL statement_timeout = {slowest_ms or SLOWEST_MS:d}"))
            yield session
    except OperationalError as error:
        if getattr(error.orig, "pgcode", None) == _CANCELED:
            raise TooManyEvents from None
        raise


_CANCELED: Final = "57014"


def find_event(session: Session, connector_key: int, event_id: int) -> SyncEvent | None:
    """Return an event of a connector by its id."""
    return session.scalar(select(SyncEvent).filter_by(connector_key=connector_key, id=event_id).limit(1))


def neighbours(session: Session, event: SyncEvent, limit: int = 20) -> list[SyncEvent]:
    """Return the other events of the same record in the same batch, oldest first."""
    if event.batch_id is None:
        return []
    hull_id = event.hull_id if event.pipedrive_id is None else None
    record = RecordIds(
        connector_key=event.connector_key, entity=event.entity, pipedrive_id=event.pipedrive_id, hull_id=hull_id
    )
    found = batch_events(session, record, event.batch_id, limit + 1)
    return [each for each in found if each.id != event.id][:limit]


def _chosen(session: Session, connector_key: int, wanted: EventFilter) -> Select[SyncEvent]:
    query = select(SyncEvent).where(SyncEvent.connector_key == connector_key)
    exact = {"reason": wanted.reason, "cause": wanted.cause, "run_id": wanted.run_id, "batch_id": wanted.batch_id}
    query = query.filter_by(**{name: value for name, value in exact.items() if value is not None})
    names = wanted.names
    if names is not None:
        query = query.where(SyncEvent.event.in_(names))
        if wanted.entity is not None:
            query = query.where(SyncEvent.entity == wanted.entity)
        if not any(name.endswith(tuple(_NO_REASON)) for name in names):
            query = query.where(text(HAS_REASON))
        elif not SUCCESSES.intersection(names):
            query = query.where(text(NOTABLE))
    if wanted.event is not None:
        query = query.where(SyncEvent.event.like(_pattern(wanted.event)))
    if wanted.subjects:
        query = query.where(or_(*(_is_about(each) for each in wanted.subjects)))
    since, until = _times(session, wanted)
    if since is not None:
        query = query.where(SyncEvent.at >= since)
    return query if until is None else query.where(SyncEvent.at < until)


def _pattern(name: str) -> str:
    """Return the pattern of LIKE for a name; * matches anything."""
    return re.sub(r"([\\%_])", r"\\\1", name).replace("*", "%")


def _is_about(subject: Subject) -> ColumnElement[bool]:
    """Return a condition that fits the two indexes by record."""
    either = []
    if subject.pipedrive_id is not None:
        either.append(SyncEvent.pipedrive_id == subject.pipedrive_id)
    if subject.hull_id is not None:
        alone = and_(SyncEvent.pipedrive_id.is_(None), SyncEvent.hull_id.is_not(None))
        either.append(and_(alone, SyncEvent.hull_id == subject.hull_id))
    return and_(SyncEvent.entity.in_([subject.entity] if subject.entity else list(Entity)), or_(*either))


def _times(session: Session, wanted: EventFilter) -> tuple[datetime | None, datetime | None]:
    """Return the time range to search: that of the filter, of its run and of its batch."""
    since, until = wanted.since, wanted.until
    spans: list[tuple[datetime, datetime | None]] = []
    if wanted.run_id is not None and (run := session.get(Run, wanted.run_id)) is not None:
        spans.append((run.started_at, run.finished_at + timedelta(minutes=1) if run.finished_at else None))
    if wanted.batch_id is not None:
        made: Any = session.scalar(select(Batch.created_at).where(Batch.id == wanted.batch_id))
        if made is not None:
            spans.append((made, made + BATCH_LASTS))
    for begins, ends in spans:
        since = begins if since is None else max(since, begins)
        until = ends if until is None else min(until, ends or until)
    return since, until
