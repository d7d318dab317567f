"""Users that are made in Pipedrive while its webhooks are immediate: who comes first makes no conflict, and none that lasts."""

from __future__ import annotations

from typing import Any

import pytest

from db import joining
from db.failure_filter import find_failures
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen, notify
from tests.journeys.hull_messages import fetch_everything
from tests.prepared import prepared
from tests.system import SyncSystem

USERS = 40
MAPPED = [{"hull": "name", "service": "name"}]


@pytest.fixture(autouse=True)
@prepared
def ready(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=MAPPED)
    fetch_everything(system)


def new_users(system: SyncSystem, count: int = USERS) -> list[dict[str, Any]]:
    """Users whom Hull has by itself, as it reports them."""
    from pipeline.wiring import open_connector  # noqa: PLC0415

    with transaction() as session:
        hull = open_connector(session, system.connector_key).hull
    emails = [f"new{number}@fresh.test" for number in range(count)]
    hull.post_batches([hull.writer().user_traits({"email": email}, {"name": email}) for email in emails])
    return [each for each in system.hull_records("user") if str(each.get("email")).endswith("@fresh.test")]


def notify_of(system: SyncSystem, users: list[dict[str, Any]], key: str = "n1") -> None:
    notify(system, *[{"user": each, "segments": [], "changes": {}} for each in users], key=key)


def resolve(system: SyncSystem) -> None:
    system.module("sync.changes.hull_ids").resolve(system.connector_key)


def states(system: SyncSystem) -> set[tuple[str, bool]]:
    query = "SELECT state, hull_id IS NOT NULL AND pipedrive_id IS NOT NULL AS joined FROM id_mappings"
    return {(row.state, row.joined) for row in system.rows(query)}


def open_failures() -> list[str]:
    with transaction() as session:
        return [each.reason for each in find_failures(session)]


@pytest.fixture
def hurried(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Webhooks arrive, are carried over and resolved after Pipedrive has made the records and before that is written down."""
    outgoing_load = system.module("sync.outgoing.load")
    webhooks, real = listen(system), outgoing_load.load_outgoing.send

    def send(*args: Any, **more: Any) -> Any:
        sending = real(*args, **more)
        deliver(system, *webhooks)
        webhooks.clear()
        system.work()
        resolve(system)
        return sending

    monkeypatch.setattr(outgoing_load.load_outgoing, "send", send)


@pytest.mark.usefixtures("hurried")
def test_a_record_that_is_being_made_is_no_rival(system: SyncSystem) -> None:
    users = new_users(system)
    notify_of(system, users)
    system.work()
    resolve(system)

    assert states(system) == {("full", True)}
    assert len(system.pipedrive.ledger.mutations) == USERS
    assert [event for event in system.events() if event[1] == "two_records_one_hull_id"] == []
    joined = {row.hull_id: row.pipedrive_id for row in system.rows("SELECT hull_id, pipedrive_id FROM id_mappings")}
    assert joined == {user["id"]: number for number, user in system.users().items()}

    notify_of(system, [{**each, "name": f"{each['name']} II"} for each in users], key="n2")
    system.work()
    assert open_failures() == []
    assert len(system.pipedrive.ledger.mutations) == 2 * USERS


def test_a_worker_that_was_killed_leaves_no_conflict(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after Pipedrive had created the records: they return by webhooks, and Hull names them, before a worker continues."""
    outgoing_load = system.module("sync.outgoing.load")
    webhooks, real = listen(system), outgoing_load.load_outgoing.send

    class Killed(BaseException):
        pass

    def killed(*args: Any, **more: Any) -> Any:
        real(*args, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(outgoing_load.load_outgoing, "send", killed)
        notify_of(system, new_users(system))
        with pytest.raises(Killed):
            system.work()
    deliver(system, *webhooks)
    system.work()
    resolve(system)
    system.expire_leases()
    system.work()
    system.end_pauses()
    system.work()
    resolve(system)

    assert states(system) == {("full", True)}
    assert len(system.pipedrive.ledger.mutations) == USERS
    assert open_failures() == []


def test_an_abandoned_intent_is_fulfilled_by_the_record_that_hull_names(system: SyncSystem) -> None:
    """The answer was lost, and every attempt to look it up failed as well."""
    (one,) = new_users(system, 1)
    made = system.company.create_person(name="x", emails=[{"value": one["email"], "primary": True}])
    system.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, hull_id, state, matched_by, intent_at, resolve_at)"
        " VALUES (:c, 'person', :h, 'unknown', 'created', now(), NULL)",
        c=system.connector_key,
        h=one["id"],
    )
    system.fetch(Entity.PERSON, changed_only=True)
    resolve(system)

    rows = system.rows("SELECT pipedrive_id, hull_id, state FROM id_mappings")
    assert [tuple(row) for row in rows] == [(made["id"], one["id"], "full")]


