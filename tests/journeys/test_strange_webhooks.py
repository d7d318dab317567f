"""Invalid or disordered webhooks: each ends with a reason, and no record is lost."""

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
from tests.journeys.pipedrive_records import age_records, create_records, hull_names, pipedrive_names
from tests.prepared import prepared
from tests.system import SyncSystem


@prepared
def five_persons(system: SyncSystem) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)


@pytest.fixture
def webhooks(system: SyncSystem) -> list[dict[str, Any]]:
    """Create five Persons in both systems, and return a list that collects Pipedrive's webhooks."""
    five_persons(system)
    return listen(system)


def ahead(minutes: float) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def deliveries(system: SyncSystem) -> list[tuple[str, str | None]]:
    return [tuple(row) for row in system.rows("SELECT state, reason FROM deliveries ORDER BY id")]


def reads(system: SyncSystem) -> int:
    return int(system.pipedrive.ledger.requests["list"])


def reasons(system: SyncSystem) -> list[tuple[str, str | None, int | None]]:
    return [event for event in system.events() if event[1] is not None]


def old_format(system: SyncSystem) -> list[dict[str, Any]]:
    """Return a list that collects the webhooks of a subscription of version 1.0."""
    payloads: list[dict[str, Any]] = []
    system.company.listeners.append(
        lambda event: payloads.append(
            json.loads(json.dumps(payload.legacy_payload(system.company, event, SUBSCRIPTION)))
        )
    )
    return payloads


def test_a_webhook_of_the_old_format_is_a_hint_to_read_its_record(system: SyncSystem, webhooks: list[Any]) -> None:
    old = old_format(system)
    system.company.edit_person(3, name="Edited")
    before = reads(system)

    deliver(system, *old)
    system.work()

    assert (hull_names(system)[3], reads(system)) == ("Edited", before + 1)
    assert deliveries(system) == [("processed", "webhook_old_format")]
    assert reasons(system) == [("incoming.user.retry", "webhook_old_format", 3)]


def test_a_user_created_by_an_old_format_webhook_names_its_cause(system: SyncSystem, webhooks: list[Any]) -> None:
    old = old_format(system)
    ada = system.company.create_person(name="Ada")["id"]

    deliver(system, *old)
    system.work()

    assert system.users()[ada]["pipedrive/created_by_webhook"] is True


@pytest.mark.parametrize("part", ["meta.timestamp", "data.update_time"])
def test_a_webhook_from_the_future_is_not_believed(system: SyncSystem, webhooks: list[Any], part: str) -> None:
    """Otherwise all webhooks until that moment would count as old."""
    system.company.edit_person(3, name="Edited")
    forged = copy.deepcopy(webhooks[0])
    top, _, key = part.partition(".")
    forged[top][key] = ahead(minutes=60)
    forged["data"]["name"] = "From the future"

    deliver(system, forged)
    system.work()
    after = hull_names(system)[3]
    system.company.edit_person(3, name="Edited again")
    deliver(system, webhooks[-1])
    system.end_pauses()
    system.work()

    assert (after, hull_names(system)[3]) == ("Edited", "Edited again")
    assert ("processed", "webhook_future_dated") in deliveries(system)
    assert ("incoming.user.retry", "webhook_future_dated", 3) in reasons(system)


