"""Troubleshooting: Accounts are empty."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import add_acme, add_ada, told
from tests.world import World


@pytest.mark.guide("I get empty Accounts", "with none mapped, only the Pipedrive id arrives.")
def test_without_attributes_the_id_arrives(world: World) -> None:
    world.change_settings(incoming_account_attributes=[])
    acme = add_acme(world)

    world.fetch(Entity.ORGANIZATION)

    assert told(world) == [{"pipedrive/id": acme}]


@pytest.mark.guide(
    "I get empty Accounts",
    "Fetch both Persons and Organizations; until the Organizations have come, Accounts may be shells.",
)
def test_accounts_are_shells_until_organizations_come(world: World) -> None:
    acme = add_acme(world)
    add_ada(world, org_id=acme)

    world.fetch(Entity.PERSON)
    before = world.accounts()[acme].get("pipedrive/name")
    world.fetch(Entity.ORGANIZATION)

    assert (before, world.accounts()[acme]["pipedrive/name"]) == (None, "Acme")


@pytest.mark.guide(
    "I get empty Accounts",
    "If Accounts are empty after that, look for incoming.account.error and incoming.user.error: a value that cannot be"
    " used is named there.",
)
@pytest.mark.parametrize("entity", Entity)
def test_a_value_that_cannot_be_used_is_named(world: World, entity: Entity) -> None:
    world.company.put_raw(entity.value, {"id": 1, "name": ["Acme"], "update_time": "2026-01-01T00:00:00Z"})

    world.fetch(entity)

    named = world.rows("SELECT event, reason, detail FROM sync_events WHERE detail LIKE 'name:%'")
    assert {(row.event, row.reason) for row in named} == {(f"incoming.{entity.hull}.error", "wrong_type")}
