"""Troubleshooting: changes do not come to Pipedrive."""

from __future__ import annotations

import pytest

from tests.guide.people import account_changed, add_acme, add_ada, fetch_all, user_changed
from tests.world import World


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    'Send the Users or Accounts by hand: select them in Hull and choose "Send to". They are sent whatever their'
    " segments.",
)
def test_send_to_needs_no_segment(world: World) -> None:
    world.change_settings(
        synchronized_user_segments=["vip"],
        synchronized_account_segments=["vip"],
        outgoing_user_attributes=[{"hull": "full_name", "service": "name"}],
        outgoing_account_attributes=[{"hull": "label", "service": "name"}],
    )
    ada, acme = add_ada(world), add_acme(world)
    fetch_all(world)

    user_changed(world, ada, segments=(), is_export=True, full_name="Ada Lovelace")
    account_changed(world, acme, segments=(), is_export=True, label="Acme Inc.")

    person, organization = world.company.record("person", ada), world.company.record("organization", acme)
    assert person is not None
    assert organization is not None
    assert (person["name"], organization["name"]) == ("Ada Lovelace", "Acme Inc.")