def test_a_webhook_from_the_future_does_not_outrank_those_that_wait(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    forged = copy.deepcopy(webhooks[0])
    forged["meta"] |= {"id": "forged", "timestamp": ahead(minutes=60)}
    forged["data"]["name"] = "From the future"

    for body in (webhooks[0], forged):
        deliver(system, body)
        with transaction() as session:
            system.module("sync.changes.dispatch").coalesce_deliveries(session)
    system.work()

    assert hull_names(system)[3] == "Edited"


def test_a_clock_of_pipedrive_that_is_somewhat_fast_is_believed(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    before = reads(system)
    webhooks[0]["meta"]["timestamp"] = webhooks[0]["data"]["update_time"] = ahead(minutes=4)

    deliver(system, *webhooks)
    system.work()

    assert (hull_names(system)[3], reads(system)) == ("Edited", before)


def test_a_clock_that_jumps_back_loses_nothing(system: SyncSystem, webhooks: list[Any]) -> None:
    """A webhook that is older than the last one causes a new read, and the read counts."""
    system.company.edit_person(3, name="First")
    deliver(system, *webhooks)
    system.work()
    webhooks[0]["meta"] |= {"id": "second", "timestamp": "2026-01-02T00:00:00.000Z"}
    webhooks[0]["data"] |= {"name": "Never there", "update_time": "2026-01-02T00:00:00Z"}
    before = reads(system)

    deliver(system, *webhooks)
    system.work()

    assert (hull_names(system)[3], reads(system)) == ("First", before + 1)


def test_a_webhook_of_another_company_is_refused(system: SyncSystem, webhooks: list[Any]) -> None:
    system.change_rows("UPDATE connectors SET company_id = :id", id=system.company.id)
    system.company.edit_person(2, name="Edited")
    system.company.edit_person(3, name="Of theirs")
    webhooks[1]["meta"]["company_id"] = str(system.company.id + 1)

    deliver(system, *webhooks)
    system.work()

    assert (hull_names(system)[2], hull_names(system)[3]) == ("Edited", "Person 3")
    assert deliveries(system) == [("processed", None), ("refused", "webhook_other_company")]
    assert reasons(system) == [("incoming.job.error", "webhook_other_company", None)]


def test_unknown_fields_are_ignored(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    webhooks[0]["data"] |= {"mood": {"deep": ["inside"]}}
    webhooks[0]["data"]["custom_fields"] |= {"f" * 40: {"type": "hologram", "value": 3}, "": None}
    webhooks[0]["surprise"] = webhooks[0]["meta"]["surprise"] = [1]

    deliver(system, *webhooks)
    system.work()

    assert hull_names(system)[3] == "Edited"
    assert reasons(system) == []


def test_a_webhook_about_an_unknown_record_is_harmless(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(2, name="Edited")
    system.company.edit_person(3, name="Edited")
    webhooks[1]["meta"]["entity_id"], webhooks[1]["data"] = "4711", None

    deliver(system, *webhooks)
    system.work()
    system.end_pauses()
    system.work()

    assert hull_names(system)[2] == "Edited"
    assert 4711 not in system.users()
    assert system.rows("SELECT 1 FROM failures") == []


def test_the_event_of_a_refusal_leads_to_the_body(system: SyncSystem) -> None:
    body = b'{"meta": {"entity": "person", "action": "explode", "entity_id": "1"}}'

    deliver(system, body)
    system.work()

    (row,) = system.rows("SELECT detail FROM sync_events")
    delivery_id = int(row.detail.removeprefix("delivery ").partition(":")[0])
    (row,) = system.rows("SELECT body FROM deliveries WHERE id = :id", id=delivery_id)
    assert bytes(row.body) == body


UNREADABLE = {
    "cut": lambda body: body[:-40],
    "no JSON": lambda body: body.replace(b"null", b"NaN,") + b"}",
    "too deep": lambda body: body[:-1] + b',"x":' + b"[" * 200 + b"]" * 200 + b"}",
    "too deep for a parser": lambda body: body[:-1] + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize("way", UNREADABLE)
def test_a_webhook_that_cannot_be_read_is_a_hint_to_read_its_record(
    system: SyncSystem, webhooks: list[Any], way: str
) -> None:
    system.company.edit_person(3, name="Edited")

    deliver(system, UNREADABLE[way](json.dumps(webhooks[0]).encode()))
    system.work()

    assert hull_names(system)[3] == "Edited"
    assert deliveries(system) == [("processed", "webhook_unreadable")]
    assert reasons(system) == [("incoming.user.retry", "webhook_unreadable", 3)]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_repeated_shuffled_late_and_lost_deliveries_end_in_one_state(system: SyncSystem, seed: int) -> None:
    """Each comes one to five times, in any order and in many rounds, one of ten never; the next fetch brings what was lost."""
    dice = random.Random(seed)
    create_records(system, persons=20, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    payloads = listen(system)
    for number in range(60):
        if number % 12 == 11:
            system.company.create_person(name=f"New {number}")
        else:
            system.company.edit_person(dice.randint(1, 20), name=f"Edit {number}")
    posts = [body for body in payloads if dice.random() > 0.1 for _ in range(dice.randint(1, 5))]
    dice.shuffle(posts)
    for body in posts:
        if dice.random() < 0.3:
            body["meta"]["id"] = f"{dice.random()}"  # that it is the same event may not show
        deliver(system, body)
        if dice.random() < 0.2:
            system.work()
    system.work()
    system.end_pauses()
    system.work()

    system.fetch(Entity.PERSON, changed_only=True)
    for _ in range(7):  # within one second, what differs from the newest webhook is asked for until that is long ago
        system.end_pauses()
        system.work()

    assert hull_names(system) == pipedrive_names(system)
    assert len(system.users()) == 25
    assert system.rows("SELECT 1 FROM failures") == []
    assert system.rows("SELECT 1 FROM changes") == []


@pytest.mark.parametrize(
    "shape", [{"type": "enum", "label": "Trade fair"}, {"type": "enum", "option": {"id": 1}}, [1], ...], ids=str
)
def test_a_custom_value_of_an_unknown_shape_clears_nothing(system: SyncSystem, webhooks: list[Any], shape: Any) -> None:
    field = next(each for each in system.company.custom_fields("person") if each.name == "Lead source")
    system.change_settings(incoming_user_attributes=[{"hull": "source", "service": field.code}])
    system.company.edit_person(3, custom_fields={field.code: field.options[0].id})
    system.fetch(Entity.PERSON, changed_only=True)
    payloads = listen(system)
    system.company.edit_person(3, custom_fields={field.code: field.options[1].id})
    before = reads(system)
    if shape is ...:
        payloads[0]["data"]["custom_fields"] = None
    else:
        payloads[0]["data"]["custom_fields"][field.code] = shape

    deliver(system, *payloads)
    system.work()

    assert (system.users()[3]["source"], reads(system)) == (field.options[1].label, before + 1)
