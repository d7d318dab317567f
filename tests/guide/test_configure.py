"""Configure your Pipedrive Connector: what is joined to what."""

from __future__ import annotations

import pytest

from pipeline.domain.settings import SettingsRefused, read_settings
from tests.guide.people import add_acme, add_ada, fetch_all
from tests.world import World


@pytest.mark.guide(
    "Configure your Pipedrive Connector", "The connector keeps Persons and Users, Organizations and Accounts the same."
)
def test_persons_become_users_and_organizations_accounts(world: World) -> None:
    ada, acme = add_ada(world), add_acme(world)

    fetch_all(world)

    assert {key: user["pipedrive/name"] for key, user in world.users().items()} == {ada: "Ada"}
    assert {key: account["pipedrive/name"] for key, account in world.accounts().items()} == {acme: "Acme"}


@pytest.mark.guide(
    "Configure your Pipedrive Connector", "Settings that make no sense are refused whole, with every mistake named."
)
def test_all_mistakes_are_named_at_once() -> None:
    mistaken = {
        "link_users_in_hull": "maybe",
        "account_claims": [{"hull": "colour", "service": "name"}],
        "made_up": True,
    }

    with pytest.raises(SettingsRefused) as refused:
        read_settings(mistaken)

    assert [name for name in mistaken if any(name in mistake for mistake in refused.value.mistakes)] == list(mistaken)
