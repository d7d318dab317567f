"""Events, failures and log lines that belong together are recorded by one call, in one statement each."""

from __future__ import annotations

import pytest

from db import sync_event as events
from db.failure import NewFailure, record_subject
from db.session import transaction
from db.statement import Statement
from pipeline.domain.reasons import describe
from pipeline.sync import event_recorder
from pipeline.sync.event_recorder import EventRecorder
from tests import logs
from tests.system import SyncSystem

REASON = "option_unknown"


def event(system: SyncSystem, number: int, name: str = "incoming.user.error") -> events.NewEvent:
    return events.NewEvent(
        connector_key=system.connector_key,
        event=name,
        entity="person",
        cause="test",
        reason=REASON,
        detail="a value of the record",
        pipedrive_id=number,
    )


def failure(system: SyncSystem, number: int) -> NewFailure:
    return NewFailure(
        connector_key=system.connector_key,
        kind="record",
        subject=record_subject("incoming", "person", str(number)),
        direction="incoming",
        entity="person",
        stage="transform",
        reason=REASON,
        detail="",
    )


def test_many_are_one_copy_and_one_statement(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    ran: list[Statement] = []
    copy_rows, run = events.copy_rows, Statement.run
    monkeypatch.setattr(events, "copy_rows", lambda *given: (copied.append(len(given[3])), copy_rows(*given))[1])
    monkeypatch.setattr(Statement, "run", lambda self, *given: (ran.append(self), run(self, *given))[1])
    recorder = EventRecorder()
    for number in range(500):
        recorder.add(event(system, number), failure(system, number))

    with transaction() as session:
        recorder.write(session)

    assert (copied, len(ran)) == ([500], 1)
    assert system.rows("SELECT count(*) AS n FROM sync_events WHERE cause = 'test'")[0].n == 500
    assert system.rows("SELECT count(*) AS n FROM failures")[0].n == 500


def test_a_line_has_the_reason_with_its_advice_and_no_detail(system: SyncSystem) -> None:
    recorder = EventRecorder()
    recorder.add(event(system, 7), failure(system, 7), field="label_ids")
    recorder.add(event(system, 8, "incoming.user.skip"))
    recorder.add(event(system, 9), level="error", detail="said on purpose")

    with logs.captured_log() as lines, transaction() as session:
        recorder.write(session)

    about = {"reason": REASON, "advice": describe(REASON)}
    assert lines == [
        {"event": "incoming.user.error", "log_level": "warning", "pipedrive_id": 7, "field": "label_ids", **about},
        {"event": "incoming.user.skip", "log_level": "info", "pipedrive_id": 8, **about},
        {"event": "incoming.user.error", "log_level": "error", "pipedrive_id": 9, "detail": "said on purpose", **about},
    ]


def test_a_failure_of_work_without_a_record_has_a_line_of_its_own_name(system: SyncSystem) -> None:
    with logs.captured_log() as lines, transaction() as session:
        event_recorder.record_failure(session, "control.error", failure(system, 1), control="resolve")

    assert [(line["event"], line["log_level"], line["control"]) for line in lines] == [
        ("control.error", "error", "resolve")
    ]
    assert system.rows("SELECT count(*) AS n FROM failures")[0].n == 1
