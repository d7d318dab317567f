"""Webhooks nobody would send in good faith or in good order: each ends under a reason, and none costs a record."""

from __future__ import annotations

import copy
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.session import transaction
from pipeline.domain.kinds import Entity
from sandbox.pipedrive import payload
from tests.deliveries import SUBSCRIPTION, deliver, listen
from tests.journeys.people import age, fill, in_pipedrive, names
from tests.prepared import prepared
from tests.world import World


@prepared
def five_persons(world: World) -> None:
    fill(world, persons=5, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)


@pytest.fixture
def told(world: World) -> list[dict[str, Any]]:
    """Five Persons that Hull knows, and a list that fills with what Pipedrive says from here on."""
    five_persons(world)
    return listen(world)


def ahead(minutes: float) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def deliveries(world: World) -> list[tuple[str, str | None]]:
    return [tuple(row) for row in world.rows("SELECT state, reason FROM deliveries ORDER BY id")]


def reads(world: World) -> int:
    return int(world.pipedrive.ledger.requests["list"])


def reasons(world: World) -> list[tuple[str, str | None, int | None]]:
    return [event for event in world.events() if event[1] is not None]


def old_format(world: World) -> list[dict[str, Any]]:
    """A list that fills with what a subscription of version 1.0 would be told."""
    said: list[dict[str, Any]] = []
    world.company.listeners.append(
        lambda event: said.append(json.loads(json.dumps(payload.legacy_payload(world.company, event, SUBSCRIPTION))))
    )
    return said


def test_a_webhook_of_the_old_format_is_a_hint_to_read_its_record(world: World, told: list[Any]) -> None:
    old = old_format(world)
    world.company.edit_person(3, name="Edited")
    before = reads(world)

    deliver(world, *old)
    world.work()

    assert (names(world)[3], reads(world)) == ("Edited", before + 1)
    assert deliveries(world) == [("folded", "webhook_old_format")]
    assert reasons(world) == [("incoming.user.retry", "webhook_old_format", 3)]


def test_a_user_created_by_a_webhook_of_the_old_format_says_so_too(world: World, told: list[Any]) -> None:
    old = old_format(world)
    ada = world.company.create_person(name="Ada")["id"]

    deliver(world, *old)
    world.work()

    assert world.users()[ada]["pipedrive/created_by_webhook"] is True


@pytest.mark.parametrize("part", ["meta.timestamp", "data.update_time"])
def test_a_webhook_from_the_future_is_not_believed(world: World, told: list[Any], part: str) -> None:
    """Or whatever Pipedrive says until that moment would pass for old."""
    world.company.edit_person(3, name="Edited")
    forged = copy.deepcopy(told[0])
    top, _, key = part.partition(".")
    forged[top][key] = ahead(minutes=60)
    forged["data"]["name"] = "From the future"

    deliver(world, forged)
    world.work()
    after = names(world)[3]
    world.company.edit_person(3, name="Edited again")
    deliver(world, told[-1])
    world.later()
    world.work()

    assert (after, names(world)[3]) == ("Edited", "Edited again")
    assert ("folded", "webhook_future_dated") in deliveries(world)
    assert ("incoming.user.retry", "webhook_future_dated", 3) in reasons(world)


def test_a_webhook_from_the_future_does_not_outrank_those_that_wait(world: World, told: list[Any]) -> None:
    world.company.edit_person(3, name="Edited")
    forged = copy.deepcopy(told[0])
    forged["meta"] |= {"id": "forged", "timestamp": ahead(minutes=60)}
    forged["data"]["name"] = "From the future"

    for body in (told[0], forged):
        deliver(world, body)
        with transaction() as session:
            world.module("sync.changes.dispatch").coalesce_deliveries(session)
    world.work()

    assert names(world)[3] == "Edited"


def test_a_clock_of_pipedrive_that_is_somewhat_fast_is_believed(world: World, told: list[Any]) -> None:
    world.company.edit_person(3, name="Edited")
    before = reads(world)
    told[0]["meta"]["timestamp"] = told[0]["data"]["update_time"] = ahead(minutes=4)

    deliver(world, *told)
    world.work()

    assert (names(world)[3], reads(world)) == ("Edited", before)


def test_a_clock_that_jumps_back_loses_nothing(world: World, told: list[Any]) -> None:
    """What Pipedrive dates before its last word is read again, and what it then says counts."""
    world.company.edit_person(3, name="First")
    deliver(world, *told)
    world.work()
    told[0]["meta"] |= {"id": "second", "timestamp": "2026-01-02T00:00:00.000Z"}
    told[0]["data"] |= {"name": "Never there", "update_time": "2026-01-02T00:00:00Z"}
    before = reads(world)

    deliver(world, *told)
    world.work()

    assert (names(world)[3], reads(world)) == ("First", before + 1)


