"""A deleted record keeps its claims until they are released, because Pipedrive can restore it."""

from __future__ import annotations

from typing import Any

import pytest

from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.test_deletions import holders, is_finished, mapping, merge, resolve, since_then, user
from tests.prepared import prepared
from tests.system import SyncSystem

KINDS = ["person", "organization"]
VALUE = {"person": "p1@example.com", "organization": "org1.com"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@prepared
def two_records(system: SyncSystem, kind: str) -> None:
    system.change_settings(support_user_deletion=True, support_account_deletion=True)
    if kind == "person":
        system.company.create_person(name="First", emails=email())
        system.company.create_person(name="Second")
    else:
        system.company.create_organization(name="First", website="https://www.org1.com")
        system.company.create_organization(name="Second")
    system.fetch(Entity(kind))
    resolve(system)


@pytest.fixture
def webhooks(system: SyncSystem, kind: str) -> list[dict[str, Any]]:
    """Record 1 with a claim and record 2 without, both in Hull, which supports deletions; return the webhooks from now on."""
    two_records(system, kind=kind)
    return listen(system)


def email() -> list[dict[str, Any]]:
    return [{"value": VALUE["person"], "primary": True}]


def hull(kind: str) -> str:
    return "user" if kind == "person" else "account"


def identified_by(system: SyncSystem, kind: str, number: int) -> Any:
    return user(system, number, hull(kind)).get("email" if kind == "person" else "domain")


def take(system: SyncSystem, kind: str, number: int) -> None:
    """Give another record the same claim."""
    if kind == "person":
        system.company.edit_person(number, emails=email())
    else:
        system.company.edit_organization(number, website="https://org1.com/about")


def delete(system: SyncSystem, kind: str) -> None:
    (system.company.delete_person if kind == "person" else system.company.delete_organization)(1)


def carry(system: SyncSystem, webhooks: list[Any]) -> None:
    """Deliver the webhooks since the last time, and work."""
    deliver(system, *webhooks)
    webhooks.clear()
    system.work()


def apart(system: SyncSystem, kind: str) -> bool:
    return user(system, 1, hull(kind))["id"] != user(system, 2, hull(kind))["id"]


def release(system: SyncSystem, kind: str) -> Any:
    with transaction() as session:
        return system.module("sync.incoming.deletions").release(session, system.connector_key, Entity(kind), 1)


@pytest.mark.guide(
    "Incoming Users",
    "While it can be restored, for thirty days, it keeps its e-mail: until then, another Person with the same"
    " e-mail is a User without it.",
)
def test_a_newcomer_does_not_become_one_with_who_was_deleted(
    system: SyncSystem, kind: str, webhooks: list[Any]
) -> None:
    delete(system, kind)
    carry(system, webhooks)
    take(system, kind, 2)
    carry(system, webhooks)

    assert apart(system, kind)
    assert holders(system, VALUE[kind]) == [1]
    assert identified_by(system, kind, 2) is None
    assert user(system, 2, hull(kind))["pipedrive/name"] == "Second"
    assert user(system, 1, hull(kind))["pipedrive/deleted_at"] is not None
    assert is_finished(system)


def test_the_event_names_the_deleted_holder_and_its_release(system: SyncSystem, kind: str, webhooks: list[Any]) -> None:
    delete(system, kind)
    carry(system, webhooks)
    system.change_rows("UPDATE id_mappings SET deleted_at = '2026-02-10T12:00:00Z' WHERE state = 'deleted'")
    take(system, kind, 2)
    carry(system, webhooks)

    (row,) = system.rows("SELECT pipedrive_id, detail FROM sync_events WHERE reason = 'duplicate_claim'")
    claim = "email" if kind == "person" else "domain"
    held = f"{claim}: held by {kind} 1, deleted since 2026-02-10, until 2026-03-12 or until it is released"
    assert tuple(row) == (2, held)


@pytest.mark.defect(23, "A record that was restored went on being marked as deleted.")
def test_who_is_restored_finds_what_was_its_own(system: SyncSystem, kind: str, webhooks: list[Any]) -> None:
    before = user(system, 1, hull(kind))["id"]
    delete(system, kind)
    carry(system, webhooks)
    take(system, kind, 2)
    carry(system, webhooks)
    system.company.undelete(kind, 1)
    carry(system, webhooks)
    resolve(system)

    assert apart(system, kind)
    assert [mapping(system, number, kind).state for number in (1, 2)] == ["full", "full"]
    assert mapping(system, 1, kind).hull_id == before == user(system, 1, hull(kind))["id"]
    assert mapping(system, 2, kind).hull_id == user(system, 2, hull(kind))["id"]
    assert (user(system, 1, hull(kind))["pipedrive/id"], user(system, 2, hull(kind))["pipedrive/id"]) == (1, 2)
    assert identified_by(system, kind, 1) == VALUE[kind]
    assert user(system, 1, hull(kind)).get("pipedrive/deleted_at") is None
    assert is_finished(system)


def test_a_person_may_release_it_and_the_newcomer_takes_its_place(
    system: SyncSystem, kind: str, webhooks: list[Any]
) -> None:
    delete(system, kind)
    carry(system, webhooks)
    take(system, kind, 2)
    carry(system, webhooks)

    released = release(system, kind)
    system.work()
    resolve(system)
    system.work()

    assert [(each.holder, each.wanted_by) for each in released] == [(1, 2)]
    assert not apart(system, kind)
    assert holders(system, VALUE[kind]) == [2]
    known = user(system, 2, hull(kind))
    assert (known["pipedrive/id"], known.get("pipedrive/deleted_at"), known["pipedrive/name"]) == (2, None, "Second")
    assert (mapping(system, 2, kind).hull_id, mapping(system, 1, kind).hull_id) == (known["id"], None)
    assert [event[1] for event in since_then(system) if event[3] == 1] == [
        "deleted",
        "claim_released",
        "hull_id_reassigned",
    ]
    assert is_finished(system)


def test_who_is_restored_after_that_is_named_as_a_conflict(system: SyncSystem, kind: str, webhooks: list[Any]) -> None:
    delete(system, kind)
    carry(system, webhooks)
    take(system, kind, 2)
    carry(system, webhooks)
    release(system, kind)
    system.work()
    resolve(system)
    system.company.undelete(kind, 1)
    carry(system, webhooks)
    resolve(system)

    assert [mapping(system, number, kind).state for number in (1, 2)] == ["conflict", "full"]
    assert mapping(system, 2, kind).hull_id == user(system, 2, hull(kind))["id"]
    assert [event[1] for event in since_then(system) if event[3] == 1][-1] == "two_records_one_hull_id"
    assert holders(system, VALUE[kind]) == [2]


def test_only_a_deleted_record_can_be_released(system: SyncSystem, kind: str, webhooks: list[Any]) -> None:
    assert release(system, kind) is None
    assert holders(system, VALUE[kind]) == [1]


@pytest.mark.guide(
    "Incoming Users",
    "While it can be restored, for thirty days, it keeps its e-mail: until then, another Person with the same"
    " e-mail is a User without it.",
)
@pytest.mark.parametrize(("days", "held_by"), [(29, 1), (31, 2)], ids=["may come back", "purged"])
def test_what_cannot_be_restored_any_more_lets_go_by_itself(
    system: SyncSystem, kind: str, webhooks: list[Any], days: int, held_by: int
) -> None:
    delete(system, kind)
    carry(system, webhooks)
    take(system, kind, 2)
    carry(system, webhooks)
    system.change_rows(
        "UPDATE id_mappings SET deleted_at = now() - make_interval(days => :days) WHERE state = 'deleted'", days=days
    )

    system.module("sync.upkeep").tidy()
    system.work()

    assert holders(system, VALUE[kind]) == [held_by]


def test_a_released_claim_is_free_for_the_next_record(system: SyncSystem, kind: str, webhooks: list[Any]) -> None:
    delete(system, kind)
    carry(system, webhooks)
    release(system, kind)
    take(system, kind, 2)
    carry(system, webhooks)
    system.end_pauses()
    resolve(system)
    system.work()

    assert holders(system, VALUE[kind]) == [2]
    assert not apart(system, kind)
    assert (mapping(system, 1, kind).hull_id, mapping(system, 2, kind).hull_id) == (
        None,
        user(system, 2, hull(kind))["id"],
    )
    assert user(system, 2, hull(kind)).get("pipedrive/deleted_at") is None


def test_a_waiting_record_is_delivered_when_an_existing_holder_loses_the_claim(
    system: SyncSystem, kind: str, webhooks: list[Any]
) -> None:
    take(system, kind, 2)
    carry(system, webhooks)
    waited = holders(system, VALUE[kind])
    if kind == "person":
        system.company.edit_person(1, emails=[{"value": "new@example.com", "primary": True}])
    else:
        system.company.edit_organization(1, website="https://elsewhere.com")
    carry(system, webhooks)

    assert (waited, holders(system, VALUE[kind])) == ([1], [2])
    assert identified_by(system, kind, 2) == VALUE[kind]
    assert apart(system, kind)


def test_a_merge_transfers_the_claims_to_the_survivor_only(system: SyncSystem, kind: str, webhooks: list[Any]) -> None:
    (system.company.create_person if kind == "person" else system.company.create_organization)(name="Third")
    carry(system, webhooks)
    take(system, kind, 3)
    carry(system, webhooks)
    merge(system, 1, 2, kind)
    carry(system, webhooks)

    assert not apart(system, kind)
    assert holders(system, VALUE[kind]) == [2]
    assert identified_by(system, kind, 3) is None
    assert user(system, 3, hull(kind))["id"] != user(system, 2, hull(kind))["id"]


def test_a_record_that_hull_never_received_holds_nothing(system: SyncSystem, kind: str, webhooks: list[Any]) -> None:
    system.change_rows(
        "UPDATE id_mappings SET delivered = NULL, hull_id = NULL, resolve_at = NULL"
        " WHERE entity = :e AND pipedrive_id = 1",
        e=kind,
    )
    delete(system, kind)
    carry(system, webhooks)

    assert holders(system, VALUE[kind]) == []


def test_who_has_no_value_any_more_is_still_known_by_the_last(
    system: SyncSystem, kind: str, webhooks: list[Any]
) -> None:
    """Hull takes no claim away: another record that came under it would become one with this one."""
    if kind == "person":
        system.company.edit_person(1, emails=[])
    else:
        system.company.edit_organization(1, website="")
    carry(system, webhooks)
    take(system, kind, 2)
    carry(system, webhooks)

    assert apart(system, kind)
    assert (holders(system, VALUE[kind]), identified_by(system, kind, 1)) == ([1], VALUE[kind])
    assert user(system, 1, hull(kind))["pipedrive/id"] == 1


def test_who_wants_what_another_holds_keeps_its_own(system: SyncSystem, kind: str, webhooks: list[Any]) -> None:
    other = {"person": "p3@example.com", "organization": "org3.com"}[kind]
    if kind == "person":
        system.company.create_person(name="Third", emails=[{"value": other, "primary": True}])
        carry(system, webhooks)
        system.company.edit_person(1, emails=[{"value": other, "primary": True}])
    else:
        system.company.create_organization(name="Third", website=f"https://{other}")
        carry(system, webhooks)
        system.company.edit_organization(1, website=f"https://{other}")
    take(system, kind, 2)
    carry(system, webhooks)

    assert apart(system, kind)
    assert [holders(system, value) for value in (VALUE[kind], other)] == [[1], [3]]
