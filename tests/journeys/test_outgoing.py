"""Hull → Pipedrive for records that are known on both sides: only what differs is written, and what Pipedrive then holds
comes back through the read-back batch."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from db import delivery as deliveries
from db.failure import payload_of
from db.failure_filter import find_failures
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from tests.deliveries import notify
from tests.journeys.pipedrive_records import age_records, create_records
from tests.prepared import prepared
from tests.system import SyncSystem

MAPPED = [{"hull": "nickname", "service": "name"}, {"hull": "tel", "service": "phone"}]


@pytest.fixture(autouse=True)
@prepared
def joined(system: SyncSystem) -> None:
    """Four Persons that are Users, joined by the ids Hull gave."""
    system.change_settings(outgoing_user_attributes=MAPPED)
    create_records(system, persons=4, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)


def message(system: SyncSystem, number: int, **attributes: Any) -> dict[str, Any]:
    return {"user": {**system.users()[number], **attributes}, "segments": [], "changes": {}}


def writes(system: SyncSystem) -> list[tuple[str, int, Any]]:
    return [(note.method, note.entity_id, json.loads(note.body)) for note in system.pipedrive.ledger.mutations]


def outgoing(system: SyncSystem) -> list[Any]:
    query = "SELECT event, reason, pipedrive_id FROM sync_events WHERE event LIKE 'outgoing.%' ORDER BY id"
    return [tuple(row) for row in system.rows(query)]


@pytest.mark.guide("User Identity", "When a User is sent to Pipedrive and its Person is known, that Person is updated.")
def test_only_what_differs_is_written(system: SyncSystem) -> None:
    notify(system, message(system, 2, nickname="Anna", tel=None))
    system.work()

    assert writes(system) == [("PATCH", 2, {"name": "Anna"})]
    assert outgoing(system) == [("outgoing.user.success", None, 2)]
    (event,) = system.rows("SELECT before, after, hull_id FROM sync_events WHERE event = 'outgoing.user.success'")
    assert orjson.loads(bytes(event.before)) == {"name": "Person 2"}
    assert orjson.loads(bytes(event.after)) == {"name": "Anna"}
    assert event.hull_id == system.users()[2]["id"]


@pytest.mark.guide("User Identity", "After a User was sent, the Person's values in Pipedrive are sent back to Hull.")
def test_what_pipedrive_then_holds_is_read_back(system: SyncSystem) -> None:
    asked = system.pipedrive.ledger.requests["list"]
    notify(system, message(system, 2, nickname="Anna"))
    system.work()

    assert system.users()[2]["pipedrive/name"] == "Anna"
    batches = system.rows("SELECT direction, state, read_back_id FROM batches WHERE queue = 'live' ORDER BY id")
    assert [(row.direction, row.state) for row in batches] == [("outgoing", "done"), ("incoming", "done")]
    assert (
        system.rows("SELECT cause FROM sync_events WHERE event = 'incoming.user.success' ORDER BY id DESC LIMIT 1")[
            0
        ].cause
        == "read_back"
    )
    assert system.pipedrive.ledger.requests["get"] == 0
    assert system.pipedrive.ledger.requests["list"] == asked


def test_the_echo_of_a_write_is_no_change(system: SyncSystem) -> None:
    notify(system, message(system, 2, nickname="Anna"))
    system.work()
    sent, written = system.hull.received.count, len(writes(system))

    system.fetch(Entity.PERSON, changed_only=True)
    notify(system, message(system, 2, nickname="Anna"), key="n2")
    system.work()

    assert (system.hull.received.count, len(writes(system))) == (sent, written)
    assert outgoing(system)[-1] == ("outgoing.user.skip", "no_change", 2)


@pytest.mark.parametrize(
    ("settings", "more", "reason"),
    [
        ({}, {"nickname": "Person 1"}, "no_change"),
        ({"synchronized_user_segments": ["somebody-else"]}, {"nickname": "Anna"}, "not_in_segment"),
        ({"synchronized_user_segments": []}, {"nickname": "Anna"}, "not_in_segment"),
        ({"outgoing_user_attributes": []}, {"nickname": "Anna"}, "no_outgoing_mapping"),
    ],
)
def test_a_record_that_is_not_sent_has_a_reason(
    system: SyncSystem, settings: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    system.change_settings(**settings)
    notify(system, message(system, 1, **more))
    system.work()

    assert writes(system) == []
    assert [(event, why) for event, why, _ in outgoing(system)] == [("outgoing.user.skip", reason)]
    assert REASONS[reason].advice
    assert system.rows("SELECT 1 FROM changes") == []


def test_a_record_sent_by_hand_needs_no_segment(system: SyncSystem) -> None:
    system.change_settings(synchronized_user_segments=["somebody-else"])
    notify(system, message(system, 1, nickname="Anna"), is_export=True)
    system.work()

    assert [entity_id for _, entity_id, _ in writes(system)] == [1]


def test_a_user_known_by_its_report_alone_is_found(system: SyncSystem) -> None:
    system.change_rows("UPDATE id_mappings SET hull_id = NULL")
    notify(system, message(system, 3, nickname="Anna"))
    system.work()

    assert [entity_id for _, entity_id, _ in writes(system)] == [3]


@pytest.mark.defect(
    7, "One refused record failed its notification, and those beside it were written once more with each retry."
)
def test_a_refused_record_is_kept_with_pipedrives_words_and_its_neighbours_go(system: SyncSystem) -> None:
    system.pipedrive.faults.add(
        "/persons/2$", "status", method="PATCH", status=400, body={"success": False, "error": "The value is not valid"}
    )
    notify(system, *[message(system, number, nickname=f"New {number}") for number in (1, 2, 3)])
    system.work()

    assert [entity_id for _, entity_id, _ in writes(system)] == [1, 3]
    assert sorted(outgoing(system), key=lambda event: event[2]) == [
        ("outgoing.user.success", None, 1),
        ("outgoing.user.error", "refused_by_pipedrive", 2),
        ("outgoing.user.success", None, 3),
    ]
    with transaction() as session:
        (failure,) = find_failures(session)
    assert (failure.kind, failure.reason, failure.stage) == ("record", "refused_by_pipedrive", "load")
    assert "The value is not valid" in failure.detail
    assert json.loads(payload_of(failure) or b"")["user"]["nickname"] == "New 2"


def test_a_refused_record_may_be_corrected_and_replayed(system: SyncSystem) -> None:
    system.pipedrive.faults.add("/persons/2$", "status", method="PATCH", status=400)
    notify(system, message(system, 2, nickname="Wrong"))
    system.work()
    corrected = json.dumps({**message(system, 2, nickname="Right"), "is_export": True}).encode()

    with transaction() as session:
        (failure,) = find_failures(session)
        system.module("jobs.replays.start").replay_failure(
            session, failure, by="ada", why="corrected", payload=corrected
        )
    system.work()

    assert writes(system) == [("PATCH", 2, {"name": "Right"})]
    with transaction() as session:
        assert find_failures(session) == []


@pytest.mark.parametrize("payload", [b"not json", b"[]", b"{}", b'{"user": {"id": "somebody else"}}', b'{"user": 7}'])
def test_a_correction_that_is_no_longer_that_record_is_refused(system: SyncSystem, payload: bytes) -> None:
    system.pipedrive.faults.add("/persons/2$", "status", method="PATCH", status=400)
    notify(system, message(system, 2, nickname="Wrong"))
    system.work()

    with transaction() as session:
        (failure,) = find_failures(session)
    with (
        pytest.raises(system.module("jobs.replays.start").NotReplayable, match="not a message about"),
        transaction() as session,
    ):
        system.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="corrected", payload=payload)

    with transaction() as session:
        assert len(find_failures(session)) == 1


@pytest.mark.defect(7, "A User whose Person was deleted in Pipedrive was tried for ever, and stayed joined to it.")
def test_a_record_that_is_gone_in_pipedrive_is_looked_for_and_then_left_alone(system: SyncSystem) -> None:
    system.company.delete_person(2)
    notify(system, *[message(system, number, nickname=f"New {number}") for number in (1, 2, 3)])
    system.work()
    system.end_pauses()
    system.work()

    assert [entity_id for method, entity_id, _ in writes(system) if method == "PATCH"] == [1, 3]
    assert [(event, why) for event, why, pipedrive_id in outgoing(system) if pipedrive_id in (2, None)] == [
        ("outgoing.user.skip", "deleted_in_pipedrive")
    ]
    assert system.rows("SELECT 1 FROM changes") == []
    assert system.rows("SELECT 1 FROM id_mappings WHERE pipedrive_id = 2 AND state = 'full'") == []
    with transaction() as session:
        assert find_failures(session) == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_in_the_middle_holds_up_only_the_rest(system: SyncSystem, status: int) -> None:
    system.pipedrive.faults.add("/persons/", "status", method="PATCH", status=status, skip=1)
    notify(system, *[message(system, number, nickname=f"New {number}") for number in (1, 2, 3)])
    system.work()
    first = [entity_id for _, entity_id, _ in writes(system)]
    waiting = sorted(int(row.n) for row in system.rows("SELECT count(*) AS n FROM changes WHERE batch_id IS NULL"))
    system.end_pauses()
    system.work()

    assert (len(first), waiting) == (1, [2])
    assert sorted(entity_id for _, entity_id, _ in writes(system)) == [1, 2, 3]
    assert {number: system.users()[number]["pipedrive/name"] for number in (1, 2, 3)} == {
        number: f"New {number}" for number in (1, 2, 3)
    }
    assert system.rows("SELECT 1 FROM changes") == []


def test_trouble_that_stays_is_given_up_after_some_attempts(system: SyncSystem) -> None:
    """Nothing may be tried for ever: the record ends as a failure that a person can replay."""
    fault = system.pipedrive.faults.add("/persons/", "status", method="PATCH", status=503, count=None)
    notify(system, message(system, 1, nickname="Anna"))
    for _ in range(20):
        system.work()
        system.end_pauses()

    assert fault.done <= 8
    assert system.rows("SELECT 1 FROM changes WHERE batch_id IS NULL") == []
    with transaction() as session:
        (failure,) = find_failures(session)
        fault.count = 0
        system.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="it is back")
    system.work()

    assert failure.reason == "remote_unavailable"
    assert writes(system) == [("PATCH", 1, {"name": "Anna"})]


def test_pauses_between_attempts_grow(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(system.module("sync.stage"), "alone_s", lambda attempt: asked.append(attempt) or 1.0)
    system.pipedrive.faults.add("/persons/", "status", method="PATCH", status=503, count=None)
    notify(system, message(system, 1, nickname="Anna"))
    for _ in range(4):
        system.work()
        system.end_pauses()

    assert asked == [1, 2, 3, 4]


def test_one_record_that_always_fails_does_not_stop_the_others(system: SyncSystem) -> None:
    """Those behind it in the batch were never tried, so nothing counts against them."""
    system.pipedrive.faults.add("/persons/1$", "status", method="PATCH", status=503, count=None)
    notify(system, *[message(system, number, nickname=f"New {number}") for number in (1, 2, 3)])
    for _ in range(12):
        system.work()
        system.end_pauses()

    assert sorted(entity_id for _, entity_id, _ in writes(system)) == [2, 3]
    with transaction() as session:
        (failure,) = find_failures(session)
    assert (failure.record_id, failure.attempts) == (system.users()[1]["id"], 8)


def test_waiting_for_the_limit_is_no_attempt(system: SyncSystem) -> None:
    system.pipedrive.faults.add("/persons/", "429_burst", method="PATCH", count=30)
    notify(system, message(system, 1, nickname="Anna"))
    for _ in range(32):
        system.work()
        system.end_pauses()

    assert writes(system) == [("PATCH", 1, {"name": "Anna"})]


def test_a_refused_token_pauses_the_connector_and_work_resumes_later(system: SyncSystem) -> None:
    fault = system.pipedrive.faults.add("/persons/", "status", method="PATCH", status=401, skip=1, count=None)
    notify(system, *[message(system, number, nickname=f"New {number}") for number in (1, 2)])
    system.work()
    (connector,) = system.rows("SELECT state, pause_reason FROM connectors")
    fault.count = 0
    system.change_rows("UPDATE connectors SET state = 'active'")
    system.work()

    assert (connector.state, connector.pause_reason) == ("paused", "unauthorized")
    assert {entity_id for _, entity_id, _ in writes(system)} == {1, 2}
    assert {number: system.users()[number]["pipedrive/name"] for number in (1, 2)} == {1: "New 1", 2: "New 2"}


def test_several_notifications_of_one_user_are_one_write(system: SyncSystem) -> None:
    for number, name in enumerate(("One", "Two", "Three")):
        notify(system, message(system, 1, nickname=name), key=f"n{number}")
    system.work()

    assert writes(system) == [("PATCH", 1, {"name": "Three"})]


BAD_MESSAGES: list[Any] = [
    None,
    [],
    "text",
    {},
    {"user": None},
    {"user": {}},
    {"user": {"id": 7}},
    {"user": {"id": "a\x00b"}},
]


@pytest.mark.parametrize("bad", BAD_MESSAGES, ids=str)
def test_one_malformed_message_does_not_take_the_notification_with_it(system: SyncSystem, bad: Any) -> None:
    notify(system, message(system, 1, nickname="New 1"), bad, message(system, 3, nickname="New 3"))
    system.work()

    assert sorted(entity_id for _, entity_id, _ in writes(system)) == [1, 3]
    (delivery,) = system.rows("SELECT state, reason FROM deliveries")
    assert delivery.reason == "no_hull_id"


@pytest.mark.parametrize("value", ["Od\ud800d", "Od\x00d", ["a"], {"b": 1}, "x" * 100_000])
def test_a_value_that_cannot_be_written_stays_behind_alone(system: SyncSystem, value: Any) -> None:
    body = {
        "channel": "user:update",
        "messages": [message(system, 1, nickname="New 1", tel=value), message(system, 2, nickname="New 2")],
    }
    with transaction() as session:
        deliveries.keep_delivery(session, system.connector_key, "hull", "odd", json.dumps(body).encode())
    system.work()

    sent = {entity_id: body["name"] for _, entity_id, body in writes(system) if "name" in body}
    assert sent == {1: "New 1", 2: "New 2"}
    assert system.rows("SELECT 1 FROM failures WHERE kind = 'batch'") == []


@pytest.mark.guide(
    "Account Identity",
    "When an Account is sent to Pipedrive and its Organization is known, that Organization is updated.",
)
@pytest.mark.guide(
    "Account Identity",
    "After an Account was sent, the Organization's values in Pipedrive are sent back to Hull.",
)
@pytest.mark.defect(2, "What Pipedrive answered to an Account that was sent did not come back either.")
def test_an_account_is_sent_as_well(system: SyncSystem) -> None:
    system.change_settings(outgoing_account_attributes=[{"hull": "label", "service": "name"}])
    system.company.create_organization(name="Acme")
    system.fetch(Entity.ORGANIZATION)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)

    account = {**system.accounts()[1], "label": "Acme Ltd"}
    notify(system, {"account": account, "account_segments": []}, channel="account:update")
    system.work()

    assert writes(system)[-1] == ("PATCH", 1, {"name": "Acme Ltd"})
    assert system.accounts()[1]["pipedrive/name"] == "Acme Ltd"


@pytest.mark.guide("Account Identity", "Only the incoming account attributes are sent back.")
@pytest.mark.guide("User Identity", "Only the incoming user attributes are sent back.")
@pytest.mark.parametrize(("entity", "attribute"), [(Entity.PERSON, "last_name"), (Entity.ORGANIZATION, "name")])
def test_only_mapped_attributes_come_back(system: SyncSystem, entity: Entity, attribute: str) -> None:
    system.change_settings(
        outgoing_account_attributes=[{"hull": "nickname", "service": "name"}],
        **{f"incoming_{entity.hull}_attributes": [{"hull": "back", "service": attribute}]},
    )
    system.company.create(entity.value, {"name": "Old Name"})
    system.fetch(entity)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    (report,) = [each for each in system.hull_records(entity.hull) if each.get("back") in ("Name", "Old Name")]
    seen = system.hull.received.count

    message = {entity.hull: {**report, "nickname": "New Title"}, "segments": [], "account_segments": []}
    notify(system, message, channel=f"{entity.hull}:update")
    system.work()

    sent = [body for _, _, body in list(system.hull.received)[seen:]]
    new = {"last_name": "Title", "name": "New Title"}[attribute]
    assert sent == [{"back": new, "pipedrive/id": report["pipedrive/id"]}]


def test_writes_that_find_no_slot_wait_with_what_is_decided_and_ask_nothing(system: SyncSystem) -> None:
    system.change_rows(
        "INSERT INTO heartbeats (name) SELECT 'live process live@host ' || n FROM generate_series(1, 2) AS n"
    )
    system.change_rows(
        "INSERT INTO batches (connector_key, direction, entity, queue, state, lease_until, slot, slot_at)"
        " VALUES (:c, 'incoming', 'person', 'live', 'running', now() + interval '30 s', 'pipedrive', now() - interval '5 s')",
        c=system.connector_key,
    )
    asked = dict(system.pipedrive.ledger.requests)
    new = {"id": "5f0000000000000000000001", "email": "new@fresh.example", "nickname": "New"}
    notify(system, {"user": new, "segments": [], "changes": {}})
    system.work()

    (waiting,) = system.rows(
        "SELECT state, stage, waits_for, attempts, transformed FROM batches WHERE direction = 'outgoing'"
    )
    assert (waiting.state, waiting.stage, waiting.waits_for, waiting.attempts) == ("ready", "load", "turn", 0)
    assert waiting.transformed is not None
    assert system.pipedrive.ledger.requests == asked, "neither the look-up nor the write was begun"

    system.change_rows("DELETE FROM batches WHERE slot IS NOT NULL")
    system.end_pauses()
    system.work()
    assert [method for method, _, _ in writes(system)] == ["POST"]