def test_a_webhook_of_another_company_is_refused(world: World, told: list[Any]) -> None:
    world.change_rows("UPDATE connectors SET company_id = :id", id=world.company.id)
    world.company.edit_person(2, name="Edited")
    world.company.edit_person(3, name="Of theirs")
    told[1]["meta"]["company_id"] = str(world.company.id + 1)

    deliver(world, *told)
    world.work()

    assert (names(world)[2], names(world)[3]) == ("Edited", "Person 3")
    assert deliveries(world) == [("folded", None), ("refused", "webhook_other_company")]
    assert reasons(world) == [("incoming.job.error", "webhook_other_company", None)]


def test_fields_nobody_knows_are_left_alone(world: World, told: list[Any]) -> None:
    world.company.edit_person(3, name="Edited")
    told[0]["data"] |= {"mood": {"deep": ["inside"]}}
    told[0]["data"]["custom_fields"] |= {"f" * 40: {"type": "hologram", "value": 3}, "": None}
    told[0]["surprise"] = told[0]["meta"]["surprise"] = [1]

    deliver(world, *told)
    world.work()

    assert names(world)[3] == "Edited"
    assert reasons(world) == []


def test_a_webhook_about_a_record_that_never_was_harms_nobody(world: World, told: list[Any]) -> None:
    world.company.edit_person(2, name="Edited")
    world.company.edit_person(3, name="Edited")
    told[1]["meta"]["entity_id"], told[1]["data"] = "4711", None

    deliver(world, *told)
    world.work()
    world.later()
    world.work()

    assert names(world)[2] == "Edited"
    assert 4711 not in world.users()
    assert world.rows("SELECT 1 FROM failures") == []


def test_the_event_of_a_refusal_leads_to_the_body(world: World) -> None:
    body = b'{"meta": {"entity": "person", "action": "explode", "entity_id": "1"}}'

    deliver(world, body)
    world.work()

    (row,) = world.rows("SELECT detail FROM sync_events")
    delivery_id = int(row.detail.removeprefix("delivery ").partition(":")[0])
    (row,) = world.rows("SELECT body FROM deliveries WHERE id = :id", id=delivery_id)
    assert bytes(row.body) == body


UNREADABLE = {
    "cut": lambda body: body[:-40],
    "no JSON": lambda body: body.replace(b"null", b"NaN,") + b"}",
    "too deep": lambda body: body[:-1] + b',"x":' + b"[" * 200 + b"]" * 200 + b"}",
    "too deep for a parser": lambda body: body[:-1] + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize("way", UNREADABLE)
def test_a_webhook_that_cannot_be_read_is_a_hint_to_read_its_record(world: World, told: list[Any], way: str) -> None:
    world.company.edit_person(3, name="Edited")

    deliver(world, UNREADABLE[way](json.dumps(told[0]).encode()))
    world.work()

    assert names(world)[3] == "Edited"
    assert deliveries(world) == [("folded", "webhook_unreadable")]
    assert reasons(world) == [("incoming.user.retry", "webhook_unreadable", 3)]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_repeated_shuffled_late_and_lost_deliveries_end_in_one_state(world: World, seed: int) -> None:
    """Each comes one to five times, in any order and in many rounds, one of ten never; the next fetch brings what was lost."""
    dice = random.Random(seed)
    fill(world, persons=20, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    said = listen(world)
    for number in range(60):
        if number % 12 == 11:
            world.company.create_person(name=f"New {number}")
        else:
            world.company.edit_person(dice.randint(1, 20), name=f"Edit {number}")
    posts = [body for body in said if dice.random() > 0.1 for _ in range(dice.randint(1, 5))]
    dice.shuffle(posts)
    for body in posts:
        if dice.random() < 0.3:
            body["meta"]["id"] = f"{dice.random()}"  # that it is the same event may not show
        deliver(world, body)
        if dice.random() < 0.2:
            world.work()
    world.work()
    world.later()
    world.work()

    world.fetch(Entity.PERSON, changed_only=True)
    for _ in range(7):  # within one second, what differs from the newest webhook is asked for until that is long ago
        world.later()
        world.work()

    assert names(world) == in_pipedrive(world)
    assert len(world.users()) == 25
    assert world.rows("SELECT 1 FROM failures") == []
    assert world.rows("SELECT 1 FROM changes") == []


@pytest.mark.parametrize(
    "shape", [{"type": "enum", "label": "Trade fair"}, {"type": "enum", "option": {"id": 1}}, [1], ...], ids=str
)
def test_a_custom_value_in_a_shape_nobody_knows_clears_nothing(world: World, told: list[Any], shape: Any) -> None:
    field = next(each for each in world.company.custom_fields("person") if each.name == "Lead source")
    world.change_settings(incoming_user_attributes=[{"hull": "source", "service": field.code}])
    world.company.edit_person(3, custom_fields={field.code: field.options[0].id})
    world.fetch(Entity.PERSON, changed_only=True)
    said = listen(world)
    world.company.edit_person(3, custom_fields={field.code: field.options[1].id})
    before = reads(world)
    if shape is ...:
        said[0]["data"]["custom_fields"] = None
    else:
        said[0]["data"]["custom_fields"][field.code] = shape

    deliver(world, *said)
    world.work()

    assert (world.users()[3]["source"], reads(world)) == (field.options[1].label, before + 1)
