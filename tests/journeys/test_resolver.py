"""Learning the ids Hull gave: the firehose answers nothing, so Hull's search is asked afterwards."""

from __future__ import annotations

import pytest

from db import joining
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.errors import Retryable
from tests.journeys.pipedrive_records import age_records, create_records
from tests.logs import captured_log
from tests.system import SyncSystem


def mapped(system: SyncSystem, entity: Entity = Entity.PERSON) -> dict[int, str | None]:
    query = "SELECT pipedrive_id, hull_id FROM id_mappings WHERE entity = :e"
    return {row.pipedrive_id: row.hull_id for row in system.rows(query, e=entity)}


def resolve(system: SyncSystem) -> bool:
    more: bool = system.module("sync.changes.hull_ids").resolve(system.connector_key)
    return more


def test_every_mapping_learns_the_id_hull_gave(system: SyncSystem) -> None:
    create_records(system, persons=120, organizations=8)
    for entity in Entity:
        system.fetch(entity)
    unknown = set(mapped(system).values())

    resolve(system)

    assert unknown == {None}
    assert mapped(system) == {number: user["id"] for number, user in system.users().items()}
    assert mapped(system, Entity.ORGANIZATION) == {
        number: account["id"] for number, account in system.accounts().items()
    }
    assert system.rows("SELECT 1 FROM id_mappings WHERE resolve_at IS NOT NULL") == []


def test_shells_are_resolved_as_well(system: SyncSystem) -> None:
    create_records(system, persons=4, organizations=4)
    system.fetch(Entity.PERSON)

    resolve(system)

    assert mapped(system, Entity.ORGANIZATION) == {
        number: account["id"] for number, account in system.accounts().items()
    }
    states = system.rows("SELECT DISTINCT state FROM id_mappings WHERE entity = 'organization'")
    assert [row.state for row in states] == ["shell"]


def test_fifty_are_asked_for_at_once(system: SyncSystem) -> None:
    create_records(system, persons=120, organizations=0)
    system.fetch(Entity.PERSON)

    resolve(system)

    assert system.hull.counts["searches"] == 3


def test_one_round_is_limited_and_reports_that_there_is_more(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system.module("sync.changes.hull_ids"), "ROUND", 1)
    create_records(system, persons=60, organizations=0)
    system.fetch(Entity.PERSON)

    rounds = [resolve(system), resolve(system)]

    assert rounds == [True, False]
    assert None not in mapped(system).values()


def test_what_hull_does_not_know_yet_is_asked_for_later(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    system.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by)"
        " VALUES (:c, 'person', 99, 'full', 'fetched')",
        c=system.connector_key,
    )

    resolve(system)
    asked = system.hull.counts["searches"]
    resolve(system)
    at_once = system.hull.counts["searches"]
    system.change_rows("UPDATE id_mappings SET resolve_at = now() WHERE hull_id IS NULL")
    resolve(system)

    assert at_once == asked
    assert system.hull.counts["searches"] == asked + 1
    assert mapped(system)[99] is None
    assert mapped(system)[1] is not None


def pauses(system: SyncSystem) -> list[int]:
    query = "SELECT round(extract(epoch FROM resolve_at - now()))::int AS s FROM id_mappings WHERE hull_id IS NULL"
    return [row.s for row in system.rows(query)]


def test_what_hull_never_knows_is_asked_for_less_and_less_often(system: SyncSystem) -> None:
    system.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by)"
        " VALUES (:c, 'person', 99, 'full', 'fetched')",
        c=system.connector_key,
    )
    seen = []
    for _ in range(14):
        system.change_rows("UPDATE id_mappings SET resolve_at = now() WHERE hull_id IS NULL")
        resolve(system)
        seen += pauses(system)

    assert seen[:4] == pytest.approx([60, 120, 240, 480], abs=5)
    assert seen[-2:] == pytest.approx([86_400, 86_400], abs=5)


