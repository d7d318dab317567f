"""Incoming Accounts: how Organizations come to Hull."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.guide.people import add_acme, add_ada, fetch_all, in_hull, press, told
from tests.journeys.people import fill
from tests.world import World


@pytest.mark.guide("Incoming Accounts", "A fetch brings every Organization; there is no filter here either.")
def test_every_organization_comes(world: World) -> None:
    world.change_settings(synchronized_account_segments=["vip"])
    fill(world, persons=0, organizations=120)

    world.fetch(Entity.ORGANIZATION)

    assert sorted(world.accounts()) == list(range(1, 121))


@pytest.mark.guide("Incoming Accounts", "An Organization that is deleted in Pipedrive is not brought.")
def test_a_deleted_organization_stays_away(world: World) -> None:
    fill(world, persons=0, organizations=3)
    world.company.delete_organization(2)

    world.fetch(Entity.ORGANIZATION)

    assert sorted(world.accounts()) == [1, 3]


@pytest.mark.guide(
    "Incoming Accounts",
    "Whoever runs the connector starts a fetch of Organizations by hand: pipeline fetch organizations.",
)
def test_a_fetch_by_hand(world: World) -> None:
    from pipeline.cli.program import program  # noqa: PLC0415 - Celery reads its settings when it is imported

    acme = add_acme(world)

    answer = CliRunner().invoke(program, ["fetch", "organizations", "acme"])
    world.work()

    assert (answer.exit_code, list(world.accounts())) == (0, [acme])


@pytest.mark.guide("Incoming Accounts", "Pipedrive tells of every new and every changed Organization by webhook.")
def test_webhooks_bring_new_and_changed_organizations(world: World) -> None:
    said = listen(world)
    acme = add_acme(world)
    deliver(world, *said)
    world.work()
    created = world.accounts()[acme]["pipedrive/name"]

    world.company.edit_organization(acme, name="Acme Inc.")
    deliver(world, said[-1])
    world.work()

    assert (created, world.accounts()[acme]["pipedrive/name"]) == ("Acme", "Acme Inc.")


@pytest.mark.guide(
    "Incoming Accounts",
    "incoming account identity: the Organization fields that are named here identify the Account.",
)
def test_the_named_fields_identify(world: World) -> None:
    world.change_settings(
        account_claims=[{"hull": "external_id", "service": "name"}, {"hull": "domain", "service": "website"}]
    )
    acme = add_acme(world)

    world.fetch(Entity.ORGANIZATION)

    account = world.accounts()[acme]
    assert (account["external_id"], account["domain"]) == ("Acme", "acme.com")


@pytest.mark.guide(
    "Incoming Accounts",
    "incoming account attributes: the Organization fields that are mapped here become attributes of the Account, and no"
    " others.",
)
def test_only_mapped_fields_come(world: World) -> None:
    world.change_settings(incoming_account_attributes=[{"hull": "crm_name", "service": "name"}])
    acme = add_acme(world)

    world.fetch(Entity.ORGANIZATION)

    assert told(world) == [{"crm_name": "Acme", "pipedrive/id": acme}]


@pytest.mark.guide(
    "Incoming Accounts",
    "With support_account_deletion on, the Account of a deleted Organization is marked in the same way.",
)
def test_a_deleted_organization_is_marked(world: World) -> None:
    world.change_settings(support_account_deletion=True)
    acme, said = add_acme(world), listen(world)
    world.fetch(Entity.ORGANIZATION)
    world.company.delete_organization(acme)

    deliver(world, *said)
    world.work()

    (account,) = in_hull(world, "account")
    assert (account.get("pipedrive/id"), account["pipedrive/deleted_at"][:10]) == (
        None,
        said[0]["meta"]["timestamp"][:10],
    )


@pytest.mark.guide(
    "Incoming Accounts",
    "Organizations that are merged in Pipedrive become one Account, with the Users of both.",
)
def test_merged_organizations_are_one_account(world: World) -> None:
    acme, other = add_acme(world), int(world.company.create_organization(name="Acme Ltd")["id"])
    people = [add_ada(world, org_id=acme), int(world.company.create_person(name="Bo", org_id=other)["id"])]
    fetch_all(world)
    said = listen(world)
    world.company.merge("organization", other, acme)

    deliver(world, *said)
    world.work()

    (account,) = in_hull(world, "account")
    assert account["pipedrive/id"] == acme
    assert [world.users()[person]["account_id"] for person in people] == [account["id"]] * 2


@pytest.mark.guide("Incoming Accounts", 'The button "Fetch All Organizations" in the settings starts the same fetch.')
def test_a_button_fetches_all_organizations(world: World, door: FlaskClient) -> None:
    acme = add_acme(world)

    press(door, "/orgFetchAll")
    world.work()

    assert list(world.accounts()) == [acme]
