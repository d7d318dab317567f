"""Deletes, restorations and merges in Pipedrive: what Hull shows of them, what is believed, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from db.operator import Present
from db.session import transaction
from pipeline.clients.hull import HullClient
from pipeline.domain.kinds import Entity, Role
from pipeline.operations.call import Call
from tests.deliveries import deliver, listen, notify
from tests.journeys.people import age, fill
from tests.prepared import prepared
from tests.world import World

NO_EVENTS: list[Any] = []


@prepared
def five_persons(world: World) -> None:
    world.change_settings(support_user_deletion=True, support_account_deletion=True)
    fill(world, persons=5, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)


@pytest.fixture
def told(world: World) -> list[dict[str, Any]]:
    """Five Persons that Hull knows, deletions wanted there, and a list that fills with what Pipedrive says from here on."""
    five_persons(world)
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
    held = "SELECT pipedrive_id FROM identifiers WHERE role = 'holder' AND value = :v"
    return [row.pipedrive_id for row in world.rows(held, v=value)]


def settled(world: World) -> bool:
    """Nothing is under way, and nothing has failed. What fell into one second by chance is looked at again, which is nothing."""
    return not world.rows("SELECT 1 FROM changes WHERE cause <> 'same_second'") and not world.rows(
        "SELECT 1 FROM failures WHERE state = 'open'"
    )


def wait_for_lists(world: World) -> None:
    """A list may show for a while what is deleted, so within minutes it is asked again."""
    for _ in range(7):
        world.later()
        world.work()


def resolve(world: World) -> None:
    """Learn the ids that Hull gave, as beat would."""
    world.change_rows("UPDATE id_mappings SET resolve_at = now() WHERE resolve_at IS NOT NULL")
    world.module("sync.changes.hull_ids").resolve(world.connector_key)
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
    wait_for_lists(world)

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


def test_what_a_deleted_person_held_stays_its_own_within_one_batch_too(world: World, told: list[Any]) -> None:
    world.company.delete_person(3)
    world.company.edit_person(4, emails=[{"value": "p3@example.com", "primary": True}])
    deliver(world, *told)

    world.work()

    assert holders(world, "p3@example.com") == [3]
    assert user(world, 4)["id"] != user(world, 3)["id"]
    assert (user(world, 3)["email"], user(world, 4)["pipedrive/email"]) == ("p3@example.com", "p3@example.com")


def test_a_person_made_anew_with_the_old_email_is_not_marked_as_deleted(world: World, told: list[Any]) -> None:
    """Once the old one's e-mail is released, Hull finds the old User by it, mark and all."""
    resolve(world)
    world.company.delete_person(3)
    deliver(world, *told)
    world.work()
    world.company.create_person(name="Again", emails=[{"value": "p3@example.com", "primary": True}])
    deliver(world, told[-1])
    world.work()
    with transaction() as session:
        world.module("sync.incoming.deletions").release(session, world.connector_key, Entity.PERSON, 3)
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
    from pipeline.sync.incoming import deletions  # noqa: PLC0415 - Celery reads its settings when it is imported

    world.company.delete_person(3)
    deliver(world, *told)
    with monkeypatch.context() as patch:
        patch.setattr(deletions, "_write_down", lambda *_: 1 / 0)
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


RETURNS = ["by webhook", "by a fetch", "by an incremental fetch"]


@pytest.mark.parametrize("way", RETURNS)
def test_a_restored_person_is_marked_no_more(world: World, told: list[Any], way: str) -> None:
    world.company.delete_person(3)
    deliver(world, *told)
    world.work()
    world.company.undelete("person", 3)

    if way == "by webhook":
        deliver(world, told[-1])
        world.work()
    else:
        world.fetch(Entity.PERSON, since=world.run(1).started_at if "incremental" in way else None)
        wait_for_lists(world)

    assert (user(world, 3)["pipedrive/id"], user(world, 3).get("pipedrive/deleted_at")) == (3, None)
    assert (mapping(world, 3).state, mapping(world, 3).deleted_at) == ("full", None)
    assert holders(world, "p3@example.com") == [3]
    assert settled(world)


