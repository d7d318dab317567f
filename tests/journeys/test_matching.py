"""Users and Accounts that nobody has joined yet: they are matched with what Pipedrive has, or made there, once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from db.failure_filter import find_failures
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.journeys.pipedrive_records import age_records
from tests.prepared import prepared
from tests.system import SyncSystem

MAPPED = [{"hull": "nickname", "service": "name"}, {"hull": "tel", "service": "phone"}]


@pytest.fixture(autouse=True)
@prepared
def fetched(system: SyncSystem) -> None:
    """Two Persons and an Organization in Pipedrive, and a first full fetch that has come to its end."""
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


def user(hull_id: str = "a" * 24, **attributes: Any) -> dict[str, Any]:
    return {"user": {"id": hull_id, **attributes}, "segments": [], "changes": {}}


def writes(system: SyncSystem) -> list[tuple[str, int, Any]]:
    return [(note.method, note.entity_id, json.loads(note.body)) for note in system.pipedrive.ledger.mutations]


def outgoing(system: SyncSystem) -> list[Any]:
    query = "SELECT event, reason, pipedrive_id FROM sync_events WHERE event LIKE 'outgoing.%' ORDER BY id"
    return [tuple(row) for row in system.rows(query)]


def mapping(system: SyncSystem, hull_id: str = "a" * 24) -> Any:
    (row,) = system.rows("SELECT pipedrive_id, state, matched_by FROM id_mappings WHERE hull_id = :id", id=hull_id)
    return tuple(row)


@pytest.mark.parametrize("email", ["ada@analytical.test", "ADA@Analytical.test ", "ada@home.test"])
def test_a_user_is_matched_by_any_email_of_a_person(system: SyncSystem, email: str) -> None:
    system.change_rows("UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL")
    searched = system.pipedrive.ledger.requests["search"]
    notify(system, user(email=email, nickname="Countess"))
    system.work()

    assert writes(system) == [("PATCH", 1, {"name": "Countess"})]
    assert mapping(system) == (1, "full", "email")
    assert system.pipedrive.ledger.requests["search"] == searched


def test_a_user_that_nobody_answers_to_is_made(system: SyncSystem) -> None:
    notify(system, user(email="cyd@new.test", nickname="Cyd"))
    system.work()

    ((method, made, body),) = writes(system)
    assert (method, body["name"], body["emails"][0]["value"]) == ("POST", "Cyd", "cyd@new.test")
    assert mapping(system) == (made, "full", "created")
    assert outgoing(system) == [("outgoing.user.success", None, made)]
    assert system.rows("SELECT 1 FROM identifiers WHERE role = 'reserved'") == []


def test_what_was_made_is_read_back_into_the_very_user(system: SyncSystem) -> None:
    hull_user = _user_in_hull(system, external_id="e-1")
    notify(system, user(hull_user, nickname="No Mail"))
    system.work()

    (made,) = [
        row.pipedrive_id for row in system.rows("SELECT pipedrive_id FROM id_mappings WHERE hull_id = :h", h=hull_user)
    ]
    assert system.users()[made]["id"] == hull_user
    assert system.users()[made]["pipedrive/name"] == "No Mail"


def _user_in_hull(system: SyncSystem, **claims: str) -> str:
    """A User that Hull has by itself."""
    from pipeline import connections  # noqa: PLC0415
    from pipeline.clients.hull import HullClient  # noqa: PLC0415

    client = HullClient(
        connections.http_session(),
        organization="hull.test",
        connector_id="5f0c0ffee5f0c0ffee5f0c0f",
        secret="canary-hull-secret",
        protocol="http",
        firehose_url="http://hull.test/api/v1/firehose",
    )
    client.post_batches([client.writer().user_traits(claims, {"name": "x"})])
    (found,) = [
        each for each in system.hull_records("user") if all(each.get(name) == value for name, value in claims.items())
    ]
    return str(found["id"])


def test_a_second_notification_makes_no_second_person(system: SyncSystem) -> None:
    notify(system, user(email="cyd@new.test", nickname="Cyd"))
    system.work()
    notify(system, user(email="cyd@new.test", nickname="Cyd"), key="n2")
    system.work()

    assert [method for method, _, _ in writes(system)] == ["POST"]


def test_a_person_made_by_hand_a_moment_ago_is_found_without_search(system: SyncSystem) -> None:
    spent = system.pipedrive.ledger.requests["search"]
    made = system.company.create_person(name="Dee", emails=[{"value": "dee@fresh.test", "primary": True}])
    notify(system, user(email="dee@fresh.test", nickname="Dee II"))
    system.work()

    assert writes(system) == [("PATCH", made["id"], {"name": "Dee II"})]
    assert mapping(system) == (made["id"], "full", "email")
    assert system.pipedrive.ledger.requests["search"] == spent


def test_several_answers_are_a_persons_to_choose_from(system: SyncSystem) -> None:
    system.company.create_person(name="Ada two", emails=[{"value": "ada@analytical.test", "primary": True}])
    system.change_rows("UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL")
    age_records(system)
    system.fetch(Entity.PERSON)
    notify(system, user(email="ada@analytical.test", nickname="Countess"))
    system.work()

    assert writes(system) == []
    with transaction() as session:
        failure = next(each for each in find_failures(session) if each.direction == "outgoing")
    assert failure.reason == "ambiguous_match"
    assert "1, 3" in failure.detail


def test_the_second_user_of_one_email_is_quarantined(system: SyncSystem) -> None:
    notify(system, user(email="cyd@new.test", nickname="Cyd"), user("b" * 24, email="cyd@new.test", nickname="Cyd B"))
    system.work()
    system.end_pauses()
    system.work()

    assert [method for method, _, _ in writes(system)] == ["POST"]
    with transaction() as session:
        reasons = [each.reason for each in find_failures(session) if each.direction == "outgoing"]
    assert reasons == ["already_mapped"]


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


def test_a_refusal_is_kept_and_the_neighbour_is_made(system: SyncSystem) -> None:
    notify(system, user(email="cyd@new.test", nickname="x" * 300), user("b" * 24, email="eve@new.test", nickname="Eve"))
    system.work()

    assert [body["name"] for _, _, body in writes(system)][-1:] == ["Eve"]
    assert system.rows("SELECT 1 FROM id_mappings WHERE state = 'creating'") == []


def test_users_of_a_segment_are_sent_by_hand(system: SyncSystem) -> None:
    system.change_settings(synchronized_user_segments=[])
    hull_user = _user_in_hull(system, email="fay@hand.test")

    sends = system.module("jobs.sends")
    with transaction() as session:
        order = sends.SendOrder(entity=Entity.PERSON, ids=(hull_user, "f" * 24), rank=1)
        sends.enqueue(session, system.connector_key, order)
    system.run_jobs()
    system.work()

    assert [row.hull_id for row in system.rows("SELECT hull_id FROM sync_events WHERE reason = 'not_in_hull'")] == [
        "f" * 24
    ]
    assert [(method, body["emails"][0]["value"]) for method, _, body in writes(system)] == [("POST", "fay@hand.test")]


def test_a_record_made_twice_is_told_once(system: SyncSystem) -> None:
    """Somebody else, or a lost answer that nobody could look up, made another one within the hour."""
    notify(system, user(email="cyd@new.test", nickname="Cyd"))
    system.work()
    ((_, made, _),) = writes(system)
    twin = system.company.create_person(name="Cyd", emails=[{"value": "cyd@new.test", "primary": True}])
    system.fetch(Entity.PERSON, changed_only=True)

    assert system.module("sync.duplicates").find(system.connector_key)
    assert not system.module("sync.duplicates").find(system.connector_key)
    with transaction() as session:
        (failure,) = [each for each in find_failures(session) if each.reason == "possible_duplicate"]
    assert failure.detail == f"persons {made} and {twin['id']} by email"
