"""Users and Accounts without a known record: each is matched with a record of Pipedrive, or created there once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from db.failure_filter import find_failures
from db.session import transaction
from pipeline.cli.program import program
from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.journeys.hull_messages import (
    ANN,
    BEN,
    account,
    failures,
    field_code,
    pipedrive_id_of,
    send_messages,
    stop_hull_id_lookups,
    user,
    work_until_idle,
    write_in_hull,
    writes,
)
from tests.journeys.pipedrive_records import age_records
from tests.prepared import prepared
from tests.system import SyncSystem

MAPPED = [{"hull": "nickname", "service": "name"}, {"hull": "tel", "service": "phone"}]
KEYS = {
    Entity.PERSON: {"hull": "email", "service": "email"},
    Entity.ORGANIZATION: {"hull": "domain", "service": "website"},
}
CLAIMED = {Entity.PERSON: "cyd@new.test", Entity.ORGANIZATION: "acme.com"}
"""Entity → its first identifier, and the value that `message` claims."""


@pytest.fixture(autouse=True)
@prepared
def fetched(system: SyncSystem) -> None:
    """Two Persons in Pipedrive, and a complete full fetch."""
    system.change_settings(
        outgoing_user_attributes=MAPPED,
        outgoing_account_attributes=[{"hull": "name", "service": "name"}],
        account_claims=[{"hull": "domain", "service": "website"}],
    )
    system.company.create_person(
        name="Ada Lovelace",
        emails=[{"value": "ada@analytical.test", "primary": True}, {"value": "ada@home.test", "primary": False}],
    )
    system.company.create_person(name="Bo", emails=[{"value": "bo@plain.test", "primary": True}])
    age_records(system)
    for entity in Entity:
        system.fetch(entity)


def message(entity: Entity, name: str = "New", **attributes: Any) -> dict[str, Any]:
    """Return a message about ANN, or an Account with the same id, with the identifier of `CLAIMED`."""
    claims = {KEYS[entity]["hull"]: CLAIMED[entity], **attributes}
    return (user if entity is Entity.PERSON else account)(ANN, nickname=name, name=name, **claims)


def create(system: SyncSystem, entity: Entity, host: str = "", **members: Any) -> dict[str, Any]:
    """Create the record of Pipedrive that `message` matches."""
    value = CLAIMED[entity]
    own = (
        {"emails": [{"value": value, "primary": True}]}
        if entity is Entity.PERSON
        else {"website": f"https://{host or 'www'}.{value}/about"}
    )
    return system.company.create(entity.value, {"name": "Old", **own, **members})


def outgoing(system: SyncSystem) -> list[Any]:
    """Return (event, reason, Pipedrive id) of all outgoing events."""
    return [each for each in system.events() if each[0].startswith("outgoing")]


def mapping(system: SyncSystem, hull_id: str = ANN) -> Any:
    (row,) = system.rows("SELECT pipedrive_id, state, matched_by FROM id_mappings WHERE hull_id = :id", id=hull_id)
    return tuple(row)


@pytest.mark.guide("User Identity", "Every e-mail of a Person counts, not only the primary one.")
@pytest.mark.parametrize("email", ["ada@analytical.test", "ADA@Analytical.test ", "ada@home.test"])
def test_a_user_is_matched_by_any_email_of_a_person(system: SyncSystem, email: str) -> None:
    system.change_rows("UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL")
    searched = system.pipedrive.ledger.requests["search"]
    notify(system, user(email=email, nickname="Countess"))
    system.work()

    assert writes(system) == [("PATCH", 1, {"name": "Countess"})]
    assert mapping(system) == (1, "full", "email")
    assert system.pipedrive.ledger.requests["search"] == searched


@pytest.mark.guide(
    "Account Identity",
    "An Account without a matching Organization is created in Pipedrive, with its identifiers.",
)
@pytest.mark.guide("User Identity", "A User without a matching Person is created in Pipedrive, with its identifiers.")
@pytest.mark.parametrize("entity", Entity)
def test_a_record_without_a_match_is_created_with_its_identifiers(system: SyncSystem, entity: Entity) -> None:
    number = field_code(system, entity.value, "Customer number")
    claims = [KEYS[entity], {"hull": "external_id", "service": number}]
    system.change_settings(**{f"{entity.hull}_claims": claims})
    for each in Entity:  # the local index has to know the new identifier
        system.fetch(each)

    send_messages(system, message(entity, external_id="C-17"))

    ((method, made, body),) = writes(system)
    held = system.company.record(entity.value, made)
    assert held is not None
    assert (method, body["name"], held["custom_fields"][number]) == ("POST", "New", "C-17")
    assert (held["emails"][0]["value"] if entity is Entity.PERSON else held["website"]) == CLAIMED[entity]
    assert mapping(system) == (made, "full", "created")
    assert outgoing(system) == [(f"outgoing.{entity.hull}.success", None, made)]
    assert system.rows("SELECT 1 FROM identifiers WHERE role = 'reserved'") == []


@pytest.mark.guide(
    "Account Identity",
    "An Account without a known Organization is looked up in Pipedrive, by domain and by the other "
    "identifiers; the matching Organization is updated.",
)
@pytest.mark.guide(
    "User Identity",
    "A User without a known Person is looked up in Pipedrive, by e-mail and by the other identifiers; the "
    "matching Person is updated.",
)
@pytest.mark.defect(3, "An Account was never looked up: its Organization was made again beside the one that was there.")
@pytest.mark.defect(11, "Whatever identified a User, the look-up searched for its e-mail; without one, for nothing.")
@pytest.mark.parametrize("claim", ["key", "external_id"])
@pytest.mark.parametrize("entity", Entity)
def test_a_record_is_matched_by_each_of_its_identifiers(system: SyncSystem, entity: Entity, claim: str) -> None:
    number = field_code(system, entity.value, "Customer number")
    system.change_settings(**{f"{entity.hull}_claims": [KEYS[entity], {"hull": "external_id", "service": number}]})
    there = create(system, entity, custom_fields={number: "C-17"})["id"]
    age_records(system, entity)
    system.fetch(entity)
    stop_hull_id_lookups(system)

    claims = {KEYS[entity]["hull"]: CLAIMED[entity]} if claim == "key" else {"external_id": "C-17"}
    send_messages(system, (user if entity is Entity.PERSON else account)(ANN, nickname="New", name="New", **claims))

    assert writes(system) == [("PATCH", there, {"name": "New"})]


def some_seconds_ago() -> str:
    """Return a time outside the current second: two changes of one second have no order."""
    return f"{datetime.now(UTC) - timedelta(seconds=20):%Y-%m-%dT%H:%M:%SZ}"


@pytest.mark.guide("Account Identity", "After its Organization was found or created, an Account has the Pipedrive id.")
@pytest.mark.guide("User Identity", "After its Person was found or created, a User has the Pipedrive id.")
@pytest.mark.parametrize(
    ("entity", "claims", "is_there"),
    [
        (Entity.PERSON, {"email": "cyd@new.test"}, True),
        (Entity.PERSON, {"email": "cyd@new.test"}, False),
        (Entity.PERSON, {"external_id": "e-1"}, False),  # not an identifier in these settings
        (Entity.ORGANIZATION, {"domain": "acme.com"}, True),
        (Entity.ORGANIZATION, {"domain": "acme.com"}, False),
    ],
)
def test_the_record_that_was_found_or_created_gives_its_id_and_values_to_hull(
    system: SyncSystem, entity: Entity, claims: dict[str, str], is_there: bool
) -> None:
    hull_id = write_in_hull(system, entity.hull, claims, {"name": "New"})
    if is_there:
        system.company.load(entity.value, {**create(system, entity), "update_time": some_seconds_ago()})

    send_messages(system, (user if entity is Entity.PERSON else account)(hull_id, nickname="New", name="New", **claims))

    (back,) = [each for each in system.hull_records(entity.hull) if each["id"] == hull_id]
    assert (back["pipedrive/id"], back["pipedrive/name"]) == (pipedrive_id_of(system, hull_id), "New")
    assert [method for method, _, _ in writes(system)] == ["PATCH" if is_there else "POST"]


def test_a_second_notification_makes_no_second_person(system: SyncSystem) -> None:
    notify(system, user(email="cyd@new.test", nickname="Cyd"))
    system.work()
    notify(system, user(email="cyd@new.test", nickname="Cyd"), key="n2")
    system.work()

    assert [method for method, _, _ in writes(system)] == ["POST"]


@pytest.mark.defect(3, "An Account was never looked up: its Organization was made again beside the one that was there.")
@pytest.mark.parametrize("entity", Entity)
def test_a_record_created_in_pipedrive_just_now_is_found_without_search(system: SyncSystem, entity: Entity) -> None:
    searched = system.pipedrive.ledger.requests["search"]
    made = create(system, entity)

    send_messages(system, message(entity))

    assert writes(system) == [("PATCH", made["id"], {"name": "New"})]
    assert mapping(system) == (made["id"], "full", KEYS[entity]["hull"])
    assert system.pipedrive.ledger.requests["search"] == searched


@pytest.mark.guide(
    "Account Identity",
    "If several Organizations match, none is changed: a failure names them, and a person decides.",
)
@pytest.mark.guide(
    "User Identity",
    "If several Persons match, none is changed: a failure names them, and a person decides.",
)
@pytest.mark.parametrize("entity", Entity)
def test_several_matches_change_nothing_and_are_named_for_an_operator(system: SyncSystem, entity: Entity) -> None:
    for host in ("www", "shop"):
        create(system, entity, host)
    age_records(system, entity)
    system.fetch(entity)
    stop_hull_id_lookups(system)

    send_messages(system, message(entity))

    assert writes(system) == []
    assert failures(system) == [(ANN, "ambiguous_match")]
    (failure,) = system.rows("SELECT detail FROM failures WHERE reason = 'ambiguous_match'")
    assert (
        failure.detail
        == {
            Entity.PERSON: "persons 3, 4 by email",
            Entity.ORGANIZATION: "organizations 1, 2 by domain",
        }[entity]
    )


@pytest.mark.guide("User Identity", "Two Users with the same e-mail never create two Persons.")
def test_the_second_user_of_one_email_is_quarantined(system: SyncSystem) -> None:
    notify(system, user(email="cyd@new.test", nickname="Cyd"), user(BEN, email="cyd@new.test", nickname="Cyd B"))
    system.work()
    system.end_pauses()
    system.work()

    assert [method for method, _, _ in writes(system)] == ["POST"]
    with transaction() as session:
        reasons = [each.reason for each in find_failures(session) if each.direction == "outgoing"]
    assert reasons == ["already_mapped"]


@pytest.mark.defect(6, "Two messages about one User in a notification made two Persons.")
@pytest.mark.parametrize("entity", Entity)
def test_two_messages_about_one_record_create_one(system: SyncSystem, entity: Entity) -> None:
    send_messages(system, message(entity, "One"), message(entity, "Two"))

    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "Two")]


@pytest.mark.defect(6, "A notification that came while another one was being carried out was dropped.")
def test_a_message_that_arrives_during_a_write_is_also_sent(system: SyncSystem) -> None:
    def notify_again(_event: object) -> None:
        system.company.listeners.remove(notify_again)
        notify(system, message(Entity.PERSON, "Two"), key="n2")

    system.company.listeners.append(notify_again)  # the worker of the first write still waits for the answer
    send_messages(system, message(Entity.PERSON, "One"))
    work_until_idle(system)

    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "One"), ("PATCH", "Two")]


def test_a_lost_answer_is_looked_up_before_anything_is_made_again(system: SyncSystem) -> None:
    system.pipedrive.faults.add("/persons$", "cut", method="POST")
    notify(system, user(email="cyd@new.test", nickname="Cyd"))
    system.work()
    assert [
        row.state
        for row in system.rows("SELECT state FROM id_mappings WHERE hull_id IS NOT NULL AND pipedrive_id IS NULL")
    ] == ["unknown"]
    system.end_pauses()
    system.work()

    assert [method for method, _, _ in writes(system)] == ["POST"]
    assert mapping(system)[1] == "full"


@pytest.mark.defect(
    7, "One refused record failed its notification, and those beside it were written once more with each retry."
)
def test_a_refusal_is_kept_and_the_neighbour_is_made(system: SyncSystem) -> None:
    notify(system, user(email="cyd@new.test", nickname="x" * 300), user(BEN, email="eve@new.test", nickname="Eve"))
    system.work()

    assert [body["name"] for _, _, body in writes(system)][-1:] == ["Eve"]
    assert system.rows("SELECT 1 FROM id_mappings WHERE state = 'creating'") == []


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "The operator sends them from the command line, by id or by segment: pipeline send users acme and pipeline "
    "send accounts acme.",
)
@pytest.mark.parametrize("by", ["id", "segment"])
@pytest.mark.parametrize("entity", Entity)
def test_records_are_sent_from_the_command_line(system: SyncSystem, entity: Entity, by: str) -> None:
    system.change_settings(synchronized_user_segments=[], synchronized_account_segments=[])
    kind = entity.hull
    hull_id = write_in_hull(system, kind, {KEYS[entity]["hull"]: CLAIMED[entity]}, {"name": "New"})
    chosen = hull_id if by == "id" else system.hull.define_segment(kind, "chosen", [hull_id]).id

    result = CliRunner().invoke(program, ["send", f"{kind}s", "acme", f"--{by}", chosen])
    system.run_jobs()
    system.work()

    assert (result.exit_code, f"1 {kind.capitalize()}" in result.stdout) == (0, True)
    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "New")]


def test_an_id_that_hull_lacks_is_skipped_with_a_reason(system: SyncSystem) -> None:
    sends = system.module("jobs.sends")
    with transaction() as session:
        order = sends.SendOrder(entity=Entity.PERSON, ids=("f" * 24,), rank=1)
        sends.enqueue(session, system.connector_key, order)
    system.run_jobs()
    system.work()

    assert [row.hull_id for row in system.rows("SELECT hull_id FROM sync_events WHERE reason = 'not_in_hull'")] == [
        "f" * 24
    ]
    assert writes(system) == []


def test_a_possible_duplicate_is_reported_once(system: SyncSystem) -> None:
    """Someone created a second Person within the hour."""
    notify(system, user(email="cyd@new.test", nickname="Cyd"))
    system.work()
    ((_, made, _),) = writes(system)
    second = system.company.create_person(name="Cyd", emails=[{"value": "cyd@new.test", "primary": True}])
    system.fetch(Entity.PERSON, changed_only=True)

    assert system.module("sync.duplicates").find(system.connector_key)
    assert not system.module("sync.duplicates").find(system.connector_key)
    with transaction() as session:
        (failure,) = [each for each in find_failures(session) if each.reason == "possible_duplicate"]
    assert failure.detail == f"persons {made} and {second['id']} by email"