def test_a_page_read_before_the_deletion_does_not_bring_it_back(world: World, told: list[Any]) -> None:
    """The page is on its way to Hull while the webhook is carried over; the walk ends without having noticed."""
    world.start(Entity.PERSON)
    world.step(*(world.due() or pytest.fail("nothing is due")))
    held = world.rows("SELECT id FROM batches WHERE state IN ('ready', 'waiting') AND stage <> 'extract'")
    world.change_rows(
        "UPDATE batches SET due_at = now() + interval '1 hour' WHERE run_id IS NOT NULL AND state = 'ready'"
    )
    world.company.delete_person(3)
    deliver(world, *told)
    world.work()
    first = mapping(world, 3).state

    world.later()
    world.work()

    assert held
    assert first == "deleted"
    assert (mapping(world, 3).state, user(world, 3).get("pipedrive/id")) == ("deleted", None)
    assert settled(world)


def test_a_page_that_reaches_hull_after_the_deletion_is_taken_back(
    world: World, told: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load had looked up the record before it departed, and posts afterwards."""
    real, once = HullClient.post_batches, []

    def delete_first(self: Any, *args: Any, **options: Any) -> Any:
        if not once:
            once.append(1)
            world.company.delete_person(3)
            deliver(world, *told)
            work_live(world)
        return real(self, *args, **options)

    monkeypatch.setattr(HullClient, "post_batches", delete_first)
    world.fetch(Entity.PERSON)

    assert (mapping(world, 3).state, user(world, 3).get("pipedrive/id")) == ("deleted", None)
    assert user(world, 3)["pipedrive/deleted_at"] is not None
    assert [event[1] for event in since_then(world)] == ["deleted"]
    assert settled(world)


def work_live(world: World) -> None:
    """Carry over what webhooks told, and nothing of the fetch that is under way."""
    world.module("sync.changes.dispatch").dispatch_changes()
    for stage in ("extract", "transform", "load"):
        (batch,) = world.rows("SELECT id FROM batches WHERE queue = 'live' AND state = 'ready'")
        world.step(batch.id, "incoming", stage)


def merge(world: World, loser: int, survivor: int, entity: Any = "person") -> None:
    assert world.company.merge(entity, loser, survivor) is not None


TOLD_BY = [[0, 1], [1, 0], [0], [1]]
"""Which of the two webhooks of a merge arrive, and in which order: the loser's delete, the survivor's change."""


@pytest.mark.parametrize("which", TOLD_BY, ids=["both", "turned round", "delete alone", "change alone"])
def test_merged_persons_are_one_user(world: World, told: list[Any], which: list[int]) -> None:
    merge(world, 3, 4)
    for number in which:
        deliver(world, told[number])
        world.work()

    assert user(world, 3)["id"] == user(world, 4)["id"]
    assert (user(world, 4)["pipedrive/id"], user(world, 4)["pipedrive/name"]) == (4, "Person 4")
    assert user(world, 4).get("pipedrive/deleted_at") is None
    assert tuple(mapping(world, 3))[:2] == ("merged", 4)
    assert mapping(world, 4).state == "full"
    assert [event[1:] for event in since_then(world) if event[1]] == [("merged", "webhook", 3)]
    assert settled(world)


def test_a_merge_happens_in_hull_whether_or_not_deletions_are_wanted(world: World, told: list[Any]) -> None:
    world.change_settings(support_user_deletion=False)
    merge(world, 3, 4)
    deliver(world, *told)

    world.work()

    assert user(world, 3)["id"] == user(world, 4)["id"]


def test_the_survivor_takes_over_what_the_other_one_held(world: World, told: list[Any]) -> None:
    world.company.edit_person(4, emails=[])
    deliver(world, *told)
    world.work()
    merge(world, 3, 4)

    deliver(world, *told[1:])
    world.work()

    assert holders(world, "p3@example.com") == [4]
    assert (user(world, 4)["email"], world.company.record("person", 4)["emails"][0]["value"]) == (  # type: ignore[index]
        "p3@example.com",
        "p3@example.com",
    )


def test_what_the_other_one_alone_had_and_pipedrive_dropped_is_cleared(world: World, told: list[Any]) -> None:
    world.company.edit_person(3, phones=[{"value": "+1 555", "primary": True}])
    deliver(world, *told)
    world.work()
    merge(world, 3, 4)
    world.company.edit_person(4, phones=[])

    deliver(world, *told[1:])
    world.work()

    assert user(world, 4).get("pipedrive/phone") is None
    assert settled(world)


def test_a_chain_of_merges_ends_in_one_user(world: World, told: list[Any]) -> None:
    merge(world, 1, 2)
    merge(world, 2, 3)
    deliver(world, *told)

    world.work()

    assert len({user(world, number)["id"] for number in (1, 2, 3)}) == 1
    assert user(world, 3)["pipedrive/id"] == 3
    assert states(world) == {1: "merged", 2: "merged", 3: "full", 4: "full", 5: "full"}
    assert settled(world)


def test_a_survivor_that_is_deleted_later_is_marked(world: World, told: list[Any]) -> None:
    merge(world, 3, 4)
    world.company.delete_person(4)
    deliver(world, *told)

    world.work()

    assert user(world, 3)["id"] == user(world, 4)["id"]
    assert user(world, 4).get("pipedrive/id") is None
    assert user(world, 4)["pipedrive/deleted_at"] is not None
    assert settled(world)


def test_a_merge_told_after_the_deletion_was_noticed_still_joins(world: World, told: list[Any]) -> None:
    merge(world, 3, 4)
    world.fetch(Entity.PERSON)
    noticed = mapping(world, 3).state
    deliver(world, *told)

    world.work()

    assert (noticed, mapping(world, 3).state) == ("deleted", "merged")
    assert user(world, 3)["id"] == user(world, 4)["id"]
    assert (user(world, 4)["pipedrive/id"], user(world, 4).get("pipedrive/deleted_at")) == (4, None)
    assert settled(world)


def test_two_with_external_ids_of_their_own_stay_two(world: World) -> None:
    code = next(field.code for field in world.company.custom_fields("person") if field.name == "Customer number")
    world.change_settings(support_user_deletion=True, user_claims=[{"hull": "external_id", "service": code}])
    for number in (1, 2):
        world.company.create_person(name=f"Person {number}", custom_fields={code: f"C-{number}"})
    world.fetch(Entity.PERSON)
    said = listen(world)
    merge(world, 1, 2)
    deliver(world, *said)

    world.work()

    assert user(world, 1)["id"] != user(world, 2)["id"]
    assert user(world, 1)["pipedrive/deleted_at"] is not None
    assert tuple(mapping(world, 1))[:2] == ("merged", 2)
    assert ("incoming.user.success", "merge_not_joined", "webhook", 1) in since_then(world)


def test_a_merge_of_two_never_seen_brings_the_survivor_alone(world: World, told: list[Any]) -> None:
    for name in ("Brief", "Lasting"):
        world.company.create_person(name=name)
    merge(world, 6, 7)
    deliver(world, *told[2:])

    world.work()

    assert 6 not in states(world)
    assert world.users()[7]["pipedrive/name"] == "Lasting"
    assert settled(world)


def test_a_user_known_under_the_other_ones_hull_id_is_sent_to_the_survivor(world: World, told: list[Any]) -> None:
    world.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    resolve(world)
    before = user(world, 3)
    merge(world, 3, 4)
    deliver(world, *told)
    world.work()
    resolve(world)

    report = {"id": before["id"], "email": None, "nickname": "Sent", "anonymous_ids": []}
    notify(world, {"user": report, "segments": [], "changes": {}})
    world.work()

    assert world.company.record("person", 4)["name"] == "Sent"  # type: ignore[index]
    assert set(states(world).values()) == {"full", "merged"}


def test_history_is_that_of_all_who_became_one(world: World, told: list[Any]) -> None:
    from pipeline.operations.events import EventsAsked, list_events  # noqa: PLC0415 - named beside what it proves

    admin = Call(caller=Present(id=0, name="ana", role=Role.ADMIN))
    merge(world, 1, 2)
    merge(world, 2, 3)
    deliver(world, *told)
    world.work()

    of_survivor, of_loser = (
        list_events(admin, EventsAsked(connector="acme", record=each)).events for each in ("3", "1")
    )
    assert {event.pipedrive_id for event in of_survivor} == {1, 2, 3}
    assert {event.pipedrive_id for event in of_loser} == {1}


def make_organizations(world: World) -> list[Any]:
    """Two Organizations with a Person each, all known to Hull."""
    for number in (1, 2):
        world.company.create_organization(name=f"Org {number}", website=f"https://org{number}.example.com")
        world.company.create_person(name=f"Person {number}", org_id=number)
    for entity in (Entity.ORGANIZATION, Entity.PERSON):
        world.fetch(entity)
    return listen(world)


def test_merged_organizations_are_one_account_with_all_their_users(world: World) -> None:
    said = make_organizations(world)
    merge(world, 1, 2, "organization")
    deliver(world, *said)

    world.work()

    assert user(world, 1, "account")["id"] == user(world, 2, "account")["id"]
    assert user(world, 2, "account")["pipedrive/id"] == 2
    assert {user(world, number)["account_id"] for number in (1, 2)} == {user(world, 2, "account")["id"]}
    assert states(world, "organization") == {1: "merged", 2: "full"}
    assert settled(world)


def test_a_person_whose_move_nobody_tells_is_linked_to_the_survivor(world: World) -> None:
    said = make_organizations(world)
    merge(world, 1, 2, "organization")
    deliver(world, *[webhook for webhook in said if webhook["meta"]["entity"] == "organization"])

    world.work()

    cause = "SELECT cause FROM sync_events WHERE entity = 'person' AND pipedrive_id = 1 ORDER BY id DESC LIMIT 1"
    assert [tuple(row) for row in world.rows(cause)] == [("merged",)]
    assert user(world, 1)["account_id"] == user(world, 2, "account")["id"]
    assert settled(world)


def test_a_person_that_still_names_a_deleted_organization_does_not_bring_its_account_back(world: World) -> None:
    world.change_settings(support_account_deletion=True)
    world.company.behaviour.unlink_persons = False
    fill(world, persons=1, organizations=1)
    for entity in Entity:
        world.fetch(entity)
    said = listen(world)
    world.company.delete_organization(1)
    deliver(world, *said)
    world.work()
    said.clear()

    world.company.edit_person(1, name="Still there")
    deliver(world, *said)
    world.work()

    assert user(world, 1)["pipedrive/name"] == "Still there"
    assert user(world, 1, "account").get("pipedrive/id") is None
    assert user(world, 1)["account_id"] == user(world, 1, "account")["id"]


def test_a_link_that_is_late_does_not_take_the_mark_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Person's load had asked whether its Organization lives; it posts once that has departed."""
    world.change_settings(support_account_deletion=True)
    world.company.behaviour.unlink_persons = False
    fill(world, persons=1, organizations=1)
    for entity in Entity:
        world.fetch(entity)
    said = listen(world)
    world.company.edit_person(1, name="Late")
    deliver(world, *said)
    real, once = HullClient.post_batches, []

    def delete_first(self: Any, *args: Any, **options: Any) -> Any:
        if not once:
            once.append(1)
            world.company.delete_organization(1)
            deliver(world, said[-1])
            work_live(world)
        return real(self, *args, **options)

    monkeypatch.setattr(HullClient, "post_batches", delete_first)
    world.work()

    assert user(world, 1)["pipedrive/name"] == "Late"
    assert user(world, 1, "account").get("pipedrive/id") is None
    assert user(world, 1, "account")["pipedrive/deleted_at"] is not None


def test_a_fetch_that_lists_nothing_at_all_is_no_proof(world: World, told: list[Any]) -> None:
    """The lists of the fetch and the first reading by ids are wrongly empty; all five live."""
    world.pipedrive.faults.add("/persons$", "rewrite", count=None, find=r'"data":\[.*\]', put='"data":[]')
    world.fetch(Entity.PERSON)
    once = set(states(world).values())
    world.pipedrive.faults.rules.clear()

    world.later()
    world.work()

    assert (once, set(states(world).values()), settled(world)) == ({"full"}, {"full"}, True)


def test_a_user_whose_merged_person_is_gone_too_gets_a_new_one(world: World, told: list[Any]) -> None:
    hull_id = user(world, 3)["id"]
    world.module("sync.changes.hull_ids").resolve(world.connector_key)
    merge(world, 3, 4)
    deliver(world, *told)
    world.work()
    told.clear()
    world.company.delete_person(4)
    deliver(world, *told)
    world.work()
    world.change_settings(
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}], ignore_deleted_users=False
    )
    world.pipedrive.ledger.mutations.clear()

    notify(
        world,
        {"user": {"id": hull_id, "nickname": "Ann"}, "segments": [], "changes": {}},
        channel="user:update",
        key="n",
    )
    world.work()

    assert [each.method for each in world.pipedrive.ledger.mutations] == ["POST"]
    assert world.rows("SELECT 1 FROM changes") == []
