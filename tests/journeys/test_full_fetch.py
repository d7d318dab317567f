"""A full fetch: all Persons and Organizations end up in Hull, whatever the order and whatever is wrong with some."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.world import World


def fill(world: World, persons: int = 120, organizations: int = 40) -> None:
    for number in range(1, organizations + 1):
        world.company.create_organization(name=f"Org {number}", website=f"https://www.org{number}.test.example.com")
    for number in range(1, persons + 1):
        world.company.create_person(
            name=f"Person {number}",
            emails=[{"value": f"p{number}@example.com", "primary": True}],
            org_id=number % organizations + 1 if organizations and number % 5 else None,
        )


@pytest.mark.parametrize("first", [Entity.PERSON, Entity.ORGANIZATION])
def test_brings_every_record_in_either_order(world: World, first: Entity) -> None:
    fill(world)

    runs = [world.fetch(entity) for entity in (first, *[each for each in Entity if each is not first])]

    assert [run.state for run in runs] == ["done", "done"]
    users, accounts = world.users(), world.accounts()
    assert sorted(users) == list(range(1, 121))
    assert sorted(accounts) == list(range(1, 41))
    assert accounts[7]["pipedrive/name"] == "Org 7"
    linked = {person_id: user.get("account_id") for person_id, user in users.items()}
    assert linked[1] == accounts[2]["id"]
    assert linked[5] is None


def test_walks_from_both_ends_and_reads_no_page_twice(world: World) -> None:
    fill(world, persons=230, organizations=0)

    run = world.fetch(Entity.PERSON)

    assert (run.state, run.new) == ("done", 230)
    caught_up = 5  # all 230 are younger than the overlap of the catch-up walk
    assert run.pages <= 230 // 50 + 2 + caught_up
