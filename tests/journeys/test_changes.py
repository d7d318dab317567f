"""A scheduled fetch sends only changes, Fetch All sends everything, and null is sent only if needed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.wiring import open_connector
from tests.journeys.pipedrive_records import age_records, create_records
from tests.system import SyncSystem


def since(system: SyncSystem, seen: int) -> list[tuple[str | None, dict[str, object]]]:
    """(anonymous id, attributes) of what Hull received from message number `seen` on."""
    lines = [orjson.loads(line) for line in system.hull.received.lines(seen)]
    return [((claims.get("asUser") or claims["asAccount"]).get("anonymous_id"), body) for _, claims, body in lines]


def test_a_second_fetch_of_changes_sends_nothing(system: SyncSystem) -> None:
    create_records(system, persons=60, organizations=10)
    for entity in Entity:
        system.fetch(entity)
    seen, logged = system.hull.received.count, len(system.events())

    runs = [system.fetch(entity, changed_only=True) for entity in Entity]

    assert system.hull.received.count == seen
    assert [(run.new, run.changed, run.messages, run.failed) for run in runs] == [(0, 0, 0, 0)] * 2
    assert [run.same for run in runs] == [60, 10]  # each once, although the catch-up reads them again
    assert len(system.events()) == logged


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "everything is sent to Hull again, including unchanged records.",
)
def test_fetch_all_sends_everything_again_and_logs_no_change(system: SyncSystem) -> None:
    create_records(system, persons=60, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    seen, logged = system.hull.received.count, len(system.events())

    run = system.fetch(Entity.PERSON)

    assert len(since(system, seen)) == 60
    assert (run.same, run.messages) == (60, 60)
    assert len(system.events()) == logged


def test_a_change_is_sent_and_logged_with_what_it_was(system: SyncSystem) -> None:
    create_records(system, persons=3, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    seen = system.hull.received.count

    system.company.edit_person(2, name="Anna")
    run = system.fetch(Entity.PERSON, changed_only=True)

    assert [name for name, _ in since(system, seen)] == ["pipedrive:2"]
    assert run.changed == 1
    events = system.rows(
        "SELECT event, cause, pipedrive_id, before, after, run_id FROM sync_events ORDER BY id DESC LIMIT 1"
    )
    event = events[0]
    assert (event.event, event.cause, event.pipedrive_id, event.run_id) == ("incoming.user.success", "fetch", 2, run.id)
    assert orjson.loads(bytes(event.before)) == {"pipedrive/name": "Person 2"}
    assert orjson.loads(bytes(event.after)) == {"pipedrive/name": "Anna"}


def test_a_value_set_back_is_no_echo(system: SyncSystem) -> None:
    create_records(system, persons=1, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)

    for name in ("Anna", "Person 1"):
        system.company.edit_person(1, name=name)
        age_records(system)  # the same time for both states: only the values tell them apart
        system.fetch(Entity.PERSON, changed_only=True)

    assert system.users()[1]["pipedrive/name"] == "Person 1"


def test_a_first_fetch_never_sends_null(system: SyncSystem) -> None:
    system.company.create_person(name="Bo")
    system.company.create_organization(name="Globex")

    for entity in Entity:
        system.fetch(entity)

    assert [(name, [key for key in body if body[key] is None]) for name, body in since(system, 0)] == [
        ("pipedrive:1", []),
        ("pipedrive:1", []),
    ]


def test_null_is_sent_once_for_a_delivered_value(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", phones=[{"value": "+1 555", "primary": True}])
    system.fetch(Entity.PERSON)
    seen = system.hull.received.count

    system.company.edit_person(1, phones=[])
    system.fetch(Entity.PERSON, changed_only=True)
    messages = since(system, seen)
    system.company.edit_person(1, name="Ada L.")
    system.fetch(Entity.PERSON, changed_only=True)

    assert [body["pipedrive/phone"] for _, body in messages] == [None]
    again = since(system, seen + 1)
    assert [name for name, _ in again] == ["pipedrive:1"]
    assert all("pipedrive/phone" not in body for _, body in again)


def test_null_does_not_erase_what_another_source_wrote(system: SyncSystem) -> None:
    system.change_settings(incoming_user_attributes=[{"hull": "phone", "service": "phone"}])
    system.company.create_person(name="Ada", emails=[{"value": "ada@example.com", "primary": True}])
    with transaction() as session:
        hull = open_connector(session, system.connector_key).hull
    hull.post_batches([hull.writer().user_traits({"email": "ada@example.com"}, {"phone": "from elsewhere"})])

    system.fetch(Entity.PERSON)
    system.fetch(Entity.PERSON)

    assert system.users()[1]["phone"] == "from elsewhere"


@pytest.mark.parametrize("on_null", ["clear", "ignore"])
def test_a_mapping_may_ignore_null(system: SyncSystem, on_null: str) -> None:
    system.change_settings(incoming_user_attributes=[{"hull": "tel", "service": "phone", "on_null": on_null}])
    system.company.create_person(name="Ada", phones=[{"value": "+1 555", "primary": True}])
    system.fetch(Entity.PERSON)

    system.company.edit_person(1, phones=[])
    system.fetch(Entity.PERSON)

    assert system.users()[1].get("tel") == (None if on_null == "clear" else "+1 555")


def test_a_newly_mapped_field_is_sent_by_the_next_fetch_of_changes(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", phones=[{"value": "+1 555", "primary": True}])
    system.change_settings(incoming_user_attributes=[])
    system.fetch(Entity.PERSON)

    system.change_settings(incoming_user_attributes=[{"hull": "tel", "service": "phone"}])
    run = system.fetch(Entity.PERSON, changed_only=True)

    assert run.changed == 1
    assert system.users()[1]["tel"] == "+1 555"


def test_a_domain_that_changes_hands_makes_no_two_accounts_one(system: SyncSystem) -> None:
    for number in (1, 2):
        system.company.create_organization(name=f"Org {number}", website="https://shared.example.com")
    age_records(system, Entity.ORGANIZATION)
    system.fetch(Entity.ORGANIZATION)

    system.company.clock = lambda: time.time() - 100
    system.company.edit_organization(2, name="Takes over")
    system.company.clock = lambda: time.time() - 90
    system.company.edit_organization(1, website="https://moved-away.example.org")
    system.fetch(Entity.ORGANIZATION, since=datetime.now(UTC) - timedelta(minutes=5))

    shown = system.accounts()
    assert {number: each["pipedrive/name"] for number, each in shown.items()} == {1: "Org 1", 2: "Takes over"}
