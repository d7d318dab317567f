"""Troubleshooting: changes do not come to Pipedrive."""

from __future__ import annotations

import pytest

from tests.guide.people import account_changed, add_acme, add_ada, fetch_all, in_hull, reached_at, user_changed
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


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "A selection that Hull hands over as a file is sent in the same way.",
)
def test_a_file_needs_no_segment_either(world: World) -> None:
    world.change_settings(
        synchronized_user_segments=["vip"], outgoing_user_attributes=[{"hull": "full_name", "service": "name"}]
    )
    ada = add_ada(world)
    fetch_all(world)
    (user,) = in_hull(world, "user")
    world.hull_app.test_client().post(f"/__sandbox__/users/{user['id']}", json={"full_name": "Ada Lovelace"})

    send_as_file(world, "http://127.0.0.1:9101/__sandbox__/export?entity=user")

    person = world.company.record("person", ada)
    assert person is not None
    assert person["name"] == "Ada Lovelace"


def send_as_file(world: World, url: str) -> None:
    """Hull hands a file over; what that asks for is done."""
    exports = world.room("exports")
    with reached_at(world, "127.0.0.1:9101"):
        exports.ask(world.connector_key, exports.Order(url=url, form="json", entity="person"))
        world.run_errands()
    world.work()
