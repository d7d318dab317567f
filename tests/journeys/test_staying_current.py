"""Hull stays up to date with Pipedrive automatically, and the watermark shows until when."""

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
from tests.journeys.pipedrive_records import age_records, create_records, hull_names
from tests.prepared import prepared
from tests.system import SyncSystem

FIVE_S = timedelta(seconds=5)


@pytest.fixture
@prepared
def current_system(system: SyncSystem) -> SyncSystem:
    """Return a system after a full fetch an hour ago, with webhooks and schedules."""
    create_records(system, persons=6, organizations=2)
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)
    for table, column in (("connectors", "created_at"), ("watermarks", "reached_at"), ("watermarks", "complete_since")):
        system.change_rows(f"UPDATE {table} SET {column} = {column} - interval '1 hour'")  # noqa: S608 - names of ours
    for entity in Entity:
        system.change_rows(
            "INSERT INTO webhook_subscriptions (connector_key, entity, state) VALUES (:key, :entity, 'active')",
            key=system.connector_key,
            entity=entity,
        )
    with transaction() as session:
        schedule.set_schedule(session, system.connector_key, "incremental", interval_s=300, next_run_at=now())
    return system


def now() -> datetime:
    return datetime.now(UTC)


def some_minutes_ago(system: SyncSystem, minutes: float = 10) -> None:
    """What is edited from now on was edited then."""
    system.company.clock = lambda: time.time() - 60 * minutes


def tick(system: SyncSystem) -> None:
    """The next incremental fetch comes due, and is carried out."""
    system.change_rows("UPDATE schedules SET next_run_at = now() WHERE kind = 'incremental'")
    system.module("tasks.control").start_scheduled()
    system.work()


def claimed(system: SyncSystem, entity: Entity = Entity.PERSON) -> datetime | None:
    with transaction() as session:
        found = watermark.find_watermark(session, system.connector_key, entity)
    return found.claimed if found else None


def excepted(system: SyncSystem) -> int:
    (row,) = system.rows("SELECT excepted FROM watermarks WHERE entity = 'person'")
    return int(row.excepted)


def gaps(system: SyncSystem) -> list[tuple[str, str]]:
    rows = system.rows("SELECT entity, detail FROM sync_events WHERE reason = 'gap_repaired' ORDER BY id")
    return [(row.entity, row.detail) for row in rows]


def newest_run(system: SyncSystem) -> Any:
    (row,) = system.rows("SELECT id, started_at, state FROM runs WHERE entity = 'person' ORDER BY id DESC LIMIT 1")
    return row


def test_before_everything_was_read_once_nothing_is_claimed(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)

    system.fetch(Entity.PERSON, since=now() - timedelta(days=1))

    assert claimed(system) is None


def test_a_full_fetch_vouches_for_what_changed_before_it_began(system: SyncSystem) -> None:
    run = system.fetch(Entity.PERSON)

    assert claimed(system) == run.started_at - FIVE_S


def test_an_incremental_fetch_moves_the_watermark_to_its_own_beginning(current_system: SyncSystem) -> None:
    before = claimed(current_system)

    tick(current_system)

    assert before is not None
    assert claimed(current_system) == newest_run(current_system).started_at - FIVE_S > before


@pytest.mark.guide(
    "Incoming Users",
    "Every few minutes the changes in Pipedrive are fetched, so that a lost webhook only delays a change by minutes.",
)
@pytest.mark.defect(18, "Nothing was fetched by schedule: what no webhook told stayed unknown.")
@pytest.mark.defect(18, "There was no fetch of what changed, only of everything.")
def test_a_lost_webhook_is_made_up_for(current_system: SyncSystem) -> None:
    some_minutes_ago(current_system)
    current_system.company.edit_person(3, name="Changed in silence")

    tick(current_system)

    assert hull_names(current_system)[3] == "Changed in silence"


@pytest.mark.defect(18, "There was no fetch of what changed, only of everything.")
def test_an_incremental_fetch_without_changes_costs_twenty_tokens_and_sends_nothing(current_system: SyncSystem) -> None:
    events, before = len(current_system.events()), current_system.pipedrive.ledger.stats()

    tick(current_system)

    after = current_system.pipedrive.ledger.stats()
    assert (after["tokens_total"] - before["tokens_total"], after["requests_total"] - before["requests_total"]) == (
        20,
        2,
    )
    assert len(current_system.events()) == events


def test_a_change_without_a_webhook_is_reported_as_a_gap(current_system: SyncSystem) -> None:
    some_minutes_ago(current_system)
    current_system.company.edit_person(3, name="One")
    current_system.company.edit_person(4, name="Two")

    tick(current_system)

    ((entity, detail),) = gaps(current_system)
    assert entity == "person"
    assert detail.startswith("2 Persons, changed from ")
    assert [
        row.state for row in current_system.rows("SELECT state FROM webhook_subscriptions WHERE entity = 'person'")
    ] == ["silent"]


def test_a_change_with_a_webhook_is_not_a_gap(current_system: SyncSystem) -> None:
    some_minutes_ago(current_system)
    webhooks = listen(current_system)
    current_system.company.edit_person(3, name="Told")
    deliver(current_system, *webhooks)
    current_system.work()

    tick(current_system)

    assert hull_names(current_system)[3] == "Told"
    assert gaps(current_system) == []


def test_a_recent_change_may_still_get_a_webhook(current_system: SyncSystem) -> None:
    current_system.company.edit_person(3, name="Just now")

    tick(current_system)

    assert hull_names(current_system)[3] == "Just now"
    assert gaps(current_system) == []


def test_a_webhook_never_moves_the_watermark(current_system: SyncSystem) -> None:
    before = claimed(current_system)

    webhooks = listen(current_system)
    current_system.company.edit_person(3, name="Told")
    deliver(current_system, *webhooks)
    current_system.work()

    assert claimed(current_system) == before


def test_a_fetch_that_was_cancelled_proves_nothing(current_system: SyncSystem) -> None:
    before = claimed(current_system)
    current_system.change_rows("UPDATE schedules SET next_run_at = now()")
    current_system.module("tasks.control").start_scheduled()

    current_system.cancel_run(newest_run(current_system).id)
    current_system.work()

    assert claimed(current_system) == before


def test_a_walk_that_leaves_a_hole_behind_moves_nothing_and_the_next_one_closes_it(current_system: SyncSystem) -> None:
    before = claimed(current_system)
    some_minutes_ago(current_system, 30)
    current_system.company.edit_person(3, name="In the hole")

    current_system.fetch(Entity.PERSON, since=now() - timedelta(minutes=5))
    assert (claimed(current_system), hull_names(current_system)[3]) == (before, "Person 3")
    tick(current_system)

    assert hull_names(current_system)[3] == "In the hole"


def test_a_record_that_failed_is_an_exception_by_name(current_system: SyncSystem) -> None:
    current_system.company.put_raw("person", {"id": 3, "name": "Broken", "update_time": "never"})

    tick(current_system)

    assert excepted(current_system) == 1


def test_the_watermark_never_moves_back(current_system: SyncSystem) -> None:
    tick(current_system)
    before = claimed(current_system)
    with transaction() as session:
        run = session.get_one(Run, newest_run(current_system).id)
        run.started_at -= timedelta(hours=2)
        watermark.move(session, run, run.started_at)
        session.expunge(run)

    assert claimed(current_system) == before
