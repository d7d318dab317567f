"""An error of one connector does not stop the others, and its log lines name the connector."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.contextvars import clear_contextvars, get_contextvars

from db.session import transaction
from pipeline.errors import ConfigurationError, PipelineError, Retryable
from tests.integration.engine.test_schedule import come_due, plan
from tests.logs import captured_log
from tests.system import CONNECTOR_ID, SyncSystem

ENGINE = [Path(__file__).parents[3] / "pipeline" / each for each in ("tasks", "sync", "jobs")]
ROUNDS = {
    "resolve_hull_ids": ("sync.changes.hull_ids", "resolve"),
    "ensure_webhooks": ("sync.connectors.webhooks", "ensure_webhooks"),
    "fill_shells": ("sync.runs.schedules", "fill_shells"),
    "find_duplicates": ("sync.duplicates", "find"),
    "start_scheduled": ("sync.runs.schedules", "start_due"),
}
"""Task → the module it is in, and the function that does the work for one connector."""


@pytest.fixture
def other(system: SyncSystem) -> int:
    """Return a second connector with the same work as the first one."""
    with transaction() as session:
        session.execute(
            text(
                "INSERT INTO connectors (key, id, name, hull_organization) VALUES (99, 'other', 'other', 'other.test')"
            )
        )
        for key in (system.connector_key, 99):
            session.execute(
                text(
                    "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by)"
                    " VALUES (:c, 'organization', 1, 'shell', 'referenced')"
                ),
                {"c": key},
            )
    return 99


def failing_first(
    monkeypatch: pytest.MonkeyPatch, system: SyncSystem, task: str, error: Exception
) -> tuple[Callable[[], Any], list[tuple[int, Any]]]:
    """Return the task, which fails for the first connector, and (connector, id in log lines) of each call."""
    clear_contextvars()
    place, name = ROUNDS[task]
    turns: list[tuple[int, Any]] = []

    def work(connector_key: int) -> bool:
        turns.append((connector_key, get_contextvars().get("connector_id")))
        if connector_key == system.connector_key:
            raise error
        return False

    monkeypatch.setattr(system.module(place), name, work)
    return getattr(system.module("tasks.control"), task), turns


@pytest.mark.parametrize("task", ROUNDS)
def test_an_error_of_one_connector_does_not_stop_the_others(
    system: SyncSystem, other: int, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    with transaction() as session:
        session.execute(
            text(
                "INSERT INTO schedules (connector_key, kind, interval_s, next_run_at) SELECT key, 'incremental', 60, now()"
                " FROM connectors ON CONFLICT (connector_key, kind) DO UPDATE SET next_run_at = now()"
            )
        )
        session.execute(text("DELETE FROM webhook_subscriptions"))
        session.execute(
            text(
                "INSERT INTO credentials (connector_key, name, ciphertext)"
                " SELECT :key, name, ciphertext FROM credentials WHERE connector_key = :c"
            ),
            {"key": other, "c": system.connector_key},
        )
    run, turns = failing_first(monkeypatch, system, task, PipelineError("internal_error", "broken"))

    with captured_log("error", with_bound=True) as log, pytest.raises(system.module("sync.stage").StageFailed):
        run()

    assert turns == [(system.connector_key, CONNECTOR_ID), (other, "other")]
    assert [line["connector_id"] for line in log if line["event"] == "control.error"] == [CONNECTOR_ID]
    kept = system.rows("SELECT connector_key, stage, reason FROM failures")
    assert [tuple(row) for row in kept] == [(system.connector_key, task, "internal_error")]
    assert "connector_id" not in get_contextvars()


def test_a_temporary_error_is_left_to_the_next_tick(
    system: SyncSystem, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, turns = failing_first(monkeypatch, system, "fill_shells", Retryable("remote_unavailable", "503"))

    with captured_log("warning", with_bound=True) as log:
        run()

    assert [key for key, _ in turns] == [system.connector_key, other]
    assert [(line["event"], line["connector_id"], line["control"]) for line in log] == [
        ("control.retry", CONNECTOR_ID, "fill_shells")
    ]


def test_the_log_line_of_a_pause_names_the_connector(
    system: SyncSystem, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = failing_first(monkeypatch, system, "fill_shells", ConfigurationError("unauthorized", "401"))

    with captured_log("error", with_bound=True) as log, pytest.raises(system.module("sync.stage").StageFailed):
        run()

    [line] = [line for line in log if line["event"] == "incoming.job.error"]
    assert (line["error"], line["connector_id"]) == ("Unauthorized", CONNECTOR_ID)


def test_an_error_that_cannot_be_stored_does_not_stop_the_others(
    system: SyncSystem, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, turns = failing_first(monkeypatch, system, "fill_shells", PipelineError("internal_error", "broken"))

    def refuse(*_given: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(system.module("sync.each_connector").failures, "keep_failures", refuse)

    with pytest.raises(system.module("sync.stage").StageFailed):
        run()

    assert [key for key, _ in turns] == [system.connector_key, other]


TAKES_TOO_LONG = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END $$"


@pytest.mark.parametrize("statement", ["SELECT 1 / 0", TAKES_TOO_LONG], ids=["defect", "statement time-out"])
def test_a_connector_that_cannot_be_evaluated_keeps_its_alerts_and_does_not_stop_the_others(
    system: SyncSystem, other: int, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    alerts = system.module("sync.alerts")
    good = alerts.facts_of
    system.change_rows("UPDATE connectors SET state = 'paused', pause_reason = 'unauthorized'")
    alerts.evaluate()
    system.change_rows("UPDATE alerts SET seen_at = now() - interval '10 minutes'")

    def broken_for_the_first(session: Any, connector: Any) -> Any:
        if connector.key == system.connector_key:
            session.execute(text(statement))
        return good(session, connector)

    monkeypatch.setattr(alerts, "facts_of", broken_for_the_first)
    with captured_log("error", with_bound=True) as log:
        alerts.evaluate()

    states = system.rows("SELECT connector_key, state FROM alerts WHERE rule = 'auth_lost' ORDER BY 1")
    assert [tuple(row) for row in states] == [(system.connector_key, "open"), (other, "open")]
    assert [line["connector_id"] for line in log if line["event"] == "alerts.not_evaluated"] == [CONNECTOR_ID]


def test_a_schedule_that_cannot_be_started_does_not_stop_the_others(
    system: SyncSystem, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(system)
    come_due(system)
    system.change_rows(
        "INSERT INTO schedules (connector_key, kind, cron, next_run_at)"
        " VALUES (99, 'full_fetch', 'no cron', now() - interval '1 d')"
    )

    with pytest.raises(system.module("sync.stage").StageFailed):
        system.module("tasks.control").start_scheduled()

    assert {row.connector_key for row in system.rows("SELECT connector_key FROM runs")} >= {system.connector_key}


def test_control_tasks_iterate_over_connectors_by_one_helper() -> None:
    """In a separate loop over connectors, one connector could stop the others."""
    judged = {"alerts.py", "setup.py"}
    """`alerts` isolates each connector in one transaction; `setup` encrypts all secrets again, or none."""
    loops = {
        path.name
        for package in ENGINE
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.For)
        and any(word in ast.unparse(node.iter) for word in ("all_connectors", "keys", "due"))
        if any(word in ast.unparse(node.target) for word in ("connector", "key"))
        if "connector" in ast.unparse(node)
    }
    assert loops - judged <= {"each_connector.py", "dispatch.py"}


def test_a_database_error_before_the_work_is_left_to_the_next_tick(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    each_connector = system.module("sync.each_connector")
    done: list[int] = []

    def unavailable(*_arguments: Any) -> Any:
        raise OperationalError("SELECT", {}, OSError("connection lost"))

    monkeypatch.setattr(each_connector, "outages_of", unavailable)
    with captured_log() as log:
        each_connector.for_each_connector("fill_shells", [system.connector_key], None, done.append)

    assert done == []
    assert [(line["event"], line["reason"]) for line in log] == [("control.retry", "database_unavailable")]
