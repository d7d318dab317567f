"""User Identity: which Person and which User are the same, and what a sent User brings back."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import ADA, add_ada, in_hull, tell_hull, told, user_changed
from tests.world import World

TO_NAME = [{"hull": "full_name", "service": "name"}]


def code_of(world: World, name: str) -> str:
    return next(field.code for field in world.company.custom_fields("person") if field.name == name)


@pytest.mark.guide("User Identity", "By default a Person and a User are the same when they have the same e-mail.")
def test_a_person_joins_the_user_of_the_same_e_mail(world: World) -> None:
    tell_hull(world, "user", {"email": ADA}, {"plan": "gold"})
    add_ada(world, emails=[{"value": "Ada@Example.com", "primary": True}])

    world.fetch(Entity.PERSON)

    assert [(user["plan"], user["pipedrive/name"]) for user in in_hull(world, "user")] == [("gold", "Ada")]


@pytest.mark.guide(
    "User Identity", "Another field can identify a User as well: map it to external_id in the user identity."
)
def test_a_person_joins_the_user_of_the_same_external_id(world: World) -> None:
    code = code_of(world, "Customer number")
    world.change_settings(user_claims=[{"hull": "external_id", "service": code}])
    tell_hull(world, "user", {"external_id": "C-17"}, {"plan": "gold"})
    add_ada(world, emails=[], custom_fields={code: "C-17"})

    world.fetch(Entity.PERSON)

    assert [(user["plan"], user["pipedrive/name"]) for user in in_hull(world, "user")] == [("gold", "Ada")]


@pytest.mark.guide("User Identity", "Every User that came from a Person also carries pipedrive: and the Person's id.")
def test_every_user_carries_the_id(world: World) -> None:
    ada, nobody = add_ada(world), add_ada(world, name="No e-mail", emails=[])

    world.fetch(Entity.PERSON)

    assert {key: user["anonymous_ids"] for key, user in world.users().items()} == {
        key: [f"pipedrive:{key}"] for key in (ada, nobody)
    }


@pytest.mark.guide(
    "User Identity", "When a User goes to Pipedrive and its Person is known from before, that Person is updated."
)
def test_a_known_person_is_updated(world: World) -> None:
    world.change_settings(outgoing_user_attributes=TO_NAME)
    ada = add_ada(world)
    world.fetch(Entity.PERSON)

    user_changed(world, ada, full_name="Ada Lovelace")

    assert world.company.record("person", ada)["name"] == "Ada Lovelace"  # type: ignore[index]
    assert world.company.count("person") == 1


@pytest.mark.guide(
    "User Identity", "After a User was sent, what Pipedrive then holds of the Person comes back to Hull."
)
def test_what_pipedrive_made_of_it_comes_back(world: World) -> None:
    incoming = [{"hull": f"pipedrive/{name}", "service": name} for name in ("name", "last_name")]
    world.change_settings(outgoing_user_attributes=TO_NAME, incoming_user_attributes=incoming)
    ada = add_ada(world)
    world.fetch(Entity.PERSON)

    user_changed(world, ada, full_name="Ada Lovelace")

    back = world.users()[ada]
    assert (back["pipedrive/name"], back["pipedrive/last_name"]) == ("Ada Lovelace", "Lovelace")


@pytest.mark.guide("User Identity", "Only the incoming user attributes come back.")
def test_nothing_else_comes_back(world: World) -> None:
    world.change_settings(
        outgoing_user_attributes=TO_NAME, incoming_user_attributes=[{"hull": "last", "service": "last_name"}]
    )
    ada = add_ada(world)
    world.fetch(Entity.PERSON)
    seen = world.hull.received.count

    user_changed(world, ada, full_name="Ada Lovelace")

    assert told(world, seen) == [{"last": "Lovelace", "pipedrive/id": ada}]