def conflict_of(system: SyncSystem) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two Persons with one User, by a merge in Hull."""
    first = system.company.create_person(name="A", emails=[{"value": "a@x.test", "primary": True}])
    second = system.company.create_person(name="B")
    system.fetch(Entity.PERSON, changed_only=True)
    from pipeline.wiring import open_connector  # noqa: PLC0415

    with transaction() as session:
        hull = open_connector(session, system.connector_key).hull
    address = {"email": "a@x.test", "anonymous_id": f"pipedrive:{second['id']}"}
    hull.post_batches([hull.writer().user_traits(address, {})])
    resolve(system)
    return first, second


def state_of(system: SyncSystem, pipedrive_id: int) -> Any:
    (row,) = system.rows("SELECT state, hull_id FROM id_mappings WHERE pipedrive_id = :id", id=pipedrive_id)
    return tuple(row)


def test_a_conflict_ends_when_hull_separates_the_two(system: SyncSystem) -> None:
    first, second = conflict_of(system)
    assert state_of(system, second["id"]) == ("conflict", None)

    system.change_rows("UPDATE id_mappings SET hull_id = 'another' WHERE pipedrive_id = :id", id=first["id"])
    resolve(system)
    assert state_of(system, second["id"])[0] == "conflict"  # it is asked for again in an hour, not before
    system.change_rows("UPDATE id_mappings SET resolve_at = resolve_at - interval '1 hour' WHERE hull_id IS NULL")
    resolve(system)

    state, hull_id = state_of(system, second["id"])
    assert state == "full"
    (change,) = system.rows("SELECT record_id, cause FROM changes WHERE direction = 'outgoing'")
    assert tuple(change) == (hull_id, "conflict_resolved")


def test_a_conflict_is_asked_about_again_when_its_record_is_delivered(system: SyncSystem) -> None:
    first, second = conflict_of(system)
    system.change_rows("UPDATE id_mappings SET hull_id = 'another' WHERE pipedrive_id = :id", id=first["id"])
    system.company.edit_person(second["id"], name="B II")
    system.fetch(Entity.PERSON, changed_only=True)
    resolve(system)

    assert state_of(system, second["id"])[0] == "full"


def test_joining_ends_a_conflict(system: SyncSystem) -> None:
    _, second = conflict_of(system)
    with transaction() as session:
        join = joining.Join(hull_id="its own", pipedrive_id=second["id"], matched_by="report")
        joining.join(session, system.connector_key, Entity.PERSON, [join])

    assert state_of(system, second["id"]) == ("full", "its own")


def test_two_records_on_one_intent_are_one_joined_and_one_conflict(system: SyncSystem) -> None:
    (one,) = new_users(system, 1)
    for number in (901, 902):
        system.change_rows(
            "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by, digest)"
            " VALUES (:c, 'person', :id, 'full', 'fetched', 'x')",
            c=system.connector_key,
            id=number,
        )
    system.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, hull_id, state, matched_by, intent_at, resolve_at)"
        " VALUES (:c, 'person', :h, 'unknown', 'created', now(), NULL)",
        c=system.connector_key,
        h=one["id"],
    )
    with transaction() as session:
        learnt = joining.store_hull_ids(session, system.connector_key, Entity.PERSON, {901: one["id"], 902: one["id"]})

    assert learnt.conflicts == [902]
    assert state_of(system, 901) == ("full", one["id"])
    assert state_of(system, 902) == ("conflict", None)
