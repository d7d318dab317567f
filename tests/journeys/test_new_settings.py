"""New settings reach the records that were fetched before: nobody has to remember to fetch again."""

from __future__ import annotations

import json
from typing import Any

from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.journeys.people import PAGE, age, fill, in_pipedrive
from tests.world import World, default_settings


def change_settings(world: World, **changes: Any) -> None:
    """As a person does it, by the command line or in Hull."""
    with transaction() as session:
        connector = connectors.get_connector(session, world.connector_key)
        now = connectors.settings_in_force(session, world.connector_key).document
    world.module("sync.connectors.settings_change").change_settings(connector, now | changes, "test", confirmed=True)


def with_more(name: str, *more: dict[str, str]) -> dict[str, Any]:
    return {name: [*default_settings()[name], *more]}


def fetched(world: World, persons: int = 6, organizations: int = 2) -> None:
    fill(world, persons=persons, organizations=organizations)
    for entity in Entity:
        age(world, entity)
        world.fetch(entity)


def runs(world: World) -> list[tuple[str, str, str, int]]:
    rows = world.rows("SELECT kind, entity, state, tokens FROM runs WHERE cause = 'settings' ORDER BY id")
    return [(row.kind, row.entity, row.state, row.tokens) for row in rows]


FIRST_NAME = {"hull": "pipedrive/given", "service": "first_name"}


def test_a_new_attribute_comes_from_what_is_stored_for_no_tokens(world: World) -> None:
    fetched(world, persons=2 * PAGE + 7)
    before = world.pipedrive.ledger.stats()["requests_total"]

    change_settings(world, **with_more("incoming_user_attributes", FIRST_NAME))
    world.work()

    given = {key: user.get("pipedrive/given") for key, user in world.users().items()}
    assert given == {key: name.split()[0] for key, name in in_pipedrive(world).items()}
    assert runs(world) == [("backfill", "person", "done", 0)]
    assert world.pipedrive.ledger.stats()["requests_total"] == before


def test_only_what_is_new_is_an_effect(world: World) -> None:
    fetched(world)
    logged = len(world.events())

    change_settings(world, **with_more("incoming_user_attributes", FIRST_NAME))
    world.work()

    rows = world.rows("SELECT before, after FROM sync_events WHERE id > :n ORDER BY id", n=logged)
    assert [json.loads(bytes(row.after)) for row in rows] == [{"pipedrive/given": "Person"}] * 6


def test_a_field_given_on_request_only_is_fetched_again(world: World) -> None:
    fetched(world)

    change_settings(
        world,
        **with_more("incoming_user_attributes", {"hull": "pipedrive/deals", "service": "open_deals_count"}),
    )
    world.work()

    ((kind, entity, state, tokens),) = runs(world)
    assert (kind, entity, state) == ("full", "person", "done")
    assert tokens > 0
    assert all("pipedrive/deals" in user for user in world.users().values())


def test_a_new_claim_identifies_those_who_came_before(world: World) -> None:
    fetched(world)

    change_settings(world, user_claims=[{"hull": "external_id", "service": "name"}])
    world.work()

    assert {user["external_id"] for user in world.users().values()} == set(in_pipedrive(world).values())


def test_links_are_made_for_those_who_came_before(world: World) -> None:
    world.change_settings(link_users_in_hull=False)
    fetched(world)
    unlinked = [user.get("account_id") for user in world.users().values()]

    change_settings(world, link_users_in_hull=True)
    world.work()

    assert unlinked == [None] * 6
    assert sum(1 for user in world.users().values() if user.get("account_id")) == 5


def test_what_does_not_concern_records_carries_nothing_over(world: World) -> None:
    fetched(world)

    change_settings(world, synchronized_user_segments=["A"], incremental_minutes=30)

    assert runs(world) == []


def test_before_anything_was_fetched_there_is_nothing_to_carry_over(world: World) -> None:
    change_settings(world, **with_more("incoming_user_attributes", FIRST_NAME))

    assert runs(world) == []


def test_second_thoughts_end_the_first(world: World) -> None:
    fetched(world)
    change_settings(world, **with_more("incoming_user_attributes", FIRST_NAME))

    change_settings(
        world, **with_more("incoming_user_attributes", {"hull": "pipedrive/surname", "service": "last_name"})
    )
    world.work()

    assert [state for _, _, state, _ in runs(world)] == ["cancelled", "done"]
    assert {user.get("pipedrive/surname") for user in world.users().values()} == {str(n) for n in range(1, 7)}
    assert all("pipedrive/given" not in user for user in world.users().values())


def test_a_record_that_changed_meanwhile_keeps_its_newest_state(world: World) -> None:
    fetched(world)
    change_settings(world, **with_more("incoming_user_attributes", FIRST_NAME))
    world.company.clock = lambda: 2_000_000_000.0
    world.company.edit_person(3, name="Newer name")
    world.fetch(Entity.PERSON, changed_only=True)

    world.work()

    user = world.users()[3]
    assert (user["pipedrive/name"], user["pipedrive/given"]) == ("Newer name", "Newer")


def test_a_page_that_was_read_under_the_old_settings_is_said_in_the_words_of_the_new(world: World) -> None:
    fill(world, persons=3, organizations=0)
    world.start(Entity.PERSON)
    while (due := world.due()) is not None and due[2] != "load":
        world.step(*due)

    change_settings(world, **with_more("incoming_user_attributes", FIRST_NAME))
    world.work()

    assert due is not None
    assert {user.get("pipedrive/given") for user in world.users().values()} == {"Person"}
