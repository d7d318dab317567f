"""User Identity: which Person and which User are the same, and what a sent User brings back."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import ADA, add_ada, before_now, fetch_all, in_hull, tell_hull, told, user_changed
from tests.journeys.hull_messages import (
    ANN,
    BEN,
    failures,
    fetch_everything,
    field_code,
    person,
    pipedrive_id_of,
    send_messages,
    stop_hull_id_lookups,
    user,
    work_until_idle,
    writes,
)
from tests.system import SyncSystem

TO_NAME = [{"hull": "full_name", "service": "name"}]


@pytest.mark.guide("User Identity", "By default a Person and a User are the same when they have the same e-mail.")
def test_a_person_joins_the_user_of_the_same_e_mail(system: SyncSystem) -> None:
    tell_hull(system, "user", {"email": ADA}, {"plan": "gold"})
    add_ada(system, emails=[{"value": "Ada@Example.com", "primary": True}])

    system.fetch(Entity.PERSON)

    assert [(user["plan"], user["pipedrive/name"]) for user in in_hull(system, "user")] == [("gold", "Ada")]


@pytest.mark.guide(
    "User Identity", "Another field can identify a User as well: map it to external_id in the user identity."
)
def test_a_person_joins_the_user_of_the_same_external_id(system: SyncSystem) -> None:
    number = field_code(system, "person", "Customer number")
    system.change_settings(user_claims=[{"hull": "external_id", "service": number}])
    tell_hull(system, "user", {"external_id": "C-17"}, {"plan": "gold"})
    add_ada(system, emails=[], custom_fields={number: "C-17"})

    system.fetch(Entity.PERSON)

    assert [(user["plan"], user["pipedrive/name"]) for user in in_hull(system, "user")] == [("gold", "Ada")]


@pytest.mark.guide("User Identity", "Every User that came from a Person also carries pipedrive: and the Person's id.")
def test_every_user_carries_the_id(system: SyncSystem) -> None:
    ada, nobody = add_ada(system), add_ada(system, name="No e-mail", emails=[])

    system.fetch(Entity.PERSON)

    assert {key: user["anonymous_ids"] for key, user in system.users().items()} == {
        key: [f"pipedrive:{key}"] for key in (ada, nobody)
    }


@pytest.mark.guide(
    "User Identity", "When a User goes to Pipedrive and its Person is known from before, that Person is updated."
)
def test_a_known_person_is_updated(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=TO_NAME)
    ada = add_ada(system)
    system.fetch(Entity.PERSON)

    user_changed(system, ada, full_name="Ada Lovelace")

    assert system.company.record("person", ada)["name"] == "Ada Lovelace"  # type: ignore[index]
    assert system.company.count("person") == 1


@pytest.mark.guide(
    "User Identity",
    "A User without a known Person is looked up in Pipedrive, by e-mail and by the other identifiers; the Person that"
    " answers is updated.",
)
@pytest.mark.parametrize("told", [{"email": ADA}, {"external_id": "C-17"}], ids=["e-mail", "external id"])
def test_a_person_that_answers_is_updated(system: SyncSystem, told: dict[str, str]) -> None:
    number = field_code(system, "person", "Customer number")
    claims = [{"hull": "email", "service": "email"}, {"hull": "external_id", "service": number}]
    system.change_settings(outgoing_user_attributes=TO_NAME, user_claims=claims)
    ada = add_ada(system, custom_fields={number: "C-17"})
    fetch_all(system)
    stop_hull_id_lookups(system)

    send_messages(system, user(ANN, full_name="Ada Lovelace", **told))

    assert [(method, each) for method, each, _ in writes(system)] == [("PATCH", ada)]
    assert person(system, ada)["name"] == "Ada Lovelace"


@pytest.mark.guide("User Identity", "Every e-mail of a Person counts, not only the primary one.")
def test_any_e_mail_answers(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=TO_NAME)
    ada = add_ada(system, emails=[{"value": ADA, "primary": True}, {"value": "ada@home.test", "primary": False}])
    fetch_all(system)
    stop_hull_id_lookups(system)

    send_messages(system, user(ANN, email="ada@home.test", full_name="Ada Lovelace"))

    assert [(method, each) for method, each, _ in writes(system)] == [("PATCH", ada)]


@pytest.mark.guide(
    "User Identity", "If several Persons answer, none is changed: a failure names them, and a person decides."
)
def test_several_answers_are_a_persons_to_decide(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=TO_NAME)
    add_ada(system)
    add_ada(system)
    fetch_everything(system)

    send_messages(system, user(ANN, email=ADA, full_name="Ada Lovelace"))

    assert writes(system) == []
    assert failures(system) == [(ANN, "ambiguous_match")]
    assert [row.detail for row in system.rows("SELECT detail FROM failures")] == ["persons 1, 2 by email"]


@pytest.mark.guide("User Identity", "A User that nobody answers to is created in Pipedrive, with its identifiers.")
def test_who_is_not_there_is_created(system: SyncSystem) -> None:
    number = field_code(system, "person", "Customer number")
    claims = [{"hull": "email", "service": "email"}, {"hull": "external_id", "service": number}]
    system.change_settings(outgoing_user_attributes=TO_NAME, user_claims=claims)
    fetch_everything(system)

    send_messages(system, user(ANN, email=ADA, external_id="C-17", full_name="Ada Lovelace"))

    made = person(system, pipedrive_id_of(system, ANN))
    assert (made["name"], made["emails"][0]["value"]) == ("Ada Lovelace", ADA)
    assert made["custom_fields"][number] == "C-17"
    assert system.company.count("person") == 1


@pytest.mark.guide("User Identity", "Two Users with the same e-mail never make two Persons.")
def test_one_e_mail_makes_one_person(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=TO_NAME)
    fetch_everything(system)

    send_messages(system, user(ANN, email=ADA, full_name="Ada"), user(BEN, email=ADA, full_name="Ada too"))
    work_until_idle(system)

    assert system.company.count("person") == 1


@pytest.mark.guide(
    "User Identity", "After a User was sent, what Pipedrive then holds of the Person comes back to Hull."
)
def test_what_pipedrive_made_of_it_comes_back(system: SyncSystem) -> None:
    incoming = [{"hull": f"pipedrive/{name}", "service": name} for name in ("name", "last_name")]
    system.change_settings(outgoing_user_attributes=TO_NAME, incoming_user_attributes=incoming)
    ada = add_ada(system)
    system.fetch(Entity.PERSON)

    user_changed(system, ada, full_name="Ada Lovelace")

    back = system.users()[ada]
    assert (back["pipedrive/name"], back["pipedrive/last_name"]) == ("Ada Lovelace", "Lovelace")


@pytest.mark.guide("User Identity", "Only the incoming user attributes come back.")
def test_nothing_else_comes_back(system: SyncSystem) -> None:
    system.change_settings(
        outgoing_user_attributes=TO_NAME, incoming_user_attributes=[{"hull": "last", "service": "last_name"}]
    )
    ada = add_ada(system)
    system.fetch(Entity.PERSON)
    seen = system.hull.received.count

    user_changed(system, ada, full_name="Ada Lovelace")

    assert told(system, seen) == [{"last": "Lovelace", "pipedrive/id": ada}]


@pytest.mark.guide("User Identity", "A User whose Person was found or created carries its Pipedrive id from then on.")
@pytest.mark.parametrize("is_there", [True, False])
def test_who_was_joined_carries_the_id(system: SyncSystem, is_there: bool) -> None:
    system.change_settings(outgoing_user_attributes=TO_NAME)
    fetch_everything(system)
    tell_hull(system, "user", {"email": ADA}, {"full_name": "Ada Lovelace"})
    (ada,) = in_hull(system, "user")
    if is_there:
        before_now(system, Entity.PERSON, add_ada(system))

    send_messages(system, user(ada["id"], email=ADA, full_name="Ada Lovelace"))

    (back,) = in_hull(system, "user")
    assert back["id"] == ada["id"]
    assert back["pipedrive/id"] == pipedrive_id_of(system, ada["id"])
    assert back["pipedrive/name"] == "Ada Lovelace"
