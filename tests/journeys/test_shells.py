"""Organizations that Persons belong to before anybody has fetched them: shells, filled by the fetch of Organizations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli.program import program
from pipeline.domain.kinds import Entity
from tests.journeys.pipedrive_records import age_records, create_records
from tests.prepared import prepared
from tests.system import SyncSystem


def organizations(system: SyncSystem) -> dict[int, str]:
    query = "SELECT pipedrive_id, state FROM id_mappings WHERE entity = 'organization'"
    return {row.pipedrive_id: row.state for row in system.rows(query)}


def bare(account: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in account.items() if name.startswith("pipedrive/")}


@pytest.mark.guide(
    "I get empty Accounts",
    "Fetch both Persons and Organizations; until the Organizations are fetched, Accounts may be shells.",
)
@pytest.mark.guide(
    "Incoming Users",
    "If that Organization was not fetched yet, Hull gets a shell: an Account with only its Pipedrive id.",
)
def test_an_unseen_organization_becomes_a_shell(system: SyncSystem) -> None:
    create_records(system, persons=4, organizations=4)

    run = system.fetch(Entity.PERSON)

    assert organizations(system) == {2: "shell", 3: "shell", 4: "shell", 1: "shell"}
    assert run.shells == 4
    assert {key: bare(account) for key, account in system.accounts().items()} == {
        number: {"pipedrive/id": number} for number in (1, 2, 3, 4)
    }
    created = [event for event in system.events() if event[1] == "shell_created"]
    assert sorted(created) == [("incoming.account.success", "shell_created", number) for number in (1, 2, 3, 4)]


@pytest.mark.guide(
    "I get empty Accounts",
    "Fetch both Persons and Organizations; until the Organizations are fetched, Accounts may be shells.",
)
@pytest.mark.guide("Incoming Users", "The shell is filled when its Organization is fetched.")
def test_a_shell_is_filled_by_the_fetch_of_organizations(system: SyncSystem) -> None:
    create_records(system, persons=4, organizations=4)

    system.fetch(Entity.PERSON)
    system.fetch(Entity.ORGANIZATION)

    assert set(organizations(system).values()) == {"full"}
    assert {number: account["pipedrive/name"] for number, account in system.accounts().items()} == {
        number: f"Org {number}" for number in (1, 2, 3, 4)
    }
    assert len(system.hull_records("account")) == 4


def test_a_full_account_never_becomes_a_shell_again(system: SyncSystem) -> None:
    create_records(system, persons=4, organizations=4)
    system.fetch(Entity.ORGANIZATION)
    before = system.rows("SELECT pipedrive_id, state, digest FROM id_mappings ORDER BY pipedrive_id")

    run = system.fetch(Entity.PERSON)
    system.company.create_person(name="Late", org_id=3)
    system.fetch(Entity.PERSON)

    query = "SELECT pipedrive_id, state, digest FROM id_mappings WHERE entity = 'organization' ORDER BY pipedrive_id"
    assert system.rows(query) == before
    assert run.shells == 0
    assert system.accounts()[3]["pipedrive/name"] == "Org 3"


@pytest.mark.guide(
    "Incoming Users",
    "Link Users to Accounts in Hull: with it off, Users are not linked to Accounts, and no shell is created in Hull.",
)
def test_without_links_a_shell_is_noted_but_no_account_is_made(system: SyncSystem) -> None:
    system.change_settings(link_users_in_hull=False)
    create_records(system, persons=4, organizations=4)

    run = system.fetch(Entity.PERSON)

    assert set(organizations(system)) == {1, 2, 3, 4}
    assert set(organizations(system).values()) == {"shell"}
    assert system.accounts() == {}
    assert (run.links, run.messages) == (0, 4)
    assert [user.get("account_id") for user in system.users().values()] == [None] * 4


def test_a_shell_without_an_account_is_not_looked_for_in_hull(system: SyncSystem) -> None:
    system.change_settings(link_users_in_hull=False)
    create_records(system, persons=4, organizations=4)
    system.fetch(Entity.PERSON)

    system.module("sync.changes.hull_ids").resolve(system.connector_key)

    waiting = system.rows(
        "SELECT pipedrive_id FROM id_mappings WHERE entity = 'organization' AND resolve_at IS NOT NULL"
    )
    assert waiting == []


def test_links_switched_on_later_are_made_by_the_next_fetch(system: SyncSystem) -> None:
    system.change_settings(link_users_in_hull=False)
    create_records(system, persons=4, organizations=4)
    system.fetch(Entity.PERSON)

    system.change_settings(link_users_in_hull=True)
    system.fetch(Entity.PERSON, changed_only=True)
    system.fetch(Entity.ORGANIZATION)

    accounts = system.accounts()
    assert {user["pipedrive/id"]: user["account_id"] for user in system.users().values()} == {
        number: accounts[number % 4 + 1]["id"] for number in (1, 2, 3, 4)
    }


def test_a_person_who_changes_organization_is_linked_to_the_new_one(system: SyncSystem) -> None:
    create_records(system, persons=1, organizations=2)
    system.fetch(Entity.PERSON)

    system.company.edit_person(1, org_id=1)
    system.fetch(Entity.PERSON, changed_only=True)

    assert system.users()[1]["account_id"] == system.accounts()[1]["id"]


def fill_shells(system: SyncSystem) -> None:
    """The tick, and what it sets going."""
    system.module("tasks.control").fill_shells()
    system.work()


def causes(system: SyncSystem) -> list[str]:
    return [row.cause for row in system.rows("SELECT cause FROM runs WHERE entity = 'organization' ORDER BY id")]


@prepared
def known(system: SyncSystem, organizations: int) -> None:
    """So many Organizations were read, and everything is old enough for no catch-up to see it."""
    create_records(system, persons=0, organizations=organizations)
    age_records(system, Entity.ORGANIZATION)
    system.fetch(Entity.ORGANIZATION)


def hire(system: SyncSystem, organization: int) -> None:
    """A Person of an Organization becomes known, as by a webhook."""
    system.company.create_person(name="Ada", org_id=organization)
    system.fetch(Entity.PERSON)


@pytest.mark.guide("Incoming Users", "The connector does that automatically, within a minute or two.")
def test_a_few_shells_are_read_by_their_ids(system: SyncSystem) -> None:
    known(system, 10)
    new = system.company.create_organization(name="Brand new")["id"]
    hire(system, new)
    before = system.pipedrive.ledger.stats()["tokens_total"]

    fill_shells(system)

    assert organizations(system)[new] == "full"
    assert system.accounts()[new]["pipedrive/name"] == "Brand new"
    assert causes(system) == ["test"]
    assert system.pipedrive.ledger.stats()["tokens_total"] - before == 10


@pytest.mark.guide("Incoming Users", "The connector does that automatically, within a minute or two.")
def test_more_than_a_fifth_are_fetched_with_all_the_others(system: SyncSystem) -> None:
    create_records(system, persons=6, organizations=4)
    system.fetch(Entity.PERSON)

    fill_shells(system)

    assert set(organizations(system).values()) == {"full"}
    assert causes(system) == ["shells"]


def test_while_organizations_are_fetched_shells_wait_for_it(system: SyncSystem) -> None:
    known(system, 10)
    hire(system, system.company.create_organization(name="Brand new")["id"])
    system.start(Entity.ORGANIZATION)

    system.module("tasks.control").fill_shells()

    assert system.rows("SELECT 1 FROM changes") == []
    assert causes(system) == ["test", "test"]


def test_a_shell_that_pipedrive_does_not_show_is_gone_after_two_answers(system: SyncSystem) -> None:
    known(system, 10)
    hidden = system.company.create_organization(name="Out of sight")["id"]
    hire(system, hidden)
    system.company.behaviour.unlink_persons = False
    system.company.delete_organization(hidden)

    fill_shells(system)
    once = organizations(system)[hidden]
    system.end_pauses()
    system.work()

    assert (once, organizations(system)[hidden]) == ("shell", "gone")


def test_a_shell_that_cannot_be_filled_is_not_asked_for_at_every_tick(system: SyncSystem) -> None:
    known(system, 10)
    broken = system.company.create_organization(name="Broken")["id"]
    hire(system, broken)
    system.company.put_raw("organization", {"id": broken, "name": "Broken", "update_time": "never"})
    fill_shells(system)
    before = system.pipedrive.ledger.stats()["tokens_total"]

    fill_shells(system)

    assert organizations(system)[broken] == "shell"
    assert system.pipedrive.ledger.stats()["tokens_total"] == before


def test_the_number_and_the_age_of_shells_are_shown(system: SyncSystem) -> None:
    create_records(system, persons=4, organizations=4)
    system.fetch(Entity.PERSON)
    system.change_rows("UPDATE id_mappings SET first_seen_at = now() - interval '1 hour' WHERE pipedrive_id < 3")

    answer = CliRunner().invoke(program, ["mappings", "shells", "acme", "--json"])

    created = json.loads(answer.stdout)
    assert (created["shells"], created["late"]) == (4, 2)