def test_a_search_that_fails_makes_no_pause_longer(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    system.hull_app.extensions["hull_faults"].replace(
        [{"path": "search", "kind": "status", "status": 503, "count": None}]
    )

    with pytest.raises(Retryable):
        resolve(system)

    assert [row.resolve_attempts for row in system.rows("SELECT resolve_attempts FROM id_mappings")] == [0, 0]


def test_a_new_delivery_ends_the_long_pauses(system: SyncSystem) -> None:
    """Hull knows now what it was just sent."""
    create_records(system, persons=1, organizations=0)
    system.fetch(Entity.PERSON)
    system.change_rows("UPDATE id_mappings SET resolve_at = now() + interval '1 day', resolve_attempts = 11")
    system.company.edit_person(1, name="Ada")
    system.fetch(Entity.PERSON)

    assert pauses(system) == pytest.approx([60], abs=5)
    resolve_in_a_minute = "UPDATE id_mappings SET resolve_at = now()"
    system.change_rows(resolve_in_a_minute)
    resolve(system)
    assert mapped(system)[1] is not None


def merge_users(system: SyncSystem, one: int, other: int) -> str:
    """Merge both Users in Hull."""
    from pipeline.wiring import open_connector  # noqa: PLC0415

    with transaction() as session:
        hull = open_connector(session, system.connector_key).hull
    hull.post_batches(
        [hull.writer().user_traits({"email": f"p{one}@example.com", "anonymous_id": f"pipedrive:{other}"}, {})]
    )
    users = [user for user in system.hull_records("user") if f"pipedrive:{other}" in user["anonymous_ids"]]
    return str(users[0]["id"])


def test_two_records_on_one_user_are_a_conflict(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=[{"value": "p1@example.com", "primary": True}])
    system.company.create_person(name="Ada again")
    age_records(system)
    system.fetch(Entity.PERSON)
    hull_id = merge_users(system, 1, 2)

    with captured_log() as lines:
        resolve(system)

    states = {row.pipedrive_id: row.state for row in system.rows("SELECT pipedrive_id, state FROM id_mappings")}
    assert mapped(system) == {1: hull_id, 2: None}
    assert states == {1: "full", 2: "conflict"}
    (event,) = system.rows(
        "SELECT event, pipedrive_id, hull_id FROM sync_events WHERE reason = 'two_records_one_hull_id'"
    )
    assert tuple(event) == ("incoming.user.error", 2, hull_id)
    assert [line["pipedrive_id"] for line in lines if line["event"] == "incoming.user.error"] == [2]


def test_a_conflict_is_logged_once(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=[{"value": "p1@example.com", "primary": True}])
    system.company.create_person(name="Ada again")
    age_records(system)
    system.fetch(Entity.PERSON)
    merge_users(system, 1, 2)
    resolve(system)

    system.company.edit_person(2, name="Ada once more")
    system.fetch(Entity.PERSON, changed_only=True)
    resolve(system)

    assert len([event for event in system.events() if event[1] == "two_records_one_hull_id"]) == 1
    assert system.rows("SELECT state FROM id_mappings WHERE pipedrive_id = 2")[0].state == "conflict"


def test_a_hull_id_that_another_record_already_has_is_a_conflict(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    with transaction() as session:
        first = joining.store_hull_ids(session, system.connector_key, Entity.PERSON, {1: "h1"}).conflicts
    with transaction() as session:
        second = joining.store_hull_ids(session, system.connector_key, Entity.PERSON, {2: "h1"}).conflicts

    assert (first, second) == ([], [2])
    assert mapped(system) == {1: "h1", 2: None}


@pytest.mark.parametrize("entity", list(Entity))
def test_a_conflict_that_is_resolved_in_hull_ends(system: SyncSystem, entity: Entity) -> None:
    system.company.create_person(name="Ada", org_id=system.company.create_organization(name="Acme")["id"])
    system.fetch(Entity.PERSON)

    def learn(found: dict[int, str]) -> list[int]:
        with transaction() as session:
            return joining.store_hull_ids(session, system.connector_key, entity, found).conflicts

    def state() -> str:
        return str(
            system.rows("SELECT state FROM id_mappings WHERE entity = :e AND pipedrive_id = 1", e=entity)[0].state
        )

    system.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, hull_id, state, matched_by)"
        " VALUES (:c, :e, 99, 'taken', 'full', 'fetched')",
        c=system.connector_key,
        e=entity,
    )
    before = state()
    logged = [learn({1: "taken"}), learn({1: "taken"})]
    in_between = state()
    learn({1: "my own"})

    assert logged == [[1], []]
    assert in_between == "conflict"
    assert state() == before == ("full" if entity is Entity.PERSON else "shell")


def test_a_paused_connector_is_not_asked_for(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    system.change_rows("UPDATE connectors SET state = 'paused'")

    system.module("tasks.control").resolve_hull_ids()

    assert system.hull.counts["searches"] == 0
