"""Hull stays equal to Pipedrive by itself, and the pipeline can say up to what moment that is true."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import schedule, watermark
from db.run import Run
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.people import age, fill, names
from tests.prepared import prepared
from tests.world import World

FIVE_S = timedelta(seconds=5)


@pytest.fixture
@prepared
def settled(world: World) -> World:
    """A world that was fetched whole an hour ago, with webhooks, and where schedules tick."""
    fill(world, persons=6, organizations=2)
    for entity in Entity:
        age(world, entity)
        world.fetch(entity)
    for table, column in (("connectors", "created_at"), ("watermarks", "reached_at"), ("watermarks", "complete_since")):
        world.change_rows(f"UPDATE {table} SET {column} = {column} - interval '1 hour'")  # noqa: S608 - names of ours
    for entity in Entity:
        world.change_rows(
            "INSERT INTO webhook_subscriptions (connector_key, entity, state) VALUES (:key, :entity, 'active')",
            key=world.connector_key,
            entity=entity,
        )
    with transaction() as session:
        schedule.set_schedule(session, world.connector_key, "incremental", interval_s=300, next_run_at=now())
    return world


def now() -> datetime:
    return datetime.now(UTC)


def some_minutes_ago(world: World, minutes: float = 10) -> None:
    """What is edited from now on was edited then."""
    world.company.clock = lambda: time.time() - 60 * minutes


def tick(world: World) -> None:
    """The next incremental fetch comes due, and is carried out."""
    world.change_rows("UPDATE schedules SET next_run_at = now() WHERE kind = 'incremental'")
    world.module("tasks.control").start_scheduled()
    world.work()


def claimed(world: World, entity: Entity = Entity.PERSON) -> datetime | None:
    with transaction() as session:
        found = watermark.find_watermark(session, world.connector_key, entity)
    return found.claimed if found else None


def excepted(world: World) -> int:
    (row,) = world.rows("SELECT excepted FROM watermarks WHERE entity = 'person'")
    return int(row.excepted)


def gaps(world: World) -> list[tuple[str, str]]:
    rows = world.rows("SELECT entity, detail FROM sync_events WHERE reason = 'gap_repaired' ORDER BY id")
    return [(row.entity, row.detail) for row in rows]


def newest_run(world: World) -> Any:
    (row,) = world.rows("SELECT id, started_at, state FROM runs WHERE entity = 'person' ORDER BY id DESC LIMIT 1")
    return row


def test_before_everything_was_read_once_nothing_is_claimed(world: World) -> None:
    fill(world, persons=2, organizations=0)

    world.fetch(Entity.PERSON, since=now() - timedelta(days=1))

    assert claimed(world) is None


def test_a_full_fetch_vouches_for_what_changed_before_it_began(world: World) -> None:
    run = world.fetch(Entity.PERSON)

    assert claimed(world) == run.started_at - FIVE_S


def test_an_incremental_fetch_moves_the_watermark_to_its_own_beginning(settled: World) -> None:
    before = claimed(settled)

    tick(settled)

    assert before is not None
    assert claimed(settled) == newest_run(settled).started_at - FIVE_S > before


def test_a_lost_webhook_is_made_up_for(settled: World) -> None:
    some_minutes_ago(settled)
    settled.company.edit_person(3, name="Changed in silence")

    tick(settled)

    assert names(settled)[3] == "Changed in silence"


def test_an_incremental_fetch_with_nothing_changed_costs_twenty_tokens_and_says_nothing(settled: World) -> None:
    events, before = len(settled.events()), settled.pipedrive.ledger.stats()

    tick(settled)

    after = settled.pipedrive.ledger.stats()
    assert (after["tokens_total"] - before["tokens_total"], after["requests_total"] - before["requests_total"]) == (
        20,
        2,
    )
    assert len(settled.events()) == events


def test_what_no_webhook_told_of_is_reported_as_a_gap(settled: World) -> None:
    some_minutes_ago(settled)
    settled.company.edit_person(3, name="One")
    settled.company.edit_person(4, name="Two")

    tick(settled)

    ((entity, detail),) = gaps(settled)
    assert entity == "person"
    assert detail.startswith("2 Persons, changed from ")
    assert [row.state for row in settled.rows("SELECT state FROM webhook_subscriptions WHERE entity = 'person'")] == [
        "silent"
    ]


def test_what_a_webhook_told_of_is_no_gap(settled: World) -> None:
    some_minutes_ago(settled)
    said = listen(settled)
    settled.company.edit_person(3, name="Told")
    deliver(settled, *said)
    settled.work()

    tick(settled)

    assert names(settled)[3] == "Told"
    assert gaps(settled) == []


def test_what_changed_a_moment_ago_may_still_be_told(settled: World) -> None:
    settled.company.edit_person(3, name="Just now")

    tick(settled)

    assert names(settled)[3] == "Just now"
    assert gaps(settled) == []


def test_a_webhook_never_moves_the_watermark(settled: World) -> None:
    before = claimed(settled)

    said = listen(settled)
    settled.company.edit_person(3, name="Told")
    deliver(settled, *said)
    settled.work()

    assert claimed(settled) == before


def test_a_fetch_that_was_cancelled_proves_nothing(settled: World) -> None:
    before = claimed(settled)
    settled.change_rows("UPDATE schedules SET next_run_at = now()")
    settled.module("tasks.control").start_scheduled()

    settled.cancel_run(newest_run(settled).id)
    settled.work()

    assert claimed(settled) == before


def test_a_walk_that_leaves_a_hole_behind_moves_nothing_and_the_next_one_closes_it(settled: World) -> None:
    before = claimed(settled)
    some_minutes_ago(settled, 30)
    settled.company.edit_person(3, name="In the hole")

    settled.fetch(Entity.PERSON, since=now() - timedelta(minutes=5))
    assert (claimed(settled), names(settled)[3]) == (before, "Person 3")
    tick(settled)

    assert names(settled)[3] == "In the hole"


def test_a_record_that_failed_is_an_exception_by_name(settled: World) -> None:
    settled.company.put_raw("person", {"id": 3, "name": "Broken", "update_time": "never"})

    tick(settled)

    assert excepted(settled) == 1


def test_the_watermark_never_goes_back(settled: World) -> None:
    tick(settled)
    before = claimed(settled)
    with transaction() as session:
        run = session.get_one(Run, newest_run(settled).id)
        run.started_at -= timedelta(hours=2)
        watermark.move(session, run, run.started_at)
        session.expunge(run)

    assert claimed(settled) == before
