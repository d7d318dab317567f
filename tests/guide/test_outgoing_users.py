"""Outgoing Users: who is sent, and what of them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import add_ada, outcomes, user_changed
from tests.world import World

TO_NAME = [{"hull": "full_name", "service": "name"}]


def ada_in(world: World, **settings: Any) -> int:
    """Ada on both sides, under these settings."""
    world.change_settings(**{"synchronized_user_segments": ["vip"], "outgoing_user_attributes": TO_NAME, **settings})
    ada = add_ada(world)
    world.fetch(Entity.PERSON)
    return ada


def name_of(world: World, person_id: int) -> str:
    record = world.company.record("person", person_id)
    assert record is not None
    return str(record["name"])


@pytest.mark.guide("Outgoing Users", "a User is sent when it enters one of these segments.")
def test_entering_a_segment_sends(world: World) -> None:
    ada = ada_in(world)
    user_changed(world, ada, full_name="Ada L.", segments=("others",))
    before = name_of(world, ada)

    user_changed(world, ada, full_name="Ada L.", segments=("others", "vip"), note="entered")

    assert (before, name_of(world, ada)) == ("Ada", "Ada L.")


@pytest.mark.guide("Outgoing Users", "A User in one of them is sent when a mapped attribute changes.")
def test_a_mapped_attribute_that_changes_sends(world: World) -> None:
    ada = ada_in(world)

    user_changed(world, ada, full_name="Ada L.")
    user_changed(world, ada, full_name="Ada L.", unmapped="new", changed=["unmapped"])

    assert name_of(world, ada) == "Ada L."
    assert outcomes(world) == [("outgoing.user.success", None), ("outgoing.user.skip", "no_relevant_change")]


@pytest.mark.guide("Outgoing Users", "A User in none of them is not sent.")
def test_outside_the_segments_nothing_is_sent(world: World) -> None:
    ada = ada_in(world)

    user_changed(world, ada, full_name="Ada L.", segments=("others",))

    assert name_of(world, ada) == "Ada"
    assert outcomes(world) == [("outgoing.user.skip", "not_in_segment")]


@pytest.mark.guide("Outgoing Users", "Without outgoing attributes nothing is sent, whatever the segment.")
def test_without_attributes_nothing_is_sent(world: World) -> None:
    ada = ada_in(world, outgoing_user_attributes=[])

    user_changed(world, ada, full_name="Ada L.")

    assert name_of(world, ada) == "Ada"
    assert outcomes(world) == [("outgoing.user.skip", "no_outgoing_mapping")]


@pytest.mark.guide(
    "Outgoing Users",
    "outgoing user attributes: each attribute that is mapped here is written to its Person field, and nothing else is"
    " written.",
)
def test_mapped_attributes_alone_are_written(world: World) -> None:
    rows = [{"hull": "full_name", "service": "name"}, {"hull": "tel", "service": "phone"}]
    ada = ada_in(world, outgoing_user_attributes=rows)
    before = world.company.record("person", ada)

    user_changed(world, ada, full_name="Ada L.", tel="+1 555", plan="gold")

    after = world.company.record("person", ada)
    assert before is not None
    assert after is not None
    changed = {name for name in after if after[name] != before[name]} - {"update_time"}
    assert changed <= {"name", "first_name", "last_name", "phones"}
    assert (after["name"], after["phones"][0]["value"]) == ("Ada L.", "+1 555")
