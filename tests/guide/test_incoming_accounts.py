"""Incoming Accounts: how Organizations come to Hull."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.guide.people import add_acme, add_ada, fetch_all, in_hull, press, told
from tests.journeys.pipedrive_records import create_records
from tests.system import SyncSystem


@pytest.mark.guide("Incoming Accounts", "A fetch brings every Organization; there is no filter here either.")
def test_every_organization_comes(system: SyncSystem) -> None:
    system.change_settings(synchronized_account_segments=["vip"])
    create_records(system, persons=0, organizations=120)

    system.fetch(Entity.ORGANIZATION)

    assert sorted(system.accounts()) == list(range(1, 121))


@pytest.mark.guide("Incoming Accounts", "An Organization that is deleted in Pipedrive is not brought.")
def test_a_deleted_organization_stays_away(system: SyncSystem) -> None:
    create_records(system, persons=0, organizations=3)
    system.company.delete_organization(2)

    system.fetch(Entity.ORGANIZATION)

    assert sorted(system.accounts()) == [1, 3]


@pytest.mark.guide(
    "Incoming Accounts",
    "Whoever runs the connector starts a fetch of Organizations by hand: pipeline fetch organizations.",
)
def test_a_fetch_by_hand(system: SyncSystem) -> None:
    from pipeline.cli.program import program  # noqa: PLC0415 - Celery reads its settings when it is imported

    acme = add_acme(system)

    answer = CliRunner().invoke(program, ["fetch", "organizations", "acme"])
    system.work()

    assert (answer.exit_code, list(system.accounts())) == (0, [acme])


@pytest.mark.guide("Incoming Accounts", "Pipedrive tells of every new and every changed Organization by webhook.")
def test_webhooks_bring_new_and_changed_organizations(system: SyncSystem) -> None:
    said = listen(system)
    acme = add_acme(system)
    deliver(system, *said)
    system.work()
    created = system.accounts()[acme]["pipedrive/name"]

    system.company.edit_organization(acme, name="Acme Inc.")
    deliver(system, said[-1])
    system.work()

    assert (created, system.accounts()[acme]["pipedrive/name"]) == ("Acme", "Acme Inc.")


@pytest.mark.guide(
    "Incoming Accounts",
    "incoming account identity: the Organization fields that are named here identify the Account.",
)
def test_the_named_fields_identify(system: SyncSystem) -> None:
    system.change_settings(
        account_claims=[{"hull": "external_id", "service": "name"}, {"hull": "domain", "service": "website"}]
    )
    acme = add_acme(system)

    system.fetch(Entity.ORGANIZATION)

    account = system.accounts()[acme]
    assert (account["external_id"], account["domain"]) == ("Acme", "acme.com")


@pytest.mark.guide(
    "Incoming Accounts",
    "incoming account attributes: the Organization fields that are mapped here become attributes of the Account, and no"
    " others.",
)
def test_only_mapped_fields_come(system: SyncSystem) -> None:
    system.change_settings(incoming_account_attributes=[{"hull": "crm_name", "service": "name"}])
    acme = add_acme(system)

    system.fetch(Entity.ORGANIZATION)

    assert told(system) == [{"crm_name": "Acme", "pipedrive/id": acme}]


@pytest.mark.guide(
    "Incoming Accounts",
    "With support_account_deletion on, the Account of a deleted Organization is marked in the same way.",
)
def test_a_deleted_organization_is_marked(system: SyncSystem) -> None:
    system.change_settings(support_account_deletion=True)
    acme, said = add_acme(system), listen(system)
    system.fetch(Entity.ORGANIZATION)
    system.company.delete_organization(acme)

    deliver(system, *said)
    system.work()

    (account,) = in_hull(system, "account")
    assert (account.get("pipedrive/id"), account["pipedrive/deleted_at"][:10]) == (
        None,
        said[0]["meta"]["timestamp"][:10],
    )


@pytest.mark.guide(
    "Incoming Accounts",
    "Organizations that are merged in Pipedrive become one Account, with the Users of both.",
)
def test_merged_organizations_are_one_account(system: SyncSystem) -> None:
    acme, other = add_acme(system), int(system.company.create_organization(name="Acme Ltd")["id"])
    people = [add_ada(system, org_id=acme), int(system.company.create_person(name="Bo", org_id=other)["id"])]
    fetch_all(system)
    said = listen(system)
    system.company.merge("organization", other, acme)

    deliver(system, *said)
    system.work()

    (account,) = in_hull(system, "account")
    assert account["pipedrive/id"] == acme
    assert [system.users()[person]["account_id"] for person in people] == [account["id"]] * 2


@pytest.mark.guide("Incoming Accounts", 'The button "Fetch All Organizations" in the settings starts the same fetch.')
def test_a_button_fetches_all_organizations(system: SyncSystem, client: FlaskClient) -> None:
    acme = add_acme(system)

    press(client, "/orgFetchAll")
    system.work()

    assert list(system.accounts()) == [acme]
