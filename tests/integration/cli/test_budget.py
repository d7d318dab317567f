"""The daily budget on the command line: tokens spent and left, and the estimate before a fetch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from sqlalchemy import text

from db import token_ledger
from db.session import engine, transaction
from pipeline import wiring
from pipeline.cli import rendering_connectors
from pipeline.domain.kinds import Entity
from tests.command_line import Run
from tests.journeys.pipedrive_records import age_records, create_records
from tests.manual_clock import Clock
from tests.system import SyncSystem

pytestmark = pytest.mark.usefixtures("noon")


def spend(system: SyncSystem, tokens: int, *, lane: str = "bulk", operation: str = "list", days_ago: int = 0) -> None:
    system.change_rows(
        "INSERT INTO token_ledger VALUES (:key, (now() AT TIME ZONE 'UTC')::date - :ago, :lane, :operation, :calls, :tokens)",
        key=system.connector_key,
        ago=days_ago,
        lane=lane,
        operation=operation,
        calls=tokens // 10,
        tokens=tokens,
    )


def test_shows_spent_left_and_reserved_tokens(system: SyncSystem, run: Run) -> None:
    system.change_settings(daily_tokens=1_000)
    spend(system, 300)
    spend(system, 40, lane="live", operation="update")
    result = run("budget", "acme", "--json").json

    assert (result["spent"], result["limit"], result["left"]) == (340, 1_000, 660)
    assert (result["reserve"], result["left_for_fetches"], result["closed_s"]) == (200, 460, None)
    assert result["lanes"] == [
        {"lane": "bulk", "operation": "list", "calls": 30, "tokens": 300},
        {"lane": "live", "operation": "update", "calls": 4, "tokens": 40},
    ]


def test_a_day_without_limit_has_no_reserve(system: SyncSystem, run: Run) -> None:
    system.change_settings(daily_tokens=0)
    result = run("budget", "acme", "--json").json

    assert (result["limit"], result["left"], result["reserve"], result["left_for_fetches"]) == (None, None, None, None)
    assert result["fits"]


def test_the_last_week_is_listed_day_by_day(system: SyncSystem, run: Run) -> None:
    for ago in range(9):
        spend(system, 10 * (ago + 1), days_ago=ago)
    result = run("budget", "acme", "--json").json

    assert [day["tokens"] for day in result["days"]] == [70, 60, 50, 40, 30, 20, 10]


def test_the_forecast_counts_schedules_and_the_current_pace(system: SyncSystem, run: Run) -> None:
    system.change_rows(
        "INSERT INTO schedules (connector_key, kind, interval_s, next_run_at) VALUES (:key, 'incremental', 300, now())",
        key=system.connector_key,
    )
    spend(system, 100, lane="live")
    with transaction() as session:
        gone_s = 86_400 - (_midnight(token_ledger.moment(session)) - token_ledger.moment(session)).total_seconds()
    day = run("budget", "acme", "--json").json
    result = day["forecast"]

    assert result["schedules"] == pytest.approx((86_400 - gone_s) / 300 * 20, abs=40)
    assert result["others"] == pytest.approx(100 / gone_s * (86_400 - gone_s), rel=0.05, abs=2)
    assert day["by_end"] == 100 + result["schedules"] + result["others"]


def _midnight(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def test_a_fetch_in_flight_is_shown_with_its_end(system: SyncSystem, run: Run) -> None:
    create_records(system, persons=500, organizations=0)
    run_id = system.start(Entity.PERSON)
    for _ in range(4):
        due = system.next_batch()
        assert due is not None
        system.run_batch_stage(*due)
    [found] = run("budget", "acme", "--json").json["runs"]

    assert (found["run_id"], found["entity"]) == (run_id, "person")
    assert found["pages_left"] is None or found["pages_left"] <= 10
    assert f"run {run_id} (persons)" in run("budget", "acme").out


def test_a_new_fetch_is_estimated_from_the_known_records(system: SyncSystem, run: Run) -> None:
    create_records(system, persons=320, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    system.start(Entity.PERSON)
    [found] = run("budget", "acme", "--json").json["runs"]

    assert (found["pages_left"], found["ends_at"] is not None) == (9, True)


def test_prints_sentences_without_a_bar_to_a_pipe(system: SyncSystem, run: Run) -> None:
    system.change_settings(daily_tokens=1_000)
    spend(system, 300)
    result = run("budget", "acme").out

    assert "acme: 300 tokens spent today of 1,000; 700 left" in result
    assert "fetches may spend 500 more; 200 are reserved for live work" in result
    assert "━" not in result


def test_a_terminal_gets_a_bar(system: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering_connectors, "console", lambda: Console(force_terminal=True, width=100))
    system.change_settings(daily_tokens=1_000)
    spend(system, 300)

    assert "━" in run("budget", "acme").out


def test_a_day_that_pipedrive_closed_is_shown(system: SyncSystem, run: Run) -> None:
    with transaction() as session:
        wiring.open_budget(session, system.connector_key)._run("close", 1_800)
    result = run("budget", "acme")

    assert "Pipedrive refuses calls: the budget is spent. Next call in 30 min" in result.out
    assert run("budget", "acme", "--json").json["left_for_fetches"] == 0


def test_the_cost_of_a_first_fetch_is_unknown(system: SyncSystem, run: Run) -> None:
    assert "not known before the first full fetch" in run("fetch", "persons", "acme").out


def test_a_fetch_costs_what_was_estimated(system: SyncSystem, run: Run, noon: Clock) -> None:
    create_records(system, persons=320, organizations=60)
    age_records(system, Entity.PERSON)
    age_records(system, Entity.ORGANIZATION)
    for entity in (Entity.ORGANIZATION, Entity.PERSON):
        system.fetch(entity)
    noon.move(3_600)
    before = system.pipedrive.ledger.stats()["tokens_total"]
    result = run("fetch", "all", "acme").out
    system.work()

    spent = system.pipedrive.ledger.stats()["tokens_total"] - before
    assert f"{spent} tokens" in result
    assert "Warning" not in result


def test_a_fetch_that_is_too_large_for_today_warns_with_its_end(system: SyncSystem, run: Run) -> None:
    create_records(system, persons=320, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    system.change_settings(daily_tokens=200)
    result = run("fetch", "persons", "acme").out

    assert "Warning: today has 60 tokens left for fetches; the rest waits, it will be done about" in result


def test_json_has_no_estimate(system: SyncSystem, run: Run) -> None:
    assert run("fetch", "persons", "acme", "--json").json[0]["entity"] == "person"


def test_the_last_calls_of_a_command_are_in_the_ledger(
    system: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        rendering_connectors,
        "print_rows",
        lambda *_, **__: token_ledger.record_pending(system.connector_key, "control", "me", 2),
    )
    run("budget", "acme")

    with engine().connect() as connection:  # not a transaction of ours, which would write it down itself
        rows = connection.execute(text("SELECT lane, operation, tokens FROM token_ledger")).all()
    assert [tuple(row) for row in rows] == [("control", "me", 2)]
