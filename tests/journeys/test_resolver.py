"""Learning the ids Hull gave: the firehose answers nothing, so Hull's search is asked afterwards."""

from __future__ import annotations

import pytest

from db import hull_ids
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.errors import Retryable
from tests.journeys.people import age, fill
from tests.logs import written
from tests.world import World


def mapped(world: World, entity: Entity = Entity.PERSON) -> dict[int, str | None]:
    query = "SELECT pipedrive_id, hull_id FROM id_mappings WHERE entity = :e"
    return {row.pipedrive_id: row.hull_id for row in world.rows(query, e=entity)}


def resolve(world: World) -> bool:
    more: bool = world.module("sync.changes.hull_ids").resolve(world.connector_key)
    return more


def test_every_mapping_learns_the_id_hull_gave(world: World) -> None:
    fill(world, persons=120, organizations=8)
    for entity in Entity:
        world.fetch(entity)
    unknown = set(mapped(world).values())

    resolve(world)

    assert unknown == {None}
    assert mapped(world) == {number: user["id"] for number, user in world.users().items()}
    assert mapped(world, Entity.ORGANIZATION) == {number: account["id"] for number, account in world.accounts().items()}
    assert world.rows("SELECT 1 FROM id_mappings WHERE resolve_at IS NOT NULL") == []


def test_shells_are_resolved_as_well(world: World) -> None:
    fill(world, persons=4, organizations=4)
    world.fetch(Entity.PERSON)

    resolve(world)

    assert mapped(world, Entity.ORGANIZATION) == {number: account["id"] for number, account in world.accounts().items()}
    states = world.rows("SELECT DISTINCT state FROM id_mappings WHERE entity = 'organization'")
    assert [row.state for row in states] == ["shell"]


def test_fifty_are_asked_for_at_once(world: World) -> None:
    fill(world, persons=120, organizations=0)
    world.fetch(Entity.PERSON)

    resolve(world)

    assert world.hull.counts["searches"] == 3


def test_one_round_is_bounded_and_says_that_there_is_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.module("sync.changes.hull_ids"), "ROUND", 1)
    fill(world, persons=60, organizations=0)
    world.fetch(Entity.PERSON)

    rounds = [resolve(world), resolve(world)]

    assert rounds == [True, False]
    assert None not in mapped(world).values()


def test_what_hull_does_not_know_yet_is_asked_for_later(world: World) -> None:
    fill(world, persons=2, organizations=0)
    world.fetch(Entity.PERSON)
    world.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by)"
        " VALUES (:c, 'person', 99, 'full', 'fetched')",
        c=world.connector_key,
    )

    resolve(world)
    asked = world.hull.counts["searches"]
    resolve(world)
    at_once = world.hull.counts["searches"]
    world.change_rows("UPDATE id_mappings SET resolve_at = now() WHERE hull_id IS NULL")
    resolve(world)

    assert at_once == asked
    assert world.hull.counts["searches"] == asked + 1
    assert mapped(world)[99] is None
    assert mapped(world)[1] is not None


def pauses(world: World) -> list[int]:
    query = "SELECT round(extract(epoch FROM resolve_at - now()))::int AS s FROM id_mappings WHERE hull_id IS NULL"
    return [row.s for row in world.rows(query)]


def test_what_hull_never_knows_is_asked_for_less_and_less_often(world: World) -> None:
    world.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by)"
        " VALUES (:c, 'person', 99, 'full', 'fetched')",
        c=world.connector_key,
    )
    seen = []
    for _ in range(14):
        world.change_rows("UPDATE id_mappings SET resolve_at = now() WHERE hull_id IS NULL")
        resolve(world)
        seen += pauses(world)

    assert seen[:4] == pytest.approx([60, 120, 240, 480], abs=5)
    assert seen[-2:] == pytest.approx([86_400, 86_400], abs=5)


def test_a_search_that_fails_makes_no_pause_longer(world: World) -> None:
    fill(world, persons=2, organizations=0)
    world.fetch(Entity.PERSON)
    world.hull_app.extensions["hull_faults"].replace(
        [{"path": "search", "kind": "status", "status": 503, "count": None}]
    )

    with pytest.raises(Retryable):
        resolve(world)

    assert [row.resolve_attempts for row in world.rows("SELECT resolve_attempts FROM id_mappings")] == [0, 0]


