"""Failures are kept in one statement, however many a page leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from db import failure as failures
from db.session import transaction
from db.statement import Statement
from tests.world import World


def failure(world: World, subject: str, **more: Any) -> failures.NewFailure:
    given: dict[str, Any] = {
        "connector_key": world.connector_key,
        "kind": "record",
        "subject": subject,
        "direction": "incoming",
        "entity": "person",
        "stage": "transform",
        "reason": "option_unknown",
        "detail": "50 %, 'quoted', {braces}",
    }
    return failures.NewFailure(**given | more)


def test_many_failures_are_one_statement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Statement] = []
    run = Statement.run
    monkeypatch.setattr(Statement, "run", lambda self, *given: (ran.append(self), run(self, *given))[1])

    with transaction() as session:
        failures.keep_failures(session, [failure(world, f"incoming:person:{n}") for n in range(500)])

    assert len(ran) == 1
    assert world.rows("SELECT count(*) AS n FROM failures")[0].n == 500


def test_what_a_failure_holds_comes_back_as_it_was(world: World) -> None:
    held = {"payload": b"\x00\xff{", "exchange": {"status": 400, "path": "/v2"}, "traceback": None, "run_id": 2**40}
    with transaction() as session:
        failures.keep_failures(session, [failure(world, "incoming:person:1", **held)])
        [kept] = failures.find_failures(session)
        assert failures.payload_of(kept) == held["payload"]

    assert (kept.exchange, kept.traceback, kept.run_id) == (held["exchange"], None, 2**40)
    assert (kept.detail, kept.attempts, kept.state) == ("50 %, 'quoted', {braces}", 1, "open")
    assert kept.fingerprint == failure(world, "incoming:person:1").fingerprint


def test_one_subject_shows_once_with_its_newest_reason(world: World) -> None:
    first, second = failure(world, "batch:1", attempts=2), failure(world, "batch:1", reason="gone", attempts=3)
    with transaction() as session:
        failures.keep_failures(session, [first, second])
        failures.keep_failures(session, [first])
        failures.keep_failures(session, [])

    rows = world.rows("SELECT reason, attempts FROM failures")
    assert [tuple(row) for row in rows] == [("option_unknown", 7)]


def test_a_run_is_looked_up_within_its_connector(world: World) -> None:
    mine = failure(world, "incoming:person:1", run_id=7)
    with transaction() as session:
        failures.keep_failures(session, [mine])
        told = [
            failures.told_in_run(session, key, 7, [mine.subject])
            for key in (world.connector_key, world.connector_key + 1)
        ]

    assert told == [{(mine.subject, "option_unknown")}, set()]
