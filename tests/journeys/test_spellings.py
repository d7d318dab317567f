"""One person has one User and one Person, however an address is spelled."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.journeys.people import age
from tests.journeys.told_by_hull import ANN, BEN, mapped, say, told, user, writes
from tests.world import World

NAME = {"hull": "nickname", "service": "name"}


def of(email: str) -> list[dict[str, Any]]:
    return [{"value": email, "primary": True}]


@pytest.fixture(autouse=True)
def settled(world: World) -> None:
    world.change_settings(outgoing_user_attributes=[NAME])


SPELLINGS = ["ada\u200b@example.com", "\ufeffAda@example.com", "a\u00adda@example.com", "\uff41da\uff20example.com"]


def test_persons_of_one_address_make_one_user_by_it(world: World) -> None:
    for number, email in enumerate(["ada@example.com", *SPELLINGS], start=1):
        world.company.create_person(name=f"Ada {number}", emails=of(email))

    world.fetch(Entity.PERSON)

    emails = [each.get("email") for each in world.users().values()]
    assert sorted(map(str, emails)) == ["None", "None", "None", "None", "ada@example.com"]


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        *(("ada@example.com", spelling) for spelling in SPELLINGS),
        ("\u200bada@example.com", "ada@example.com"),
        ("ada@m\u00fcnchen.de", "ada@xn--mnchen-3ya.de"),
        ("ada@xn--mnchen-3ya.de", "ADA@M\u00dcNCHEN.DE"),
    ],
)
def test_a_user_meets_the_person_of_another_spelling(world: World, kept: str, said: str) -> None:
    world.company.create_person(name="Ada", emails=of(kept))
    for entity in Entity:
        age(world, entity)
        world.fetch(entity)
    world.change_rows("UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL")
    world.pipedrive.ledger.mutations.clear()

    say(world, user(ANN, email=said, nickname="Ada"))

    assert mapped(world, ANN) == 1
    assert writes(world) == []
    assert told(world) == [("outgoing.user.skip", "no_change")]


def test_before_the_first_fetch_the_search_asks_for_both_spellings_of_a_host(world: World) -> None:
    world.company.create_person(name="Ada", emails=of("ada@m\u00fcnchen.de"))

    say(world, user(ANN, email="ada@xn--mnchen-3ya.de", nickname="Ada"))

    assert mapped(world, ANN) == 1
    assert [method for method, _, _ in writes(world)] == []


def test_two_users_of_one_address_make_one_person(world: World) -> None:
    for entity in Entity:
        world.fetch(entity)

    say(world, user(ANN, email="ada@example.com", nickname="Ada"))
    say(world, user(BEN, email="ada\u200b@example.com", nickname="Ada"))

    assert [method for method, _, _ in writes(world)] == ["POST"]


def test_an_address_is_written_without_what_nobody_sees(world: World) -> None:
    world.change_settings(outgoing_user_attributes=[NAME, {"hull": "mail", "service": "email"}])
    for entity in Entity:
        world.fetch(entity)

    say(world, user(ANN, mail="\ufeffada\u200b@example.com", nickname="Ada"))

    ((_, _, body),) = writes(world)
    assert [each["value"] for each in body["emails"]] == ["ada@example.com"]