def test_a_new_delivery_ends_the_long_pauses(world: World) -> None:
    """Hull knows now what it was just sent."""
    fill(world, persons=1, organizations=0)
    world.fetch(Entity.PERSON)
    world.change_rows("UPDATE id_mappings SET resolve_at = now() + interval '1 day', resolve_attempts = 11")
    world.company.edit_person(1, name="Ada")
    world.fetch(Entity.PERSON)

    assert pauses(world) == pytest.approx([60], abs=5)
    resolve_in_a_minute = "UPDATE id_mappings SET resolve_at = now()"
    world.change_rows(resolve_in_a_minute)
    resolve(world)
    assert mapped(world)[1] is not None


def merge_users(world: World, one: int, other: int) -> str:
    """Have somebody tell Hull that both are one User."""
    from pipeline.wiring import open_connector  # noqa: PLC0415

    with transaction() as session:
        hull = open_connector(session, world.connector_key).hull
    hull.post_batches(
        [hull.writer().user_traits({"email": f"p{one}@example.com", "anonymous_id": f"pipedrive:{other}"}, {})]
    )
    users = [user for user in world._export("user") if f"pipedrive:{other}" in user["anonymous_ids"]]
    return str(users[0]["id"])


def test_two_records_on_one_user_are_a_conflict(world: World) -> None:
    world.company.create_person(name="Ada", emails=[{"value": "p1@example.com", "primary": True}])
    world.company.create_person(name="Ada again")
    age(world)
    world.fetch(Entity.PERSON)
    hull_id = merge_users(world, 1, 2)

    with written() as lines:
        resolve(world)

    states = {row.pipedrive_id: row.state for row in world.rows("SELECT pipedrive_id, state FROM id_mappings")}
    assert mapped(world) == {1: hull_id, 2: None}
    assert states == {1: "full", 2: "conflict"}
    (event,) = world.rows(
        "SELECT event, pipedrive_id, hull_id FROM sync_events WHERE reason = 'two_records_one_hull_id'"
    )
    assert tuple(event) == ("incoming.user.error", 2, hull_id)
    assert [line["pipedrive_id"] for line in lines if line["event"] == "incoming.user.error"] == [2]


def test_a_conflict_is_told_once(world: World) -> None:
    world.company.create_person(name="Ada", emails=[{"value": "p1@example.com", "primary": True}])
    world.company.create_person(name="Ada again")
    age(world)
    world.fetch(Entity.PERSON)
    merge_users(world, 1, 2)
    resolve(world)

    world.company.edit_person(2, name="Ada once more")
    world.fetch(Entity.PERSON, changed_only=True)
    resolve(world)

    assert len([event for event in world.events() if event[1] == "two_records_one_hull_id"]) == 1
    assert world.rows("SELECT state FROM id_mappings WHERE pipedrive_id = 2")[0].state == "conflict"


def test_a_hull_id_that_another_record_already_has_is_a_conflict(world: World) -> None:
    fill(world, persons=2, organizations=0)
    world.fetch(Entity.PERSON)
    with transaction() as session:
        first = hull_ids.learn_hull_ids(session, world.connector_key, Entity.PERSON, {1: "h1"}).conflicts
    with transaction() as session:
        second = hull_ids.learn_hull_ids(session, world.connector_key, Entity.PERSON, {2: "h1"}).conflicts

    assert (first, second) == ([], [2])
    assert mapped(world) == {1: "h1", 2: None}


@pytest.mark.parametrize("entity", list(Entity))
def test_a_conflict_that_is_settled_in_hull_heals(world: World, entity: Entity) -> None:
    world.company.create_person(name="Ada", org_id=world.company.create_organization(name="Acme")["id"])
    world.fetch(Entity.PERSON)

    def learn(found: dict[int, str]) -> list[int]:
        with transaction() as session:
            return hull_ids.learn_hull_ids(session, world.connector_key, entity, found).conflicts

    def state() -> str:
        return str(
            world.rows("SELECT state FROM id_mappings WHERE entity = :e AND pipedrive_id = 1", e=entity)[0].state
        )

    world.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, hull_id, state, matched_by)"
        " VALUES (:c, :e, 99, 'taken', 'full', 'fetched')",
        c=world.connector_key,
        e=entity,
    )
    before = state()
    told = [learn({1: "taken"}), learn({1: "taken"})]
    meanwhile = state()
    learn({1: "my own"})

    assert told == [[1], []]
    assert meanwhile == "conflict"
    assert state() == before == ("full" if entity is Entity.PERSON else "shell")


def test_a_paused_connector_is_not_asked_for(world: World) -> None:
    fill(world, persons=2, organizations=0)
    world.fetch(Entity.PERSON)
    world.change_rows("UPDATE connectors SET state = 'paused'")

    world.module("tasks.control").resolve_hull_ids()

    assert world.hull.counts["searches"] == 0
