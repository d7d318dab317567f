"""The one way to record what happened: an event for the event log, a failure for a person, and a log line with advice."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any, Literal

from sqlalchemy.orm import Session

from db import failure as failures
from db import sync_event as events
from pipeline.domain.kinds import Outcome
from pipeline.domain.reasons import describe
from pipeline.errors import PipelineError
from pipeline.telemetry import logger

Level = Literal["debug", "info", "warning", "error"]

_NAMED = ("pipedrive_id", "hull_id", "field", "delivery_id")
"""What of an event is part of its log line, where it is known. Its detail is not: it may quote a value of the record."""


class EventRecorder:
    """Gathers what happened, then writes the events by one COPY, the failures by one statement, and a log line for each."""

    def __init__(self) -> None:
        self._events: list[events.NewEvent] = []
        self._failures: list[failures.NewFailure] = []
        self._lines: list[tuple[str, str | None, Level | None, dict[str, Any]]] = []

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    def add(
        self,
        event: events.NewEvent,
        failure: failures.NewFailure | None = None,
        *,
        level: Level | None = None,
        **facts: Any,
    ) -> None:
        """Add an event, its log line, and the failure that is kept with it; `facts` belong to the line alone."""
        self._events.append(event)
        if failure is not None:
            self.keep(failure)
        known = {name: value for name in _NAMED if (value := getattr(event, name)) is not None}
        self._lines.append((event.event, event.reason, level, known | facts))

    def keep(self, failure: failures.NewFailure) -> None:
        """Add a failure; another call adds the event and the line, or there are none."""
        self._failures.append(failure)

    def write(self, session: Session) -> None:
        """Write everything that was added."""
        events.log_events(session, self._events)
        failures.keep_failures(session, self._failures)
        for name, reason, level, facts in self._lines:
            say(name, reason, level=level, **facts)


def record(
    session: Session,
    happened: Iterable[events.NewEvent] = (),
    kept: Iterable[failures.NewFailure] = (),
    *,
    level: Level | None = None,
    **facts: Any,
) -> None:
    """Write events, a log line for each of them, with the same `facts`, and failures."""
    recorder = EventRecorder()
    for event in happened:
        recorder.add(event, level=level, **facts)
    for failure in kept:
        recorder.keep(failure)
    recorder.write(session)


def record_failure(session: Session, name: str, failure: failures.NewFailure, **facts: Any) -> None:
    """Write the failure of work that is about no record, and its log line."""
    failures.keep_failures(session, [failure])
    say(name, failure.reason, level="error", **facts)


def say(name: str, reason: str | None, *, level: Level | None = None, **facts: Any) -> None:
    """Write a log line with its reason's meaning and advice: a warning for an error, unless a level is given."""
    about = {"reason": reason, "advice": describe(reason)} if reason else {}
    getattr(logger(), level or ("warning" if name.endswith(Outcome.ERROR) else "info"))(name, **facts, **about)


def traceback_of(cause: PipelineError, error: BaseException) -> str | None:
    """Return the traceback that is kept with a failure: that of a defect of ours, None for anything else."""
    return "".join(traceback.format_exception(error)) if cause.reason == "internal_error" else None
