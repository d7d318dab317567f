"""Scheduled full fetches: beat only ticks, SQL decides what is due, and a missed time is caught up once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from freezegun import freeze_time
from sqlalchemy import text

from db import connector as connectors
from db import schedule
from db.schedule import request_catch_up
from db.session import transaction
from pipeline.domain.cron import nightly
from pipeline.domain.settings import ConnectorSettings
from tests.world import CONNECTOR_ID, World

NIGHTLY = "15 2 * * *"


def plan(world: World, cron: str = NIGHTLY, minutes: int = 0) -> None:
    chosen = ConnectorSettings(full_fetch_cron=cron, incremental_minutes=minutes)
    with transaction() as session:
        connector = connectors.get_connector(session, world.connector_key)
        world.module("sync.runs.schedules").plan(session, connector, chosen)


def come_due(world: World, ago: str = "1 s") -> None:
    world.change_rows("UPDATE schedules SET next_run_at = now() - CAST(:ago AS interval)", ago=ago)


def tick(world: World) -> None:
    world.module("tasks.control").start_scheduled()


def runs(world: World) -> list[tuple[str, str, bool]]:
    return [tuple(row) for row in world.rows("SELECT entity, cause, changed_only FROM runs ORDER BY id")]


def test_a_plan_is_kept_replaced_and_dropped(world: World) -> None:
    with freeze_time("2026-03-01T00:00:00Z", real_asyncio=True):
        plan(world)
        first = world.rows("SELECT cron, next_run_at FROM schedules")
        plan(world, "0 5 * * *")
        second = world.rows("SELECT cron, next_run_at FROM schedules")
    plan(world, "")

    assert [tuple(row) for row in first] == [(NIGHTLY, datetime(2026, 3, 1, 2, 15, tzinfo=UTC))]
    assert [tuple(row) for row in second] == [("0 5 * * *", datetime(2026, 3, 1, 5, 0, tzinfo=UTC))]
    assert world.rows("SELECT 1 FROM schedules") == []


def test_nothing_starts_before_its_time(world: World) -> None:
    plan(world)

    tick(world)

    assert runs(world) == []


def test_a_due_fetch_starts_for_both_entities_and_skips_unchanged_records(world: World) -> None:
    plan(world)
    come_due(world)

    tick(world)

    assert sorted(runs(world)) == [("organization", "schedule", True), ("person", "schedule", True)]
    (row,) = world.rows("SELECT next_run_at > now() AS ahead, last_run_at IS NOT NULL AS ran FROM schedules")
    assert (row.ahead, row.ran) == (True, True)


def test_two_ticks_start_it_once(world: World) -> None:
    plan(world)
    come_due(world)

    tick(world)
    tick(world)

    assert len(runs(world)) == 2


def test_a_second_tick_in_the_same_moment_finds_it_taken(world: World) -> None:
    """Two beats: while one has the row, the other does not wait for it."""
    plan(world)
    come_due(world)

    with transaction() as first:
        taken = schedule.take_due(first, world.connector_key)
        with transaction() as second:
            second.execute(text("SET LOCAL lock_timeout = '200ms'"))
            also = schedule.take_due(second, world.connector_key)

    assert (len(taken), also) == (1, [])


def test_a_night_without_beat_is_caught_up_once(world: World) -> None:
    plan(world)
    come_due(world, "5 days")

    tick(world)
    tick(world)

    assert len(runs(world)) == 2
    (row,) = world.rows("SELECT next_run_at FROM schedules")
    assert row.next_run_at - datetime.now(UTC) <= timedelta(days=1)


def test_a_fetch_under_way_is_not_started_again(world: World) -> None:
    from pipeline.domain.kinds import Entity  # noqa: PLC0415

    world.start(Entity.PERSON)
    plan(world)
    come_due(world)

    tick(world)

    assert [(entity, cause) for entity, cause, _ in runs(world)] == [("person", "test"), ("organization", "schedule")]


def test_a_paused_connector_starts_nothing_and_keeps_its_plan(world: World) -> None:
    plan(world)
    come_due(world)
    world.change_rows("UPDATE connectors SET state = 'paused'")

    tick(world)

    assert runs(world) == []
    assert world.rows("SELECT 1 FROM schedules") != []


def test_without_a_word_in_the_settings_everything_is_fetched_nightly_and_changes_every_five_minutes(
    world: World,
) -> None:
    plan(world, ConnectorSettings().full_fetch_cron, ConnectorSettings().incremental_minutes)

    planned = {
        row.kind: (row.cron, row.interval_s) for row in world.rows("SELECT kind, cron, interval_s FROM schedules")
    }
    assert planned == {"full_fetch": (nightly(CONNECTOR_ID), None), "incremental": (None, 300)}


def test_changes_are_fetched_at_once_and_again_after_the_interval(world: World) -> None:
    plan(world, "", 5)

    tick(world)
    world.work()
    tick(world)

    assert [(entity, cause) for entity, cause, _ in runs(world)] == [
        ("person", "schedule"),
        ("organization", "schedule"),
    ]
    (row,) = world.rows("SELECT extract(epoch FROM next_run_at - now()) AS wait_s FROM schedules")
    assert 290 < row.wait_s <= 300


def test_a_catch_up_that_is_asked_for_comes_with_the_next_tick(world: World) -> None:
    plan(world, "", 5)
    tick(world)
    world.work()

    with transaction() as session:
        request_catch_up(session, world.connector_key)
    tick(world)

    assert len(runs(world)) == 4


def test_new_settings_do_not_put_off_what_is_due(world: World) -> None:
    plan(world, "", 5)
    plan(world, "", 1440)

    tick(world)

    assert len(runs(world)) == 2


def test_an_interval_of_none_ends_the_plan(world: World) -> None:
    plan(world, "", 5)
    plan(world, "", 0)

    assert world.rows("SELECT 1 FROM schedules") == []
