"""Webhooks with unknown ids cost only a few calls, and no real change is missed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.schedule import set_schedule
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import age_records, create_records
from tests.prepared import prepared
from tests.system import SyncSystem


@pytest.fixture
@prepared
def known(system: SyncSystem) -> SyncSystem:
    """Five Persons that Hull knows."""
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    return system


def hint(pipedrive_id: int, number: int = 0) -> dict[str, Any]:
    """Return a webhook with an id and no record."""
    meta = {
        "action": "change", "entity": "person", "entity_id": str(pipedrive_id), "id": f"e-{pipedrive_id}-{number}",
        "version": "2.0", "company_id": "1", "timestamp": "2026-02-01T09:30:00.000Z", "user_id": "1", "attempt": 1,
    }  # fmt: skip
    return {"meta": meta, "data": {"id": pipedrive_id}, "previous": {}}


def tokens(system: SyncSystem) -> int:
    return sum(system.pipedrive.ledger.tokens.values())


def a_minute_later(system: SyncSystem) -> None:
    system.change_rows("UPDATE heartbeats SET at = at - interval '61 seconds'")
    system.change_rows("UPDATE changes SET due_at = now() WHERE due_at > now()")


def is_catching_up(system: SyncSystem) -> bool:
    return bool(system.rows("SELECT 1 FROM schedules WHERE kind = 'incremental' AND next_run_at <= now()"))


@pytest.fixture
def scheduled(known: SyncSystem) -> SyncSystem:
    """The same, and the next incremental fetch is an hour away."""
    with transaction() as session:
        later = datetime.now(UTC) + timedelta(hours=1)
        set_schedule(session, known.connector_key, "incremental", interval_s=3600, next_run_at=later)
    return known


def test_thousands_of_unknown_ids_cost_a_bounded_number_of_tokens(scheduled: SyncSystem) -> None:
    before = tokens(scheduled)

    for number in range(10_000, 14_000, 100):
        deliver(scheduled, *[hint(each) for each in range(number, number + 100)])
    for _ in range(7):
        scheduled.work()
        a_minute_later(scheduled)
    scheduled.work()

    assert tokens(scheduled) - before <= 8 * 10 * 10, "ten calls a minute"
    assert scheduled.rows("SELECT 1 FROM changes") == []
    assert is_catching_up(scheduled)


def test_known_records_are_read_beside_them_without_waiting(scheduled: SyncSystem) -> None:
    webhooks = listen(scheduled)
    scheduled.company.edit_person(3, name="Edited")
    cut_off = json.dumps(webhooks[0]).encode()[:-20]  # its id can be found, and the rest has to be read

    deliver(scheduled, *[hint(10_000 + number) for number in range(2_000)], cut_off)
    scheduled.work()

    assert scheduled.users()[3]["pipedrive/name"] == "Edited"


def test_a_record_that_is_new_arrives_with_the_first_read(scheduled: SyncSystem) -> None:
    scheduled.company.create_person(name="New", emails=[{"value": "new@example.com", "primary": True}])

    deliver(scheduled, hint(6))
    scheduled.work()

    assert scheduled.users()[6]["pipedrive/name"] == "New"
    assert not is_catching_up(scheduled)


def test_webhooks_about_one_unknown_id_are_one_read(scheduled: SyncSystem) -> None:
    before = tokens(scheduled)

    deliver(scheduled, *[hint(10_000, number) for number in range(500)])
    scheduled.work()

    assert tokens(scheduled) - before <= 10


@pytest.mark.parametrize("body", [b"{" + b"x" * 5_000, b"no json at all"])
def test_a_body_without_any_id_starts_the_fetch_of_changes(scheduled: SyncSystem, body: bytes) -> None:
    deliver(scheduled, body)
    scheduled.work()

    assert is_catching_up(scheduled)
    assert [row.reason for row in scheduled.rows("SELECT reason FROM deliveries")] == ["webhook_without_id"]


def test_such_bodies_start_no_more_fetches_than_one_in_two_minutes(scheduled: SyncSystem) -> None:
    scheduled.change_rows("UPDATE schedules SET last_run_at = now() - interval '60 seconds'")

    deliver(scheduled, b"no json at all")
    scheduled.work()

    assert not is_catching_up(scheduled)
