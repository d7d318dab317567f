"""Account Identity: which Organization and which Account are the same, and what a sent Account brings back."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import account_changed, add_acme, in_hull, tell_hull, told
from tests.world import World

TO_NAME = [{"hull": "label", "service": "name"}]


@pytest.mark.guide(
    "Account Identity",
    "By default an Organization and an Account are the same when they have the same domain: the registrable part of the"
    " Organization's website.",
)
def test_an_organization_joins_the_account_of_the_same_domain(world: World) -> None:
    tell_hull(world, "account", {"domain": "acme.com"}, {"plan": "gold"})
    add_acme(world, website="https://shop.ACME.com/about")

    world.fetch(Entity.ORGANIZATION)

    assert [(each["plan"], each["pipedrive/name"]) for each in in_hull(world, "account")] == [("gold", "Acme")]


@pytest.mark.guide(
    "Account Identity", "Another field can identify an Account as well: map it to external_id in the account identity."
)
def test_an_organization_joins_the_account_of_the_same_external_id(world: World) -> None:
    world.change_settings(account_claims=[{"hull": "external_id", "service": "name"}])
    tell_hull(world, "account", {"external_id": "Acme"}, {"plan": "gold"})
    add_acme(world)

    world.fetch(Entity.ORGANIZATION)

    assert [(each["plan"], each["pipedrive/name"]) for each in in_hull(world, "account")] == [("gold", "Acme")]


@pytest.mark.guide("Account Identity", "A domain that many share, such as that of a mail service, identifies nobody.")
def test_a_shared_domain_is_no_identity(world: World) -> None:
    for name in ("Acme", "Globex"):
        add_acme(world, name=name, website="https://gmail.com")

    world.fetch(Entity.ORGANIZATION)

    assert [account.get("domain") for account in world.accounts().values()] == [None, None]
    assert {reason for _, reason, _ in world.events() if reason} == {"shared_domain"}


@pytest.mark.guide(
    "Account Identity",
    "When an Account goes to Pipedrive and its Organization is known from before, that Organization is updated.",
)
def test_a_known_organization_is_updated(world: World) -> None:
    world.change_settings(outgoing_account_attributes=TO_NAME)
    acme = add_acme(world)
    world.fetch(Entity.ORGANIZATION)

    account_changed(world, acme, label="Acme Inc.")

    assert world.company.record("organization", acme)["name"] == "Acme Inc."  # type: ignore[index]
    assert world.company.count("organization") == 1


@pytest.mark.guide(
    "Account Identity", "After an Account was sent, what Pipedrive then holds of the Organization comes back to Hull."
)
def test_what_pipedrive_made_of_it_comes_back(world: World) -> None:
    world.change_settings(outgoing_account_attributes=TO_NAME)
    acme = add_acme(world)
    world.fetch(Entity.ORGANIZATION)

    account_changed(world, acme, label="Acme Inc.")

    assert world.accounts()[acme]["pipedrive/name"] == "Acme Inc."


@pytest.mark.guide("Account Identity", "Only the incoming account attributes come back.")
def test_nothing_else_comes_back(world: World) -> None:
    world.change_settings(
        outgoing_account_attributes=TO_NAME, incoming_account_attributes=[{"hull": "crm_name", "service": "name"}]
    )
    acme = add_acme(world)
    world.fetch(Entity.ORGANIZATION)
    seen = world.hull.received.count

    account_changed(world, acme, label="Acme Inc.")

    assert told(world, seen) == [{"crm_name": "Acme Inc.", "pipedrive/id": acme}]
