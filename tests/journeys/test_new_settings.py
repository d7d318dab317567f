"""New settings are applied to records that were fetched before, without another fetch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, pipedrive_names
from tests.system import SyncSystem, default_settings


def change_settings(system: SyncSystem, **changes: Any) -> None:
    """As a person does it, by the command line or in Hull."""
    with transaction() as session:
        connector = connectors.get_connector(session, system.connector_key)
        now = connectors.settings_in_force(session, system.connector_key).document
    system.module("sync.connectors.settings_change").change_settings(connector, now | changes, "test", confirmed=True)


def with_more(name: str, *more: dict[str, str]) -> dict[str, Any]:
    return {name: [*default_settings()[name], *more]}


def fetched(system: SyncSystem, persons: int = 6, organizations: int = 2) -> None:
    create_records(system, persons=persons, organizations=organizations)
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)


def runs(system: SyncSystem) -> list[tuple[str, str, str, int]]:
    rows = system.rows("SELECT kind, entity, state, tokens FROM runs WHERE cause = 'settings' ORDER BY id")
    return [(row.kind, row.entity, row.state, row.tokens) for row in rows]


FIRST_NAME = {"hull": "pipedrive/given", "service": "first_name"}


@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "Attributes that you map after a fetch are also sent for the records of earlier fetches, from their "
    "stored values or by a fetch that starts automatically.",
)
def test_a_new_attribute_comes_from_what_is_stored_for_no_tokens(system: SyncSystem) -> None:
    fetched(system, persons=2 * PAGE + 7)
    before = system.pipedrive.ledger.stats()["requests_total"]

    change_settings(system, **with_more("incoming_user_attributes", FIRST_NAME))
    system.work()

    given = {key: user.get("pipedrive/given") for key, user in system.users().items()}
    assert given == {key: name.split()[0] for key, name in pipedrive_names(system).items()}
    assert runs(system) == [("backfill", "person", "done", 0)]
    assert system.pipedrive.ledger.stats()["requests_total"] == before


def test_only_what_is_new_is_an_effect(system: SyncSystem) -> None:
    fetched(system)
    logged = len(system.events())

    change_settings(system, **with_more("incoming_user_attributes", FIRST_NAME))
    system.work()

    rows = system.rows("SELECT before, after FROM sync_events WHERE id > :n ORDER BY id", n=logged)
    assert [json.loads(bytes(row.after)) for row in rows] == [{"pipedrive/given": "Person"}] * 6


@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "Attributes that you map after a fetch are also sent for the records of earlier fetches, from their "
    "stored values or by a fetch that starts automatically.",
)
def test_a_field_given_on_request_only_is_fetched_again(system: SyncSystem) -> None:
    fetched(system)

    change_settings(
        system,
        **with_more("incoming_user_attributes", {"hull": "pipedrive/deals", "service": "open_deals_count"}),
    )
    system.work()

    ((kind, entity, state, tokens),) = runs(system)
    assert (kind, entity, state) == ("full", "person", "done")
    assert tokens > 0
    assert all("pipedrive/deals" in user for user in system.users().values())


def test_a_new_claim_identifies_those_who_came_before(system: SyncSystem) -> None:
    fetched(system)

    change_settings(system, user_claims=[{"hull": "external_id", "service": "name"}])
    system.work()

    assert {user["external_id"] for user in system.users().values()} == set(pipedrive_names(system).values())


def test_links_are_made_for_those_who_came_before(system: SyncSystem) -> None:
    system.change_settings(link_users_in_hull=False)
    fetched(system)
    unlinked = [user.get("account_id") for user in system.users().values()]

    change_settings(system, link_users_in_hull=True)
    system.work()

    assert unlinked == [None] * 6
    assert sum(1 for user in system.users().values() if user.get("account_id")) == 5


def test_what_does_not_concern_records_carries_nothing_over(system: SyncSystem) -> None:
    fetched(system)

    change_settings(system, synchronized_user_segments=["A"], incremental_minutes=30)

    assert runs(system) == []


def test_before_anything_was_fetched_there_is_nothing_to_carry_over(system: SyncSystem) -> None:
    change_settings(system, **with_more("incoming_user_attributes", FIRST_NAME))

    assert runs(system) == []


def test_second_thoughts_end_the_first(system: SyncSystem) -> None:
    fetched(system)
    change_settings(system, **with_more("incoming_user_attributes", FIRST_NAME))

    change_settings(
        system, **with_more("incoming_user_attributes", {"hull": "pipedrive/surname", "service": "last_name"})
    )
    system.work()

    assert [state for _, _, state, _ in runs(system)] == ["cancelled", "done"]
    assert {user.get("pipedrive/surname") for user in system.users().values()} == {str(n) for n in range(1, 7)}
    assert all("pipedrive/given" not in user for user in system.users().values())


def test_a_record_that_changed_since_keeps_its_newest_state(system: SyncSystem) -> None:
    fetched(system)
    change_settings(system, **with_more("incoming_user_attributes", FIRST_NAME))
    system.company.clock = lambda: 2_000_000_000.0
    system.company.edit_person(3, name="Newer name")
    system.fetch(Entity.PERSON, changed_only=True)

    system.work()

    user = system.users()[3]
    assert (user["pipedrive/name"], user["pipedrive/given"]) == ("Newer name", "Newer")


@pytest.mark.defect(20, "For a minute after they were saved, webhooks and buttons went by the settings of before.")
def test_a_page_read_under_the_old_settings_is_delivered_under_the_new(system: SyncSystem) -> None:
    create_records(system, persons=3, organizations=0)
    system.start(Entity.PERSON)
    while (due := system.next_batch()) is not None and due[2] != "load":
        system.run_batch_stage(*due)

    change_settings(system, **with_more("incoming_user_attributes", FIRST_NAME))
    system.work()

    assert due is not None
    assert {user.get("pipedrive/given") for user in system.users().values()} == {"Person"}
