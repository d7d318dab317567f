"""New settings change the identifiers: no record is created until the local index knows them."""

from __future__ import annotations

from typing import Any

import pytest

from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.journeys.hull_messages import fetch_everything, field_code, send_messages, user, writes
from tests.journeys.pipedrive_records import age_records, create_records
from tests.prepared import prepared
from tests.system import SyncSystem

MAPPED = [{"hull": "nickname", "service": "name"}]


@pytest.fixture
@prepared
def numbered(system: SyncSystem) -> SyncSystem:
    """Four Persons with customer numbers, fetched while only their e-mails identified them; Hull knows none of them."""
    system.change_settings(outgoing_user_attributes=MAPPED)
    create_records(system, persons=4, organizations=0)
    for number in range(1, 5):
        system.company.edit_person(
            number, custom_fields={field_code(system, "person", "Customer number"): f"C{number}"}
        )
    age_records(system)
    fetch_everything(system)
    system.change_rows("UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL")
    return system


def change(system: SyncSystem, **changes: Any) -> None:
    """Put settings in force as a person does; what they call for is begun, and no worker has come to it yet."""
    with transaction() as session:
        connector = connectors.get_connector(session, system.connector_key)
        document = connectors.settings_in_force(session, system.connector_key).document | changes
    system.module("sync.connectors.settings_change").change_settings(connector, document, "ana")
    system.change_rows(
        "UPDATE batches SET due_at = now() + interval '1 hour' WHERE direction = 'incoming' AND state = 'ready'"
    )


def by_number(system: SyncSystem) -> dict[str, Any]:
    return {"user_claims": [{"hull": "external_id", "service": field_code(system, "person", "Customer number")}]}


@pytest.mark.defect(11, "Whatever identified a User, the look-up searched for its e-mail; without one, for nothing.")
def test_a_user_is_searched_for_while_the_backfill_runs(numbered: SyncSystem) -> None:
    change(numbered, **by_number(numbered))

    send_messages(
        numbered, user("a" * 24, nickname="Ann", external_id="C3"), user("b" * 24, nickname="Ben", external_id="C9")
    )

    assert [(method, key) for method, key, _ in writes(numbered)] == [("PATCH", 3), ("POST", 5)]


def test_it_is_known_once_the_backfill_is_done(numbered: SyncSystem) -> None:
    hull_id = numbered.users()[3]["id"]
    change(numbered, **by_number(numbered))
    numbered.end_pauses()
    numbered.work()
    numbered.change_rows("UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL")

    send_messages(numbered, user(hull_id, nickname="Ann", external_id="C3"))

    assert [(method, key) for method, key, _ in writes(numbered)] == [("PATCH", 3)]


def test_a_sync_key_is_known_after_a_backfill_that_sends_hull_nothing(numbered: SyncSystem) -> None:
    key, hull_id = field_code(numbered, "person", "Customer number"), numbered.users()[2]["id"]
    numbered.company.edit_person(2, custom_fields={key: hull_id})
    age_records(numbered)
    numbered.fetch(Entity.PERSON)
    change(numbered, user_sync_key=key)
    numbered.end_pauses()
    numbered.work()

    numbered.change_rows("UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL")
    send_messages(numbered, user(hull_id, nickname="Ann"))

    assert [(method, pipedrive_id) for method, pipedrive_id, _ in writes(numbered)] == [("PATCH", 2)]
    assert (
        len(numbered.rows("SELECT 1 FROM sync_events WHERE cause = 'backfill' AND event LIKE 'incoming.user.%'")) == 0
    )


def test_a_waiting_user_is_sent_when_the_backfill_ends(numbered: SyncSystem) -> None:
    field = field_code(numbered, "person", "Office hours")
    change(numbered, user_claims=[{"hull": "external_id", "service": field}])

    send_messages(numbered, user("c" * 24, nickname="Cid", external_id="nine"))
    assert writes(numbered) == []
    assert [row.waits_for for row in numbered.rows("SELECT waits_for FROM changes")] == ["index_incomplete"]
    assert numbered.rows("SELECT 1 FROM runs WHERE kind = 'full' AND cause = 'look_up'") == []

    numbered.change_rows("UPDATE batches SET due_at = now() WHERE direction = 'incoming'")
    numbered.work()
    assert [method for method, _, _ in writes(numbered)] == ["POST"]
