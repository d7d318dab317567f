"""One person has one User and one Person, however an address is spelled."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.journeys.hull_messages import (
    ANN,
    BEN,
    outgoing_events,
    pipedrive_id_of,
    send_messages,
    user,
    work_until_idle,
    writes,
)
from tests.journeys.pipedrive_records import age_records
from tests.system import SyncSystem

NAME = {"hull": "nickname", "service": "name"}


def of(email: str) -> list[dict[str, Any]]:
    return [{"value": email, "primary": True}]


@pytest.fixture(autouse=True)
def mapping(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=[NAME])


SPELLINGS = ["ada\u200b@example.com", "\ufeffAda@example.com", "a\u00adda@example.com", "\uff41da\uff20example.com"]


def test_persons_of_one_address_make_one_user_by_it(system: SyncSystem) -> None:
    for number, email in enumerate(["ada@example.com", *SPELLINGS], start=1):
        system.company.create_person(name=f"Ada {number}", emails=of(email))

    system.fetch(Entity.PERSON)

    emails = [each.get("email") for each in system.users().values()]
    assert sorted(map(str, emails)) == ["None", "None", "None", "None", "ada@example.com"]


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        *(("ada@example.com", spelling) for spelling in SPELLINGS),
        ("\u200bada@example.com", "ada@example.com"),
        ("ada@m\u00fcnchen.de", "ada@xn--mnchen-3ya.de"),
        ("ada@xn--mnchen-3ya.de", "ADA@M\u00dcNCHEN.DE"),
    ],
)
def test_a_user_meets_the_person_of_another_spelling(system: SyncSystem, stored: str, sent: str) -> None:
    system.company.create_person(name="Ada", emails=of(stored))
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)
    system.change_rows("UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL")
    system.pipedrive.ledger.mutations.clear()

    send_messages(system, user(ANN, email=sent, nickname="Ada"))

    assert pipedrive_id_of(system, ANN) == 1
    assert writes(system) == []
    assert outgoing_events(system) == [("outgoing.user.skip", "no_change")]


def test_before_the_first_fetch_the_search_asks_for_both_spellings_of_a_host(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=of("ada@m\u00fcnchen.de"))

    send_messages(system, user(ANN, email="ada@xn--mnchen-3ya.de", nickname="Ada"))

    assert pipedrive_id_of(system, ANN) == 1
    assert [method for method, _, _ in writes(system)] == []


@pytest.mark.defect(
    10, "An e-mail was looked up with its + read as a space, and the first answer taken whoever it was."
)
def test_the_search_matches_the_whole_address_only(system: SyncSystem) -> None:
    for address in ("joann+tag@x.test", "ann tag@x.test", "ann+tag@x.test", "ann+tag@x.test.example"):
        system.company.create_person(name=address, emails=of(address))

    send_messages(system, user(ANN, email="ann+tag@x.test", nickname="Ann"))
    work_until_idle(system)

    assert writes(system) == [("PATCH", 3, {"name": "Ann"})]


def test_two_users_of_one_address_make_one_person(system: SyncSystem) -> None:
    for entity in Entity:
        system.fetch(entity)

    send_messages(system, user(ANN, email="ada@example.com", nickname="Ada"))
    send_messages(system, user(BEN, email="ada\u200b@example.com", nickname="Ada"))

    assert [method for method, _, _ in writes(system)] == ["POST"]


def test_an_address_is_written_without_invisible_characters(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=[NAME, {"hull": "mail", "service": "email"}])
    for entity in Entity:
        system.fetch(entity)

    send_messages(system, user(ANN, mail="\ufeffada\u200b@example.com", nickname="Ada"))

    ((_, _, body),) = writes(system)
    assert [each["value"] for each in body["emails"]] == ["ada@example.com"]
