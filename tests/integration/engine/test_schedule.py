"""Scheduled fetches: beat only ticks, SQL decides what is due, and missed times are caught up once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time
from sqlalchemy import text

from db import connector as connectors
from db import schedule
from db.schedule import request_catch_up
from db.session import transaction
from pipeline.domain.cron import nightly
from pipeline.domain.settings import ConnectorSettings
from tests.system import CONNECTOR_ID, SyncSystem

NIGHTLY = "15 2 * * *"


def plan(system: SyncSystem, cron: str = NIGHTLY, minutes: int = 0) -> None:
    chosen = ConnectorSettings(full_fetch_cron=cron, incremental_minutes=minutes)
    with transaction() as session:
        connector = connectors.get_connector(session, system.connector_key)
        system.module("sync.runs.schedules").plan(session, connector, chosen)


def come_due(system: SyncSystem, ago: str = "1 s") -> None:
    system.change_rows("UPDATE schedules SET next_run_at = now() - CAST(:ago AS interval)", ago=ago)


def tick(system: SyncSystem) -> None:
    system.module("tasks.control").start_scheduled()


def runs(system: SyncSystem) -> list[tuple[str, str, bool]]:
    return [tuple(row) for row in system.rows("SELECT entity, cause, changed_only FROM runs ORDER BY id")]


def test_a_schedule_is_stored_replaced_and_deleted(system: SyncSystem) -> None:
    with freeze_time("2026-03-01T00:00:00Z", real_asyncio=True):
        plan(system)
        first = system.rows("SELECT cron, next_run_at FROM schedules")
        plan(system, "0 5 * * *")
        second = system.rows("SELECT cron, next_run_at FROM schedules")
    plan(system, "")

    assert [tuple(row) for row in first] == [(NIGHTLY, datetime(2026, 3, 1, 2, 15, tzinfo=UTC))]
    assert [tuple(row) for row in second] == [("0 5 * * *", datetime(2026, 3, 1, 5, 0, tzinfo=UTC))]
    assert system.rows("SELECT 1 FROM schedules") == []


def test_nothing_starts_before_its_time(system: SyncSystem) -> None:
    plan(system)

    tick(system)

    assert runs(system) == []


@pytest.mark.guide(
    "Incoming Users",
    "Every night everything is fetched again; Schedule of full fetches sets another time or switches it off.",
)
def test_a_due_fetch_starts_for_both_entities_and_skips_unchanged_records(system: SyncSystem) -> None:
    plan(system)
    come_due(system)

    tick(system)

    assert sorted(runs(system)) == [("organization", "schedule", True), ("person", "schedule", True)]
    (row,) = system.rows("SELECT next_run_at > now() AS ahead, last_run_at IS NOT NULL AS ran FROM schedules")
    assert (row.ahead, row.ran) == (True, True)


def test_two_ticks_start_it_once(system: SyncSystem) -> None:
    plan(system)
    come_due(system)

    tick(system)
    tick(system)

    assert len(runs(system)) == 2


def test_a_second_tick_at_the_same_moment_finds_it_claimed(system: SyncSystem) -> None:
    """With two beats: while one has locked the row, the other one does not wait."""
    plan(system)
    come_due(system)

    with transaction() as first:
        taken = schedule.take_due(first, system.connector_key)
        with transaction() as second:
            second.execute(text("SET LOCAL lock_timeout = '200ms'"))
            also = schedule.take_due(second, system.connector_key)

    assert (len(taken), also) == (1, [])


def test_a_night_without_beat_is_caught_up_once(system: SyncSystem) -> None:
    plan(system)
    come_due(system, "5 days")

    tick(system)
    tick(system)

    assert len(runs(system)) == 2
    (row,) = system.rows("SELECT next_run_at FROM schedules")
    assert row.next_run_at - datetime.now(UTC) <= timedelta(days=1)


def test_a_running_fetch_is_not_started_again(system: SyncSystem) -> None:
    from pipeline.domain.kinds import Entity  # noqa: PLC0415

    system.start(Entity.PERSON)
    plan(system)
    come_due(system)

    tick(system)

    assert [(entity, cause) for entity, cause, _ in runs(system)] == [("person", "test"), ("organization", "schedule")]


def test_a_paused_connector_starts_nothing_and_keeps_its_schedule(system: SyncSystem) -> None:
    plan(system)
    come_due(system)
    system.change_rows("UPDATE connectors SET state = 'paused'")

    tick(system)

    assert runs(system) == []
    assert system.rows("SELECT 1 FROM schedules") != []


@pytest.mark.guide(
    "Incoming Users",
    "Every night everything is fetched again; Schedule of full fetches sets another time or switches it off.",
)
def test_by_default_everything_is_fetched_nightly_and_changes_every_five_minutes(
    system: SyncSystem,
) -> None:
    plan(system, ConnectorSettings().full_fetch_cron, ConnectorSettings().incremental_minutes)

    planned = {
        row.kind: (row.cron, row.interval_s) for row in system.rows("SELECT kind, cron, interval_s FROM schedules")
    }
    assert planned == {"full_fetch": (nightly(CONNECTOR_ID), None), "incremental": (None, 300)}


def test_changes_are_fetched_immediately_and_again_after_the_interval(system: SyncSystem) -> None:
    plan(system, "", 5)

    tick(system)
    system.work()
    tick(system)

    assert [(entity, cause) for entity, cause, _ in runs(system)] == [
        ("person", "schedule"),
        ("organization", "schedule"),
    ]
    (row,) = system.rows("SELECT extract(epoch FROM next_run_at - now()) AS wait_s FROM schedules")
    assert 290 < row.wait_s <= 300


def test_a_requested_catch_up_starts_at_the_next_tick(system: SyncSystem) -> None:
    plan(system, "", 5)
    tick(system)
    system.work()

    with transaction() as session:
        request_catch_up(session, system.connector_key)
    tick(system)

    assert len(runs(system)) == 4


def test_new_settings_do_not_delay_a_due_fetch(system: SyncSystem) -> None:
    plan(system, "", 5)
    plan(system, "", 1440)

    tick(system)

    assert len(runs(system)) == 2


def test_an_interval_of_null_deletes_the_schedule(system: SyncSystem) -> None:
    plan(system, "", 5)
    plan(system, "", 0)

    assert system.rows("SELECT 1 FROM schedules") == []
