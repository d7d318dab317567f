"""What a departed record is known by in Hull stays its own: whoever comes after it gets it knowingly, and it may come back."""

from __future__ import annotations

from typing import Any

import pytest

from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.test_departures import holders, mapping, merge, resolve, settled, since_then, user
from tests.prepared import prepared
from tests.world import World

KINDS = ["person", "organization"]
VALUE = {"person": "p1@example.com", "organization": "org1.com"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@prepared
def two_records(world: World, kind: str) -> None:
    world.change_settings(support_user_deletion=True, support_account_deletion=True)
    if kind == "person":
        world.company.create_person(name="First", emails=email())
        world.company.create_person(name="Second")
    else:
        world.company.create_organization(name="First", website="https://www.org1.com")
        world.company.create_organization(name="Second")
    world.fetch(Entity(kind))
    resolve(world)


@pytest.fixture
def told(world: World, kind: str) -> list[dict[str, Any]]:
    """Record 1 with a claim and record 2 without, both known to Hull, deletions wanted there; what is said from here on."""
    two_records(world, kind=kind)
    return listen(world)


def email() -> list[dict[str, Any]]:
    return [{"value": VALUE["person"], "primary": True}]


def hull(kind: str) -> str:
    return "user" if kind == "person" else "account"


def identified_by(world: World, kind: str, number: int) -> Any:
    return user(world, number, hull(kind)).get("email" if kind == "person" else "domain")


def take(world: World, kind: str, number: int) -> None:
    """Another record comes to say the same of itself."""
    if kind == "person":
        world.company.edit_person(number, emails=email())
    else:
        world.company.edit_organization(number, website="https://org1.com/about")


def delete(world: World, kind: str) -> None:
    (world.company.delete_person if kind == "person" else world.company.delete_organization)(1)


def carry(world: World, told: list[Any]) -> None:
    """Bring over what was said since the last time."""
    deliver(world, *told)
    told.clear()
    world.work()


def apart(world: World, kind: str) -> bool:
    return user(world, 1, hull(kind))["id"] != user(world, 2, hull(kind))["id"]


def release(world: World, kind: str) -> Any:
    with transaction() as session:
        return world.module("sync.incoming.deletions").release(session, world.connector_key, Entity(kind), 1)


def test_a_newcomer_does_not_become_one_with_who_was_deleted(world: World, kind: str, told: list[Any]) -> None:
    delete(world, kind)
    carry(world, told)
    take(world, kind, 2)
    carry(world, told)

    assert apart(world, kind)
    assert holders(world, VALUE[kind]) == [1]
    assert identified_by(world, kind, 2) is None
    assert user(world, 2, hull(kind))["pipedrive/name"] == "Second"
    assert user(world, 1, hull(kind))["pipedrive/deleted_at"] is not None
    assert settled(world)


def test_the_event_names_the_departed_holder_and_until_when(world: World, kind: str, told: list[Any]) -> None:
    delete(world, kind)
    carry(world, told)
    world.change_rows("UPDATE id_mappings SET deleted_at = '2026-02-10T12:00:00Z' WHERE state = 'deleted'")
    take(world, kind, 2)
    carry(world, told)

    (row,) = world.rows("SELECT pipedrive_id, detail FROM sync_events WHERE reason = 'duplicate_claim'")
    claim = "email" if kind == "person" else "domain"
    held = f"{claim}: held by {kind} 1, deleted since 2026-02-10, until 2026-03-12 or until it is released"
    assert tuple(row) == (2, held)


def test_who_is_restored_finds_what_was_its_own(world: World, kind: str, told: list[Any]) -> None:
    before = user(world, 1, hull(kind))["id"]
    delete(world, kind)
    carry(world, told)
    take(world, kind, 2)
    carry(world, told)
    world.company.undelete(kind, 1)
    carry(world, told)
    resolve(world)

    assert apart(world, kind)
    assert [mapping(world, number, kind).state for number in (1, 2)] == ["full", "full"]
    assert mapping(world, 1, kind).hull_id == before == user(world, 1, hull(kind))["id"]
    assert mapping(world, 2, kind).hull_id == user(world, 2, hull(kind))["id"]
    assert (user(world, 1, hull(kind))["pipedrive/id"], user(world, 2, hull(kind))["pipedrive/id"]) == (1, 2)
    assert identified_by(world, kind, 1) == VALUE[kind]
    assert user(world, 1, hull(kind)).get("pipedrive/deleted_at") is None
    assert settled(world)


def test_a_person_may_release_it_and_the_newcomer_takes_its_place(world: World, kind: str, told: list[Any]) -> None:
    delete(world, kind)
    carry(world, told)
    take(world, kind, 2)
    carry(world, told)

    released = release(world, kind)
    world.work()
    resolve(world)
    world.work()

    assert [(each.holder, each.wanted_by) for each in released] == [(1, 2)]
    assert not apart(world, kind)
    assert holders(world, VALUE[kind]) == [2]
    known = user(world, 2, hull(kind))
    assert (known["pipedrive/id"], known.get("pipedrive/deleted_at"), known["pipedrive/name"]) == (2, None, "Second")
    assert (mapping(world, 2, kind).hull_id, mapping(world, 1, kind).hull_id) == (known["id"], None)
    assert [event[1] for event in since_then(world) if event[3] == 1] == ["deleted", "claim_released", "gave_way"]
    assert settled(world)


def test_who_is_restored_after_that_is_named_as_a_conflict(world: World, kind: str, told: list[Any]) -> None:
    delete(world, kind)
    carry(world, told)
    take(world, kind, 2)
    carry(world, told)
    release(world, kind)
    world.work()
    resolve(world)
    world.company.undelete(kind, 1)
    carry(world, told)
    resolve(world)

    assert [mapping(world, number, kind).state for number in (1, 2)] == ["conflict", "full"]
    assert mapping(world, 2, kind).hull_id == user(world, 2, hull(kind))["id"]
    assert [event[1] for event in since_then(world) if event[3] == 1][-1] == "two_records_one_hull_id"
    assert holders(world, VALUE[kind]) == [2]


def test_only_a_departed_record_is_made_to_release(world: World, kind: str, told: list[Any]) -> None:
    assert release(world, kind) is None
    assert holders(world, VALUE[kind]) == [1]


@pytest.mark.parametrize(("days", "held_by"), [(29, 1), (31, 2)], ids=["may come back", "purged"])
def test_what_cannot_be_restored_any_more_lets_go_by_itself(
    world: World, kind: str, told: list[Any], days: int, held_by: int
) -> None:
    delete(world, kind)
    carry(world, told)
    take(world, kind, 2)
    carry(world, told)
    world.change_rows(
        "UPDATE id_mappings SET deleted_at = now() - make_interval(days => :days) WHERE state = 'deleted'", days=days
    )

    world.module("sync.upkeep").tidy()
    world.work()

    assert holders(world, VALUE[kind]) == [held_by]


def test_what_nobody_waits_for_is_free_for_whoever_comes(world: World, kind: str, told: list[Any]) -> None:
    delete(world, kind)
    carry(world, told)
    release(world, kind)
    take(world, kind, 2)
    carry(world, told)
    world.later()
    resolve(world)
    world.work()

    assert holders(world, VALUE[kind]) == [2]
    assert not apart(world, kind)
    assert (mapping(world, 1, kind).hull_id, mapping(world, 2, kind).hull_id) == (
        None,
        user(world, 2, hull(kind))["id"],
    )
    assert user(world, 2, hull(kind)).get("pipedrive/deleted_at") is None


def test_who_waits_is_told_when_a_living_holder_changes_its_mind(world: World, kind: str, told: list[Any]) -> None:
    take(world, kind, 2)
    carry(world, told)
    waited = holders(world, VALUE[kind])
    if kind == "person":
        world.company.edit_person(1, emails=[{"value": "new@example.com", "primary": True}])
    else:
        world.company.edit_organization(1, website="https://elsewhere.com")
    carry(world, told)

    assert (waited, holders(world, VALUE[kind])) == ([1], [2])
    assert identified_by(world, kind, 2) == VALUE[kind]
    assert apart(world, kind)


def test_a_merge_passes_what_was_held_to_the_survivor_and_to_nobody_else(
    world: World, kind: str, told: list[Any]
) -> None:
    (world.company.create_person if kind == "person" else world.company.create_organization)(name="Third")
    carry(world, told)
    take(world, kind, 3)
    carry(world, told)
    merge(world, 1, 2, kind)
    carry(world, told)

    assert not apart(world, kind)
    assert holders(world, VALUE[kind]) == [2]
    assert identified_by(world, kind, 3) is None
    assert user(world, 3, hull(kind))["id"] != user(world, 2, hull(kind))["id"]


def test_a_record_that_hull_never_heard_of_holds_nothing(world: World, kind: str, told: list[Any]) -> None:
    world.change_rows(
        "UPDATE id_mappings SET delivered = NULL, hull_id = NULL, resolve_at = NULL"
        " WHERE entity = :e AND pipedrive_id = 1",
        e=kind,
    )
    delete(world, kind)
    carry(world, told)

    assert holders(world, VALUE[kind]) == []


def test_who_has_no_value_any_more_is_still_known_by_the_last(world: World, kind: str, told: list[Any]) -> None:
    """Hull takes no claim away: another record that came under it would become one with this one."""
    if kind == "person":
        world.company.edit_person(1, emails=[])
    else:
        world.company.edit_organization(1, website="")
    carry(world, told)
    take(world, kind, 2)
    carry(world, told)

    assert apart(world, kind)
    assert (holders(world, VALUE[kind]), identified_by(world, kind, 1)) == ([1], VALUE[kind])
    assert user(world, 1, hull(kind))["pipedrive/id"] == 1


def test_who_wants_what_another_holds_keeps_its_own(world: World, kind: str, told: list[Any]) -> None:
    other = {"person": "p3@example.com", "organization": "org3.com"}[kind]
    if kind == "person":
        world.company.create_person(name="Third", emails=[{"value": other, "primary": True}])
        carry(world, told)
        world.company.edit_person(1, emails=[{"value": other, "primary": True}])
    else:
        world.company.create_organization(name="Third", website=f"https://{other}")
        carry(world, told)
        world.company.edit_organization(1, website=f"https://{other}")
    take(world, kind, 2)
    carry(world, told)

    assert apart(world, kind)
    assert [holders(world, value) for value in (VALUE[kind], other)] == [[1], [3]]
