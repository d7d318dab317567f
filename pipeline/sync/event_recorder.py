"""The one way to record what happened: an event for the event log, a failure for a person, and a log line with advice."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any, Literal

from sqlalchemy.orm import Session

from db import failure as failures
from db import sync_event as events
from db.batch import ClaimedBatch
from db.failure import NewFailure
from db.sync_event import NewEvent
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.domain.reasons import describe
from pipeline.errors import PipelineError
from pipeline.telemetry import logger

Level = Literal["debug", "info", "warning", "error"]

_NAMED = ("pipedrive_id", "hull_id", "field", "delivery_id")
"""Members of an event that are part of its log line if they are known. Its detail is not: it may quote a value of the record."""


def new_event(connector_key: int, direction: Direction, entity: Entity, outcome: Outcome, **facts: Any) -> NewEvent:
    """Return an event about a record; `facts` are further members of NewEvent."""
    name = event_name(direction, entity, outcome)
    return NewEvent(connector_key=connector_key, event=name, entity=entity, **facts)


def batch_event(batch: ClaimedBatch, outcome: Outcome, **facts: Any) -> NewEvent:
    """Return an event about a record of a batch; `facts` are further members of NewEvent."""
    ids = {"run_id": batch.run_id, "batch_id": batch.id}
    return new_event(batch.connector_key, batch.direction, batch.entity, outcome, **ids, **facts)


def batch_failure(batch: ClaimedBatch, kind: str, subject: str, **facts: Any) -> NewFailure:
    """Return a failure of a batch, or of one of its records; `facts` are further members of NewFailure."""
    return NewFailure(
        connector_key=batch.connector_key,
        kind=kind,
        subject=subject,
        direction=batch.direction,
        entity=batch.entity,
        batch_id=batch.id,
        run_id=batch.run_id,
        **facts,
    )


class EventRecorder:
    """Collects what happened, then writes the events by one COPY, the failures by one statement, and a log line for each."""

    def __init__(self) -> None:
        self._events: list[NewEvent] = []
        self._failures: list[NewFailure] = []
        self._lines: list[tuple[str, str | None, Level | None, dict[str, Any]]] = []

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    def add(
        self, event: NewEvent, failure: NewFailure | None = None, *, level: Level | None = None, **facts: Any
    ) -> None:
        """Add an event, its log line, and the failure that belongs to it; only the line contains `facts`."""
        self._events.append(event)
        if failure is not None:
            self.add_failure(failure)
        known = {name: value for name in _NAMED if (value := getattr(event, name)) is not None}
        self._lines.append((event.event, event.reason, level, known | facts))

    def add_failure(self, failure: NewFailure) -> None:
        """Add a failure without an event and a log line."""
        self._failures.append(failure)

    def write(self, session: Session) -> None:
        """Write everything that was added."""
        events.log_events(session, self._events)
        failures.keep_failures(session, self._failures)
        for name, reason, level, facts in self._lines:
            log_line(name, reason, level=level, **facts)


def record(
    session: Session,
    happened: Iterable[NewEvent] = (),
    failed: Iterable[NewFailure] = (),
    *,
    level: Level | None = None,
    **facts: Any,
) -> None:
    """Write events, a log line for each of them with the same `facts`, and failures."""
    recorder = EventRecorder()
    for event in happened:
        recorder.add(event, level=level, **facts)
    for failure in failed:
        recorder.add_failure(failure)
    recorder.write(session)


def record_failure(session: Session, name: str, failure: NewFailure, **facts: Any) -> None:
    """Write a failure that is not about a record, and its log line."""
    failures.keep_failures(session, [failure])
    log_line(name, failure.reason, level="error", **facts)


def log_line(name: str, reason: str | None, *, level: Level | None = None, **facts: Any) -> None:
    """Write a log line with its reason's meaning and advice. The default level is warning for an error, else info."""
    about = {"reason": reason, "advice": describe(reason, name.partition(".")[0])} if reason else {}
    getattr(logger(), level or ("warning" if name.endswith(Outcome.ERROR) else "info"))(name, **facts, **about)


def traceback_of(cause: PipelineError, error: BaseException) -> str | None:
    """Return the traceback that is stored with a failure: that of a defect of ours, else None."""
    return "".join(traceback.format_exception(error)) if cause.reason == "internal_error" else None
