"""Outgoing Accounts: which are sent, and what of them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import account_changed, add_acme, outcomes
from tests.world import World

TO_NAME = [{"hull": "label", "service": "name"}]


def acme_in(world: World, **settings: Any) -> int:
    """Acme on both sides, under these settings."""
    world.change_settings(
        **{"synchronized_account_segments": ["vip"], "outgoing_account_attributes": TO_NAME, **settings}
    )
    acme = add_acme(world)
    world.fetch(Entity.ORGANIZATION)
    return acme


def name_of(world: World, organization_id: int) -> str:
    record = world.company.record("organization", organization_id)
    assert record is not None
    return str(record["name"])


@pytest.mark.guide("Outgoing Accounts", "an Account is sent when it enters one of these segments.")
def test_entering_a_segment_sends(world: World) -> None:
    acme = acme_in(world)
    account_changed(world, acme, label="Acme Inc.", segments=("others",))
    before = name_of(world, acme)

    account_changed(world, acme, label="Acme Inc.", segments=("others", "vip"), note="entered")

    assert (before, name_of(world, acme)) == ("Acme", "Acme Inc.")


@pytest.mark.guide("Outgoing Accounts", "An Account in one of them is sent when a mapped attribute changes.")
def test_a_mapped_attribute_that_changes_sends(world: World) -> None:
    acme = acme_in(world)

    account_changed(world, acme, label="Acme Inc.")
    account_changed(world, acme, label="Acme Inc.", unmapped="new", changed=["unmapped"])

    assert name_of(world, acme) == "Acme Inc."
    assert outcomes(world) == [("outgoing.account.success", None), ("outgoing.account.skip", "no_relevant_change")]


@pytest.mark.guide("Outgoing Accounts", "An Account in none of them is not sent.")
def test_outside_the_segments_nothing_is_sent(world: World) -> None:
    acme = acme_in(world)

    account_changed(world, acme, label="Acme Inc.", segments=("others",))

    assert name_of(world, acme) == "Acme"
    assert outcomes(world) == [("outgoing.account.skip", "not_in_segment")]


@pytest.mark.guide("Outgoing Accounts", "Without outgoing attributes no Account is sent.")
def test_without_attributes_nothing_is_sent(world: World) -> None:
    acme = acme_in(world, outgoing_account_attributes=[])

    account_changed(world, acme, label="Acme Inc.")

    assert name_of(world, acme) == "Acme"
    assert outcomes(world) == [("outgoing.account.skip", "no_outgoing_mapping")]


@pytest.mark.guide(
    "Outgoing Accounts",
    "outgoing account attributes: each attribute that is mapped here is written to its Organization field.",
)
def test_each_mapped_attribute_is_written(world: World) -> None:
    rows = [{"hull": "label", "service": "name"}, {"hull": "site", "service": "website"}]
    acme = acme_in(world, outgoing_account_attributes=rows)

    account_changed(world, acme, label="Acme Inc.", site="https://acme.example.org")

    after = world.company.record("organization", acme)
    assert after is not None
    assert (after["name"], after["website"]) == ("Acme Inc.", "https://acme.example.org")
