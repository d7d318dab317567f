"""Email as an identifier: Persons with several e-mails, and e-mails with several Persons."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import ADA, add_ada
from tests.world import World

WORK, HOME = {"value": ADA, "primary": True}, {"value": "home@example.com", "primary": False}


@pytest.mark.guide("Email as an identifier", "A Person can have several e-mails; the one marked primary is the User's.")
def test_the_primary_e_mail_counts(world: World) -> None:
    ada = add_ada(world, emails=[HOME, WORK])

    world.fetch(Entity.PERSON)

    assert world.users()[ada]["email"] == ADA


@pytest.mark.guide(
    "Email as an identifier",
    "When another e-mail becomes primary, the User's identity changes with it: take care when you shuffle them.",
)
def test_another_primary_e_mail_is_another_identity(world: World) -> None:
    ada = add_ada(world, emails=[WORK, HOME])
    world.fetch(Entity.PERSON)

    world.company.edit_person(ada, emails=[WORK | {"primary": False}, HOME | {"primary": True}])
    world.fetch(Entity.PERSON)

    assert world.users()[ada]["email"] == "home@example.com"


@pytest.mark.guide(
    "Email as an identifier",
    "If two Persons share an e-mail, the first one holds it and the other is known by its Pipedrive id alone.",
)
def test_a_shared_e_mail_is_held_by_the_first(world: World) -> None:
    first, second = add_ada(world), add_ada(world, name="Ada again")

    world.fetch(Entity.PERSON)

    users = world.users()
    assert (users[first]["email"], users[second].get("email")) == (ADA, None)
    assert users[second]["anonymous_ids"] == [f"pipedrive:{second}"]
