"""Troubleshooting: Accounts are empty."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import add_acme, add_ada, told
from tests.system import SyncSystem


@pytest.mark.guide("I get empty Accounts", "with none mapped, only the Pipedrive id arrives.")
def test_without_attributes_the_id_arrives(system: SyncSystem) -> None:
    system.change_settings(incoming_account_attributes=[])
    acme = add_acme(system)

    system.fetch(Entity.ORGANIZATION)

    assert told(system) == [{"pipedrive/id": acme}]


@pytest.mark.guide(
    "I get empty Accounts",
    "Fetch both Persons and Organizations; until the Organizations have come, Accounts may be shells.",
)
def test_accounts_are_shells_until_organizations_come(system: SyncSystem) -> None:
    acme = add_acme(system)
    add_ada(system, org_id=acme)

    system.fetch(Entity.PERSON)
    before = system.accounts()[acme].get("pipedrive/name")
    system.fetch(Entity.ORGANIZATION)

    assert (before, system.accounts()[acme]["pipedrive/name"]) == (None, "Acme")


@pytest.mark.guide(
    "I get empty Accounts",
    "If Accounts are empty after that, look for incoming.account.error and incoming.user.error: a value that cannot be"
    " used is named there.",
)
@pytest.mark.parametrize("entity", Entity)
def test_a_value_that_cannot_be_used_is_named(system: SyncSystem, entity: Entity) -> None:
    system.company.put_raw(entity.value, {"id": 1, "name": ["Acme"], "update_time": "2026-01-01T00:00:00Z"})

    system.fetch(entity)

    named = system.rows("SELECT event, reason, detail FROM sync_events WHERE detail LIKE 'name:%'")
    assert {(row.event, row.reason) for row in named} == {(f"incoming.{entity.hull}.error", "wrong_type")}
