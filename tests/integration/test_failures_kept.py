"""Failures are stored in one statement, however many a page has, and closed by record and field."""

from __future__ import annotations

from typing import Any

import pytest

from db import failure as failures
from db import failure_closing, failure_filter
from db.failure_filter import FailureFilter
from db.session import transaction
from db.statement import Statement
from tests.system import SyncSystem


def failure(system: SyncSystem, subject: str, **more: Any) -> failures.NewFailure:
    given: dict[str, Any] = {
        "connector_key": system.connector_key,
        "kind": "record",
        "subject": subject,
        "direction": "incoming",
        "entity": "person",
        "stage": "transform",
        "reason": "option_unknown",
        "detail": "50 %, 'quoted', {braces}",
    }
    return failures.NewFailure(**given | more)


def test_many_failures_are_one_statement(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Statement] = []
    run = Statement.run
    monkeypatch.setattr(Statement, "run", lambda self, *given: (ran.append(self), run(self, *given))[1])

    with transaction() as session:
        failures.keep_failures(session, [failure(system, f"incoming:person:{n}") for n in range(500)])

    assert len(ran) == 1
    assert system.rows("SELECT count(*) AS n FROM failures")[0].n == 500


def test_a_failure_is_read_as_it_was_stored(system: SyncSystem) -> None:
    data = {"payload": b"\x00\xff{", "exchange": {"status": 400, "path": "/v2"}, "traceback": None, "run_id": 2**40}
    with transaction() as session:
        failures.keep_failures(session, [failure(system, "incoming:person:1", **data)])
        [kept] = failure_filter.find_failures(session)
        assert failures.payload_of(kept) == data["payload"]

    assert (kept.exchange, kept.traceback, kept.run_id) == (data["exchange"], None, 2**40)
    assert (kept.detail, kept.attempts, kept.state) == ("50 %, 'quoted', {braces}", 1, "open")
    assert kept.fingerprint == failure(system, "incoming:person:1").fingerprint


def test_a_subject_has_one_failure_with_its_newest_reason(system: SyncSystem) -> None:
    first, second = failure(system, "batch:1", attempts=2), failure(system, "batch:1", reason="gone", attempts=3)
    with transaction() as session:
        failures.keep_failures(session, [first, second])
        failures.keep_failures(session, [first])
        failures.keep_failures(session, [])

    rows = system.rows("SELECT reason, attempts FROM failures")
    assert [tuple(row) for row in rows] == [("option_unknown", 7)]


def test_failures_of_a_run_are_found_within_its_connector(system: SyncSystem) -> None:
    mine = failure(system, "incoming:person:1", run_id=7)
    other = failure(system, "incoming:person:2", run_id=8)
    with transaction() as session:
        failures.keep_failures(session, [mine, other])
        keys = (system.connector_key, system.connector_key + 1)
        found = [failures.find_kept_in_run(session, key, 7, [mine.subject, other.subject]) for key in keys]
        of_run = [FailureFilter(connector_key=key, run_id=7) for key in keys]
        counted = [failure_filter.count_failures(session, each) for each in of_run]

    assert found == [{(mine.subject, "option_unknown")}, set()]
    assert counted == [1, 0]
    assert of_run[0].words == {"run_id": 7}


@pytest.mark.parametrize("others", [0, 2, 99, 100, 250], ids="{} others are open".format)
def test_rejected_fields_of_synchronized_records_are_closed(system: SyncSystem, others: int) -> None:
    def field_of(record_id: int, field: str, **more: Any) -> failures.NewFailure:
        subject = failures.field_subject("incoming", "person", str(record_id), field)
        return failure(system, subject, kind="field", field=field, record_id=str(record_id), **more)

    refused, fixed = field_of(7, "label"), [field_of(7, "size"), field_of(900_008, "size")]
    untouched = [field_of(1_000 + number, "size") for number in range(others)]
    record = failure(system, "incoming:person:7", record_id="7")
    with transaction() as session:
        failures.keep_failures(session, [refused, *fixed, *untouched, record])
        ids = [str(number) for number in [*range(1, 500), 900_008]]
        where = (system.connector_key, "incoming", "person")
        failure_closing.close_fields(session, *where, ids, refused=[("7", "label")])

    rows = system.rows("SELECT subject FROM failures WHERE state = 'replayed'")
    assert {row.subject for row in rows} == {each.subject for each in fixed}
