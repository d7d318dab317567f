"""Organizations that Persons belong to before anybody has fetched them: shells, filled by the fetch of Organizations."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner

from pipeline.cli.program import program
from pipeline.domain.kinds import Entity
from tests.journeys.people import age, fill
from tests.prepared import prepared
from tests.world import World


def organizations(world: World) -> dict[int, str]:
    query = "SELECT pipedrive_id, state FROM id_mappings WHERE entity = 'organization'"
    return {row.pipedrive_id: row.state for row in world.rows(query)}


def bare(account: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in account.items() if name.startswith("pipedrive/")}


def test_an_unseen_organization_becomes_a_shell(world: World) -> None:
    fill(world, persons=4, organizations=4)

    run = world.fetch(Entity.PERSON)

    assert organizations(world) == {2: "shell", 3: "shell", 4: "shell", 1: "shell"}
    assert run.shells == 4
    assert {key: bare(account) for key, account in world.accounts().items()} == {
        number: {"pipedrive/id": number} for number in (1, 2, 3, 4)
    }
    told = [event for event in world.events() if event[1] == "shell_created"]
    assert sorted(told) == [("incoming.account.success", "shell_created", number) for number in (1, 2, 3, 4)]


def test_a_shell_is_filled_by_the_fetch_of_organizations(world: World) -> None:
    fill(world, persons=4, organizations=4)

    world.fetch(Entity.PERSON)
    world.fetch(Entity.ORGANIZATION)

    assert set(organizations(world).values()) == {"full"}
    assert {number: account["pipedrive/name"] for number, account in world.accounts().items()} == {
        number: f"Org {number}" for number in (1, 2, 3, 4)
    }
    assert len(world._export("account")) == 4


def test_a_full_account_never_becomes_a_shell_again(world: World) -> None:
    fill(world, persons=4, organizations=4)
    world.fetch(Entity.ORGANIZATION)
    before = world.rows("SELECT pipedrive_id, state, digest FROM id_mappings ORDER BY pipedrive_id")

    run = world.fetch(Entity.PERSON)
    world.company.create_person(name="Late", org_id=3)
    world.fetch(Entity.PERSON)

    query = "SELECT pipedrive_id, state, digest FROM id_mappings WHERE entity = 'organization' ORDER BY pipedrive_id"
    assert world.rows(query) == before
    assert run.shells == 0
    assert world.accounts()[3]["pipedrive/name"] == "Org 3"


def test_without_links_a_shell_is_noted_but_no_account_is_made(world: World) -> None:
    world.change_settings(link_users_in_hull=False)
    fill(world, persons=4, organizations=4)

    run = world.fetch(Entity.PERSON)

    assert set(organizations(world)) == {1, 2, 3, 4}
    assert set(organizations(world).values()) == {"shell"}
    assert world.accounts() == {}
    assert (run.links, run.messages) == (0, 4)
    assert [user.get("account_id") for user in world.users().values()] == [None] * 4


def test_a_shell_without_an_account_is_not_looked_for_in_hull(world: World) -> None:
    world.change_settings(link_users_in_hull=False)
    fill(world, persons=4, organizations=4)
    world.fetch(Entity.PERSON)

    world.module("sync.changes.hull_ids").resolve(world.connector_key)

    waiting = world.rows(
        "SELECT pipedrive_id FROM id_mappings WHERE entity = 'organization' AND resolve_at IS NOT NULL"
    )
    assert waiting == []


def test_links_switched_on_later_are_made_by_the_next_fetch(world: World) -> None:
    world.change_settings(link_users_in_hull=False)
    fill(world, persons=4, organizations=4)
    world.fetch(Entity.PERSON)

    world.change_settings(link_users_in_hull=True)
    world.fetch(Entity.PERSON, changed_only=True)
    world.fetch(Entity.ORGANIZATION)

    accounts = world.accounts()
    assert {user["pipedrive/id"]: user["account_id"] for user in world.users().values()} == {
        number: accounts[number % 4 + 1]["id"] for number in (1, 2, 3, 4)
    }


def test_a_person_who_changes_organization_is_linked_to_the_new_one(world: World) -> None:
    fill(world, persons=1, organizations=2)
    world.fetch(Entity.PERSON)

    world.company.edit_person(1, org_id=1)
    world.fetch(Entity.PERSON, changed_only=True)

    assert world.users()[1]["account_id"] == world.accounts()[1]["id"]


def fill_shells(world: World) -> None:
    """The tick, and what it sets going."""
    world.module("tasks.control").fill_shells()
    world.work()


def causes(world: World) -> list[str]:
    return [row.cause for row in world.rows("SELECT cause FROM runs WHERE entity = 'organization' ORDER BY id")]


@prepared
def known(world: World, organizations: int) -> None:
    """So many Organizations were read, and everything is old enough for no catch-up to see it."""
    fill(world, persons=0, organizations=organizations)
    age(world, Entity.ORGANIZATION)
    world.fetch(Entity.ORGANIZATION)


def hire(world: World, organization: int) -> None:
    """A Person of an Organization becomes known, as by a webhook."""
    world.company.create_person(name="Ada", org_id=organization)
    world.fetch(Entity.PERSON)


def test_a_few_shells_are_read_by_their_ids(world: World) -> None:
    known(world, 10)
    new = world.company.create_organization(name="Brand new")["id"]
    hire(world, new)
    before = world.pipedrive.ledger.stats()["tokens_total"]

    fill_shells(world)

    assert organizations(world)[new] == "full"
    assert world.accounts()[new]["pipedrive/name"] == "Brand new"
    assert causes(world) == ["test"]
    assert world.pipedrive.ledger.stats()["tokens_total"] - before == 10


def test_more_than_a_fifth_are_fetched_with_all_the_others(world: World) -> None:
    fill(world, persons=6, organizations=4)
    world.fetch(Entity.PERSON)

    fill_shells(world)

    assert set(organizations(world).values()) == {"full"}
    assert causes(world) == ["shells"]


def test_while_organizations_are_fetched_shells_wait_for_it(world: World) -> None:
    known(world, 10)
    hire(world, world.company.create_organization(name="Brand new")["id"])
    world.start(Entity.ORGANIZATION)

    world.module("tasks.control").fill_shells()

    assert world.rows("SELECT 1 FROM changes") == []
    assert causes(world) == ["test", "test"]


def test_a_shell_that_pipedrive_does_not_show_is_gone_after_two_answers(world: World) -> None:
    known(world, 10)
    hidden = world.company.create_organization(name="Out of sight")["id"]
    hire(world, hidden)
    world.company.behaviour.unlink_persons = False
    world.company.delete_organization(hidden)

    fill_shells(world)
    once = organizations(world)[hidden]
    world.later()
    world.work()

    assert (once, organizations(world)[hidden]) == ("shell", "gone")


def test_a_shell_that_cannot_be_filled_is_not_asked_for_at_every_tick(world: World) -> None:
    known(world, 10)
    broken = world.company.create_organization(name="Broken")["id"]
    hire(world, broken)
    world.company.put_raw("organization", {"id": broken, "name": "Broken", "update_time": "never"})
    fill_shells(world)
    before = world.pipedrive.ledger.stats()["tokens_total"]

    fill_shells(world)

    assert organizations(world)[broken] == "shell"
    assert world.pipedrive.ledger.stats()["tokens_total"] == before


def test_the_number_and_the_age_of_shells_are_told(world: World) -> None:
    fill(world, persons=4, organizations=4)
    world.fetch(Entity.PERSON)
    world.change_rows("UPDATE id_mappings SET first_seen_at = now() - interval '1 hour' WHERE pipedrive_id < 3")

    answer = CliRunner().invoke(program, ["mappings", "shells", "acme", "--json"])

    told = json.loads(answer.stdout)
    assert (told["shells"], told["late"]) == (4, 2)
