"""Email as an identifier: Persons with several e-mails, and e-mails with several Persons."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import ADA, add_ada
from tests.system import SyncSystem

WORK, HOME = {"value": ADA, "primary": True}, {"value": "home@example.com", "primary": False}


@pytest.mark.guide("Email as an identifier", "A Person can have several e-mails; the one marked primary is the User's.")
def test_the_primary_e_mail_counts(system: SyncSystem) -> None:
    ada = add_ada(system, emails=[HOME, WORK])

    system.fetch(Entity.PERSON)

    assert system.users()[ada]["email"] == ADA


@pytest.mark.guide(
    "Email as an identifier",
    "When another e-mail becomes primary, the User's identity changes with it: take care when you shuffle them.",
)
def test_another_primary_e_mail_is_another_identity(system: SyncSystem) -> None:
    ada = add_ada(system, emails=[WORK, HOME])
    system.fetch(Entity.PERSON)

    system.company.edit_person(ada, emails=[WORK | {"primary": False}, HOME | {"primary": True}])
    system.fetch(Entity.PERSON)

    assert system.users()[ada]["email"] == "home@example.com"


@pytest.mark.guide(
    "Email as an identifier",
    "If two Persons share an e-mail, the first one holds it and the other is known by its Pipedrive id alone.",
)
def test_a_shared_e_mail_is_held_by_the_first(system: SyncSystem) -> None:
    first, second = add_ada(system), add_ada(system, name="Ada again")

    system.fetch(Entity.PERSON)

    users = system.users()
    assert (users[first]["email"], users[second].get("email")) == (ADA, None)
    assert users[second]["anonymous_ids"] == [f"pipedrive:{second}"]
