"""Which Person and which User are the same, and which Organization and which Account."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.hull_messages import field_code, write_in_hull
from tests.system import SyncSystem

WORK, HOME = {"value": "ada@work.test", "primary": True}, {"value": "ada@home.test", "primary": False}


@pytest.mark.guide(
    "Account Identity",
    "By default an Organization and an Account are the same when they have the same domain: the registrable part"
    " of the Organization's website.",
)
@pytest.mark.guide(
    "Account Identity", "Another field can identify an Account as well: map it to external_id in the account identity."
)
@pytest.mark.guide(
    "Incoming Accounts", "Account identity: the Organization fields that are named here identify the Account."
)
@pytest.mark.guide("User Identity", "By default a Person and a User are the same when they have the same e-mail.")
@pytest.mark.guide(
    "User Identity", "Another field can identify a User as well: map it to external_id in the user identity."
)
@pytest.mark.parametrize(
    ("entity", "claim", "service"),
    [
        (Entity.PERSON, {"email": "ada@work.test"}, "email"),
        (Entity.PERSON, {"external_id": "C-17"}, "Customer number"),
        (Entity.ORGANIZATION, {"domain": "acme.com"}, "website"),
        (Entity.ORGANIZATION, {"external_id": "C-17"}, "Customer number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_record_joins_the_one_in_hull_with_the_same_identifier(
    system: SyncSystem, entity: Entity, claim: dict[str, str], service: str
) -> None:
    members: dict[str, Any] = {"emails": [{"value": "Ada@Work.test", "primary": True}]}
    if entity is Entity.ORGANIZATION:
        members = {"website": "https://shop.ACME.com/about"}
    if service == "Customer number":
        service = field_code(system, entity.value, service)
        members = {"custom_fields": {service: "C-17"}}
    (kind,) = claim
    system.change_settings(**{f"{entity.hull}_claims": [{"hull": kind, "service": service}]})
    write_in_hull(system, entity.hull, claim, {"plan": "gold"})
    system.company.create(entity.value, {"name": "Ada", **members})

    system.fetch(entity)

    (joined,) = system.hull_records(entity.hull)
    assert (joined["plan"], joined["pipedrive/name"], joined["pipedrive/id"]) == ("gold", "Ada", 1)


@pytest.mark.guide(
    "User Identity",
    "Every User that was created from a Person also has an anonymous id, pipedrive: and the Person's id.",
)
def test_each_user_is_also_known_by_the_id_of_its_person(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=[WORK])
    system.company.create_person(name="No e-mail")

    system.fetch(Entity.PERSON)

    assert {key: user["anonymous_ids"] for key, user in system.users().items()} == {
        key: [f"pipedrive:{key}"] for key in (1, 2)
    }


@pytest.mark.guide("Email as an identifier", "A Person can have several e-mails; the primary one is the User's.")
@pytest.mark.defect(9, "The first e-mail of a Person was taken, although another one was marked primary.")
@pytest.mark.parametrize("by_webhook", [False, True], ids=["fetch", "webhook"])
def test_the_primary_email_identifies_the_user(system: SyncSystem, by_webhook: bool) -> None:
    received = listen(system)
    system.company.create_person(name="Ada", emails=[HOME, WORK])

    if by_webhook:
        deliver(system, *received)
        system.work()
    else:
        system.fetch(Entity.PERSON)

    assert system.users()[1]["email"] == "ada@work.test"


@pytest.mark.guide(
    "Email as an identifier",
    "When another e-mail becomes primary, the User's identity changes as well: be careful when you reorder them.",
)
def test_another_primary_email_becomes_the_email_of_the_user(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=[WORK, HOME])
    system.fetch(Entity.PERSON)

    system.company.edit_person(1, emails=[WORK | {"primary": False}, HOME | {"primary": True}])
    system.fetch(Entity.PERSON)

    assert system.users()[1]["email"] == "ada@home.test"


@pytest.mark.defect(14, "The Organization's name was told to Hull as the domain of its Account.")
def test_an_organization_name_is_a_domain_only_if_it_is_a_host_name(system: SyncSystem) -> None:
    system.change_settings(account_claims=[{"hull": "domain", "service": "name"}])
    for name in ("Acme", "globex.com"):
        system.company.create_organization(name=name)

    system.fetch(Entity.ORGANIZATION)

    claimed = {body["pipedrive/id"]: claims["asAccount"].get("domain") for _, claims, body in system.hull.received}
    assert claimed == {1: None, 2: "globex.com"}
