"""Deletes, restorations and merges in Pipedrive: what Hull shows of them, what is believed, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen, notify
from tests.journeys.people import age, fill
from tests.world import World

NO_EVENTS: list[Any] = []


@pytest.fixture
def told(world: World) -> list[dict[str, Any]]:
    """Five Persons that Hull knows, deletions wanted there, and a list that fills with what Pipedrive says from here on."""
    world.change_settings(support_user_deletion=True, support_account_deletion=True)
    fill(world, persons=5, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    return listen(world)


def user(world: World, pipedrive_id: int, kind: str = "user") -> dict[str, Any]:
    """The User that has this anonymous id, whatever its `pipedrive/id` says."""
    name = f"pipedrive:{pipedrive_id}"
    return next(each for each in world._export(kind) if name in each["anonymous_ids"])


def mapping(world: World, pipedrive_id: int, entity: str = "person") -> Any:
    (row,) = world.rows(
        "SELECT state, merged_into, absences, deleted_at, hull_id FROM id_mappings"
        " WHERE entity = :entity AND pipedrive_id = :id",
        entity=entity,
        id=pipedrive_id,
    )
    return row


def states(world: World, entity: str = "person") -> dict[int, str]:
    rows = world.rows("SELECT pipedrive_id, state FROM id_mappings WHERE entity = :e", e=entity)
    return {row.pipedrive_id: row.state for row in rows}


def since_then(world: World) -> list[Any]:
    """(event, reason, cause, Pipedrive id) of all that no fetch did."""
    query = "SELECT event, reason, cause, pipedrive_id FROM sync_events WHERE cause <> 'fetch' ORDER BY id"
    return [tuple(row) for row in world.rows(query)]


def holders(world: World, value: str) -> list[int]:
    return [row.pipedrive_id for row in world.rows("SELECT pipedrive_id FROM claims WHERE value = :v", v=value)]


def settled(world: World) -> bool:
    """Nothing is under way, and nothing has failed."""
    return not world.rows("SELECT 1 FROM changes") and not world.rows("SELECT 1 FROM failures WHERE state = 'open'")


def resolve(world: World) -> None:
    """Learn the ids that Hull gave, as beat would."""
    world.change_rows("UPDATE id_mappings SET resolve_at = now() WHERE resolve_at IS NOT NULL")
    world.room("control").resolve(world.connector_key)
    world.work()


def test_a_deleted_person_is_marked_in_hull(world: World, told: list[Any]) -> None:
    world.company.delete_person(3)
    deliver(world, *told)

    world.work()

    assert user(world, 3).get("pipedrive/id") is None
    assert user(world, 3)["pipedrive/deleted_at"] == told[0]["meta"]["timestamp"][:19] + "Z"
    assert user(world, 3)["pipedrive/name"] == "Person 3"
    assert (mapping(world, 3).state, mapping(world, 4).state) == ("deleted", "full")
    assert since_then(world) == [("incoming.user.success", "deleted", "webhook", 3)]
    assert settled(world)


def test_a_deleted_organization_is_marked_in_hull(world: World) -> None:
    world.change_settings(support_account_deletion=True)
    world.company.create_organization(name="Acme", website="https://acme.example.com")
    world.fetch(Entity.ORGANIZATION)
    said = listen(world)
    world.company.delete_organization(1)
    deliver(world, *said)

    world.work()

    assert user(world, 1, "account").get("pipedrive/id") is None
    assert user(world, 1, "account")["pipedrive/deleted_at"] is not None
    assert mapping(world, 1, "organization").state == "deleted"


def test_without_support_hull_hears_nothing_and_the_log_says_why(world: World, told: list[Any]) -> None:
    world.change_settings(support_user_deletion=False)
    said = world.hull.received.count
    world.company.delete_person(3)
    deliver(world, *told)

    world.work()

    assert world.hull.received.count == said
    assert user(world, 3)["pipedrive/id"] == 3
    assert mapping(world, 3).state == "deleted"
    assert since_then(world) == [("incoming.user.skip", "deletion_not_supported", "webhook", 3)]


def test_a_delete_of_somebody_who_is_there_is_not_believed(world: World, told: list[Any]) -> None:
    """Nothing signs a webhook, and none promises its order."""
    world.company.edit_person(3, name="Edited")
    told[0]["meta"]["action"], told[0]["data"] = "delete", None
    deliver(world, *told)

    world.work()

    assert world.users()[3]["pipedrive/name"] == "Edited"
    assert user(world, 3).get("pipedrive/deleted_at") is None
    assert states(world) == dict.fromkeys(range(1, 6), "full")


def test_a_delete_of_somebody_never_seen_leaves_nothing_behind(world: World, told: list[Any]) -> None:
    world.company.create_person(name="Brief")
    world.company.delete_person(6)
    deliver(world, told[-1])

    world.work()

    assert (since_then(world), 6 in states(world), settled(world)) == (NO_EVENTS, False, True)


def test_a_late_edit_does_not_bring_a_deleted_person_back(world: World, told: list[Any]) -> None:
    world.company.edit_person(3, name="Edited")
    world.company.delete_person(3)
    deliver(world, told[1])
    world.work()

    deliver(world, told[0])
    world.work()

    assert user(world, 3)["pipedrive/deleted_at"] is not None
    assert mapping(world, 3).state == "deleted"
    assert settled(world)


def test_a_delete_that_is_told_twice_is_one_event(world: World, told: list[Any]) -> None:
    world.company.delete_person(3)
    deliver(world, *told)
    world.work()
    said = world.hull.received.count
    told[0]["meta"]["id"] = "another delivery of the same"

    deliver(world, *told)
    world.work()

    assert world.hull.received.count == said
    assert [event[1] for event in since_then(world)] == ["deleted"]


def test_some_go_while_others_of_their_batch_are_carried_over(world: World, told: list[Any]) -> None:
    world.company.edit_person(2, name="Edited")
    world.company.delete_person(3)
    deliver(world, *told)

    world.work()

    assert world.users()[2]["pipedrive/name"] == "Edited"
    assert (user(world, 3).get("pipedrive/id"), mapping(world, 3).state) == (None, "deleted")


def test_what_a_deleted_person_held_is_free_for_another(world: World, told: list[Any]) -> None:
    world.company.delete_person(3)
    world.company.edit_person(4, emails=[{"value": "p3@example.com", "primary": True}])
    deliver(world, *told)

    world.work()

    assert holders(world, "p3@example.com") == [4]
    assert "duplicate_claim" not in [event[1] for event in since_then(world)]
    assert user(world, 4)["email"] == "p3@example.com"


def test_a_person_made_anew_with_the_old_email_is_not_marked_as_deleted(world: World, told: list[Any]) -> None:
    """Hull finds the old User by the e-mail, mark and all."""
    resolve(world)
    world.company.delete_person(3)
    deliver(world, *told)
    world.work()
    world.company.create_person(name="Again", emails=[{"value": "p3@example.com", "primary": True}])
    deliver(world, told[-1])
    world.work()

    resolve(world)

    assert user(world, 6)["id"] == user(world, 3)["id"]
    assert (user(world, 6)["pipedrive/id"], user(world, 6).get("pipedrive/deleted_at")) == (6, None)
    assert (mapping(world, 6).state, mapping(world, 6).hull_id) == ("full", user(world, 6)["id"])
    assert settled(world)


def test_absence_that_nobody_told_is_believed_the_second_time(world: World, told: list[Any]) -> None:
    world.company.edit_person(3, name="Edited")
    world.company.delete_person(3)
    told[0]["data"]["update_time"] = "2020-01-01T00:00:00Z"
    deliver(world, told[0])

    world.work()
    first = mapping(world, 3)
    world.later()
    world.work()

    assert (first.state, first.absences) == ("full", 1)
    assert (mapping(world, 3).state, user(world, 3).get("pipedrive/id")) == ("gone", None)
    assert since_then(world) == [("incoming.user.success", "gone", "webhook", 3)]
    assert settled(world)


def test_one_answer_with_the_record_counts_absences_from_the_beginning(world: World, told: list[Any]) -> None:
    world.company.edit_person(3, name="Edited")
    told[0]["data"]["update_time"] = "2020-01-01T00:00:00Z"
    world.change_rows("UPDATE id_mappings SET absences = 1 WHERE pipedrive_id = 3")
    deliver(world, told[0])

    world.work()

    assert (mapping(world, 3).state, mapping(world, 3).absences) == ("full", 0)


def test_a_record_shown_as_deleted_has_departed(world: World, told: list[Any]) -> None:
    """Whether deleted records are listed is not documented."""
    world.company.behaviour.list_deleted = True
    world.company.delete_person(3)
    deliver(world, *told)

    world.work()

    assert (mapping(world, 3).state, user(world, 3).get("pipedrive/id")) == ("deleted", None)


def test_a_fetch_that_shows_a_record_as_deleted_marks_it(world: World, told: list[Any]) -> None:
    world.company.behaviour.list_deleted = True
    world.company.delete_person(3)

    world.fetch(Entity.PERSON)

    assert (mapping(world, 3).state, user(world, 3).get("pipedrive/id")) == ("deleted", None)
    assert settled(world)


def test_hull_is_told_before_anything_is_written_down(world: World, told: list[Any], monkeypatch: Any) -> None:
    from pipeline.tasks import departures  # noqa: PLC0415 - Celery reads its settings when it is imported

    world.company.delete_person(3)
    deliver(world, *told)
    with monkeypatch.context() as patch:
        patch.setattr(departures, "_write_down", lambda *_: 1 / 0)
        world.work()
    marked, state = user(world, 3).get("pipedrive/id"), mapping(world, 3).state

    world.change_rows("UPDATE batches SET state = 'ready', attempts = 0 WHERE state = 'failed'")
    world.work()

    assert (marked, state) == (None, "full")
    assert mapping(world, 3).state == "deleted"
    assert [event[1] for event in since_then(world)] == ["deleted"]


def test_a_departed_person_is_not_written_to(world: World, told: list[Any]) -> None:
    world.change_settings(outgoing_user_attributes=[{"hull": "name", "service": "name"}])
    world.company.delete_person(3)
    deliver(world, *told)
    world.work()
    report = {**user(world, 3), "name": "Sent"}

    notify(world, {"user": report, "segments": [], "changes": {}})
    world.work()

    assert since_then(world)[-1][:2] == ("outgoing.user.skip", "deleted_in_pipedrive")
    assert settled(world)
