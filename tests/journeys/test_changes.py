"""What is sent and what is not: a scheduled fetch sends changes alone, Fetch All sends everything, null is said rarely."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.wiring import open_connector
from tests.journeys.people import age, fill
from tests.world import World


def since(world: World, seen: int) -> list[tuple[str | None, dict[str, object]]]:
    """(anonymous id, attributes) of what Hull received from message number `seen` on."""
    lines = [orjson.loads(line) for line in world.hull.received.lines(seen)]
    return [((claims.get("asUser") or claims["asAccount"]).get("anonymous_id"), body) for _, claims, body in lines]


def test_a_second_fetch_of_changes_sends_nothing(world: World) -> None:
    fill(world, persons=60, organizations=10)
    for entity in Entity:
        world.fetch(entity)
    seen, logged = world.hull.received.count, len(world.events())

    runs = [world.fetch(entity, changed_only=True) for entity in Entity]

    assert world.hull.received.count == seen
    assert [(run.new, run.changed, run.messages, run.failed) for run in runs] == [(0, 0, 0, 0)] * 2
    assert [run.same for run in runs] == [60, 10]  # each once, although the catch-up reads them again
    assert len(world.events()) == logged


def test_fetch_all_sends_everything_again_and_logs_no_change(world: World) -> None:
    fill(world, persons=60, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    seen, logged = world.hull.received.count, len(world.events())

    run = world.fetch(Entity.PERSON)

    assert len(since(world, seen)) == 60
    assert (run.same, run.messages) == (60, 60)
    assert len(world.events()) == logged


def test_a_change_is_sent_and_logged_with_what_it_was(world: World) -> None:
    fill(world, persons=3, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    seen = world.hull.received.count

    world.company.edit_person(2, name="Anna")
    run = world.fetch(Entity.PERSON, changed_only=True)

    assert [name for name, _ in since(world, seen)] == ["pipedrive:2"]
    assert run.changed == 1
    events = world.rows(
        "SELECT event, cause, pipedrive_id, before, after, run_id FROM sync_events ORDER BY id DESC LIMIT 1"
    )
    event = events[0]
    assert (event.event, event.cause, event.pipedrive_id, event.run_id) == ("incoming.user.success", "fetch", 2, run.id)
    assert orjson.loads(bytes(event.before)) == {"pipedrive/name": "Person 2"}
    assert orjson.loads(bytes(event.after)) == {"pipedrive/name": "Anna"}


def test_a_value_set_back_is_no_echo(world: World) -> None:
    fill(world, persons=1, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)

    for name in ("Anna", "Person 1"):
        world.company.edit_person(1, name=name)
        age(world)  # the same time for both states: only the values tell them apart
        world.fetch(Entity.PERSON, changed_only=True)

    assert world.users()[1]["pipedrive/name"] == "Person 1"


def test_a_first_fetch_never_says_null(world: World) -> None:
    world.company.create_person(name="Bo")
    world.company.create_organization(name="Globex")

    for entity in Entity:
        world.fetch(entity)

    assert [(name, [key for key in body if body[key] is None]) for name, body in since(world, 0)] == [
        ("pipedrive:1", []),
        ("pipedrive:1", []),
    ]


def test_null_is_said_once_for_what_was_delivered(world: World) -> None:
    world.company.create_person(name="Ada", phones=[{"value": "+1 555", "primary": True}])
    world.fetch(Entity.PERSON)
    seen = world.hull.received.count

    world.company.edit_person(1, phones=[])
    world.fetch(Entity.PERSON, changed_only=True)
    told = since(world, seen)
    world.company.edit_person(1, name="Ada L.")
    world.fetch(Entity.PERSON, changed_only=True)

    assert [body["pipedrive/phone"] for _, body in told] == [None]
    again = since(world, seen + 1)
    assert [name for name, _ in again] == ["pipedrive:1"]
    assert all("pipedrive/phone" not in body for _, body in again)


def test_null_does_not_erase_what_another_source_wrote(world: World) -> None:
    world.change_settings(incoming_user_attributes=[{"hull": "phone", "service": "phone"}])
    world.company.create_person(name="Ada", emails=[{"value": "ada@example.com", "primary": True}])
    with transaction() as session:
        hull = open_connector(session, world.connector_key).hull
    hull.post_batches([hull.writer().user_traits({"email": "ada@example.com"}, {"phone": "from elsewhere"})])

    world.fetch(Entity.PERSON)
    world.fetch(Entity.PERSON)

    assert world.users()[1]["phone"] == "from elsewhere"


@pytest.mark.parametrize("on_null", ["clear", "ignore"])
def test_a_mapping_may_ignore_null(world: World, on_null: str) -> None:
    world.change_settings(incoming_user_attributes=[{"hull": "tel", "service": "phone", "on_null": on_null}])
    world.company.create_person(name="Ada", phones=[{"value": "+1 555", "primary": True}])
    world.fetch(Entity.PERSON)

    world.company.edit_person(1, phones=[])
    world.fetch(Entity.PERSON)

    assert world.users()[1].get("tel") == (None if on_null == "clear" else "+1 555")


def test_a_newly_mapped_field_is_sent_by_the_next_fetch_of_changes(world: World) -> None:
    world.company.create_person(name="Ada", phones=[{"value": "+1 555", "primary": True}])
    world.change_settings(incoming_user_attributes=[])
    world.fetch(Entity.PERSON)

    world.change_settings(incoming_user_attributes=[{"hull": "tel", "service": "phone"}])
    run = world.fetch(Entity.PERSON, changed_only=True)

    assert run.changed == 1
    assert world.users()[1]["tel"] == "+1 555"


def test_a_domain_that_changes_hands_makes_no_two_accounts_one(world: World) -> None:
    for number in (1, 2):
        world.company.create_organization(name=f"Org {number}", website="https://shared.example.com")
    age(world, Entity.ORGANIZATION)
    world.fetch(Entity.ORGANIZATION)

    world.company.clock = lambda: time.time() - 100
    world.company.edit_organization(2, name="Takes over")
    world.company.clock = lambda: time.time() - 90
    world.company.edit_organization(1, website="https://moved-away.example.org")
    world.fetch(Entity.ORGANIZATION, since=datetime.now(UTC) - timedelta(minutes=5))

    shown = world.accounts()
    assert {number: each["pipedrive/name"] for number, each in shown.items()} == {1: "Org 1", 2: "Takes over"}
