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
from tests.journeys.pipedrive_records import age_records, create_records
from tests.prepared import prepared
from tests.system import SyncSystem

NO_EVENTS: list[Any] = []


@prepared
def five_persons(system: SyncSystem) -> None:
    system.change_settings(support_user_deletion=True, support_account_deletion=True)
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)


@pytest.fixture
def webhooks(system: SyncSystem) -> list[dict[str, Any]]:
    """Five Persons in Hull, which supports deletions; return the list of webhooks from now on."""
    five_persons(system)
    return listen(system)


def user(system: SyncSystem, pipedrive_id: int, kind: str = "user") -> dict[str, Any]:
    """The User that has this anonymous id, whatever its `pipedrive/id` is."""
    name = f"pipedrive:{pipedrive_id}"
    return next(each for each in system.hull_records(kind) if name in each["anonymous_ids"])


def mapping(system: SyncSystem, pipedrive_id: int, entity: str = "person") -> Any:
    (row,) = system.rows(
        "SELECT state, merged_into, absences, deleted_at, hull_id FROM id_mappings"
        " WHERE entity = :entity AND pipedrive_id = :id",
        entity=entity,
        id=pipedrive_id,
    )
    return row


def states(system: SyncSystem, entity: str = "person") -> dict[int, str]:
    rows = system.rows("SELECT pipedrive_id, state FROM id_mappings WHERE entity = :e", e=entity)
    return {row.pipedrive_id: row.state for row in rows}


def since_then(system: SyncSystem) -> list[Any]:
    """(event, reason, cause, Pipedrive id) of all that no fetch did."""
    query = "SELECT event, reason, cause, pipedrive_id FROM sync_events WHERE cause <> 'fetch' ORDER BY id"
    return [tuple(row) for row in system.rows(query)]


def holders(system: SyncSystem, value: str) -> list[int]:
    held = "SELECT pipedrive_id FROM identifiers WHERE role = 'holder' AND value = :v"
    return [row.pipedrive_id for row in system.rows(held, v=value)]


def is_finished(system: SyncSystem) -> bool:
    """Return whether no change is left, except rechecks of one second, and no failure is open."""
    return not system.rows("SELECT 1 FROM changes WHERE cause <> 'same_second'") and not system.rows(
        "SELECT 1 FROM failures WHERE state = 'open'"
    )


def wait_for_lists(system: SyncSystem) -> None:
    """A list may show for a while what is deleted, so within minutes it is asked again."""
    for _ in range(7):
        system.end_pauses()
        system.work()


def resolve(system: SyncSystem) -> None:
    """Learn the ids that Hull gave, as beat would."""
    system.change_rows("UPDATE id_mappings SET resolve_at = now() WHERE resolve_at IS NOT NULL")
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    system.work()


@pytest.mark.guide(
    "Incoming Users",
    "With Mark Users with a deleted Person on, the User of a deleted Person is marked: pipedrive/deleted_at has the "
    "time, and pipedrive/id is emptied.",
)
def test_a_deleted_person_is_marked_in_hull(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.delete_person(3)
    deliver(system, *webhooks)

    system.work()

    assert user(system, 3).get("pipedrive/id") is None
    assert user(system, 3)["pipedrive/deleted_at"] == webhooks[0]["meta"]["timestamp"][:19] + "Z"
    assert user(system, 3)["pipedrive/name"] == "Person 3"
    assert (mapping(system, 3).state, mapping(system, 4).state) == ("deleted", "full")
    assert since_then(system) == [("incoming.user.success", "deleted", "webhook", 3)]
    assert is_finished(system)


@pytest.mark.guide(
    "Incoming Accounts",
    "With Mark Accounts with a deleted Organization on, the Account of a deleted Organization is marked in the same way.",
)
def test_a_deleted_organization_is_marked_in_hull(system: SyncSystem) -> None:
    system.change_settings(support_account_deletion=True)
    system.company.create_organization(name="Acme", website="https://acme.example.com")
    system.fetch(Entity.ORGANIZATION)
    webhooks = listen(system)
    system.company.delete_organization(1)
    deliver(system, *webhooks)

    system.work()

    assert user(system, 1, "account").get("pipedrive/id") is None
    assert user(system, 1, "account")["pipedrive/deleted_at"] is not None
    assert mapping(system, 1, "organization").state == "deleted"


def test_without_support_hull_receives_nothing_and_the_log_has_the_reason(
    system: SyncSystem, webhooks: list[Any]
) -> None:
    system.change_settings(support_user_deletion=False)
    received = system.hull.received.count
    system.company.delete_person(3)
    deliver(system, *webhooks)

    system.work()

    assert system.hull.received.count == received
    assert user(system, 3)["pipedrive/id"] == 3
    assert mapping(system, 3).state == "deleted"
    assert since_then(system) == [("incoming.user.skip", "deletion_not_supported", "webhook", 3)]


def test_a_deletion_of_an_existing_person_is_not_believed(system: SyncSystem, webhooks: list[Any]) -> None:
    """Nothing signs a webhook, and none promises its order."""
    system.company.edit_person(3, name="Edited")
    webhooks[0]["meta"]["action"], webhooks[0]["data"] = "delete", None
    deliver(system, *webhooks)

    system.work()
    wait_for_lists(system)

    assert system.users()[3]["pipedrive/name"] == "Edited"
    assert user(system, 3).get("pipedrive/deleted_at") is None
    assert states(system) == dict.fromkeys(range(1, 6), "full")


def test_a_deletion_of_an_unknown_person_stores_nothing(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.create_person(name="Brief")
    system.company.delete_person(6)
    deliver(system, webhooks[-1])

    system.work()

    assert (since_then(system), 6 in states(system), is_finished(system)) == (NO_EVENTS, False, True)


def test_a_late_edit_does_not_bring_a_deleted_person_back(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    system.company.delete_person(3)
    deliver(system, webhooks[1])
    system.work()

    deliver(system, webhooks[0])
    system.work()

    assert user(system, 3)["pipedrive/deleted_at"] is not None
    assert mapping(system, 3).state == "deleted"
    assert is_finished(system)


def test_a_repeated_deletion_is_one_event(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.delete_person(3)
    deliver(system, *webhooks)
    system.work()
    received = system.hull.received.count
    webhooks[0]["meta"]["id"] = "another delivery of the same"

    deliver(system, *webhooks)
    system.work()

    assert system.hull.received.count == received
    assert [event[1] for event in since_then(system)] == ["deleted"]


def test_some_go_while_others_of_their_batch_are_carried_over(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(2, name="Edited")
    system.company.delete_person(3)
    deliver(system, *webhooks)

    system.work()

    assert system.users()[2]["pipedrive/name"] == "Edited"
    assert (user(system, 3).get("pipedrive/id"), mapping(system, 3).state) == (None, "deleted")


def test_what_a_deleted_person_held_stays_its_own_within_one_batch_too(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.delete_person(3)
    system.company.edit_person(4, emails=[{"value": "p3@example.com", "primary": True}])
    deliver(system, *webhooks)

    system.work()

    assert holders(system, "p3@example.com") == [3]
    assert user(system, 4)["id"] != user(system, 3)["id"]
    assert (user(system, 3)["email"], user(system, 4)["pipedrive/email"]) == ("p3@example.com", "p3@example.com")


def test_a_new_person_with_the_old_email_is_not_marked_as_deleted(system: SyncSystem, webhooks: list[Any]) -> None:
    """Once the old one's e-mail is released, Hull finds the old User by it, mark and all."""
    resolve(system)
    system.company.delete_person(3)
    deliver(system, *webhooks)
    system.work()
    system.company.create_person(name="Again", emails=[{"value": "p3@example.com", "primary": True}])
    deliver(system, webhooks[-1])
    system.work()
    with transaction() as session:
        system.module("sync.incoming.deletions").release(session, system.connector_key, Entity.PERSON, 3)
    system.work()

    resolve(system)

    assert user(system, 6)["id"] == user(system, 3)["id"]
    assert (user(system, 6)["pipedrive/id"], user(system, 6).get("pipedrive/deleted_at")) == (6, None)
    assert (mapping(system, 6).state, mapping(system, 6).hull_id) == ("full", user(system, 6)["id"])
    assert is_finished(system)


def test_absence_without_a_notice_is_believed_the_second_time(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    system.company.delete_person(3)
    webhooks[0]["data"]["update_time"] = "2020-01-01T00:00:00Z"
    deliver(system, webhooks[0])

    system.work()
    first = mapping(system, 3)
    system.end_pauses()
    system.work()

    assert (first.state, first.absences) == ("full", 1)
    assert (mapping(system, 3).state, user(system, 3).get("pipedrive/id")) == ("gone", None)
    assert since_then(system) == [("incoming.user.success", "gone", "webhook", 3)]
    assert is_finished(system)


def test_one_answer_with_the_record_counts_absences_from_the_beginning(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    webhooks[0]["data"]["update_time"] = "2020-01-01T00:00:00Z"
    system.change_rows("UPDATE id_mappings SET absences = 1 WHERE pipedrive_id = 3")
    deliver(system, webhooks[0])

    system.work()

    assert (mapping(system, 3).state, mapping(system, 3).absences) == ("full", 0)


def test_a_record_shown_as_deleted_is_deleted(system: SyncSystem, webhooks: list[Any]) -> None:
    """Whether deleted records are listed is not documented."""
    system.company.behaviour.list_deleted = True
    system.company.delete_person(3)
    deliver(system, *webhooks)

    system.work()

    assert (mapping(system, 3).state, user(system, 3).get("pipedrive/id")) == ("deleted", None)


def test_a_fetch_that_shows_a_record_as_deleted_marks_it(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.behaviour.list_deleted = True
    system.company.delete_person(3)

    system.fetch(Entity.PERSON)

    assert (mapping(system, 3).state, user(system, 3).get("pipedrive/id")) == ("deleted", None)
    assert is_finished(system)


def test_hull_receives_a_deletion_before_it_is_stored(
    system: SyncSystem, webhooks: list[Any], monkeypatch: Any
) -> None:
    from pipeline.sync.incoming import deletions  # noqa: PLC0415 - Celery reads its settings when it is imported

    system.company.delete_person(3)
    deliver(system, *webhooks)
    with monkeypatch.context() as patch:
        patch.setattr(deletions, "_store", lambda *_: 1 / 0)
        system.work()
    marked, state = user(system, 3).get("pipedrive/id"), mapping(system, 3).state

    system.change_rows("UPDATE batches SET state = 'ready', attempts = 0 WHERE state = 'failed'")
    system.work()

    assert (marked, state) == (None, "full")
    assert mapping(system, 3).state == "deleted"
    assert [event[1] for event in since_then(system)] == ["deleted"]


def test_a_deleted_person_is_not_written(system: SyncSystem, webhooks: list[Any]) -> None:
    system.change_settings(outgoing_user_attributes=[{"hull": "name", "service": "name"}])
    system.company.delete_person(3)
    deliver(system, *webhooks)
    system.work()
    report = {**user(system, 3), "name": "Sent"}

    notify(system, {"user": report, "segments": [], "changes": {}})
    system.work()

    assert since_then(system)[-1][:2] == ("outgoing.user.skip", "deleted_in_pipedrive")
    assert is_finished(system)


RETURNS = ["by webhook", "by a fetch", "by an incremental fetch"]


@pytest.mark.guide("Incoming Users", "When the Person is restored, the mark is removed.")
@pytest.mark.defect(23, "A record that was restored went on being marked as deleted.")
@pytest.mark.parametrize("way", RETURNS)
def test_a_restored_person_is_marked_no_more(system: SyncSystem, webhooks: list[Any], way: str) -> None:
    system.company.delete_person(3)
    deliver(system, *webhooks)
    system.work()
    system.company.undelete("person", 3)

    if way == "by webhook":
        deliver(system, webhooks[-1])
        system.work()
    else:
        system.fetch(Entity.PERSON, since=system.run(1).started_at if "incremental" in way else None)
        wait_for_lists(system)

    assert (user(system, 3)["pipedrive/id"], user(system, 3).get("pipedrive/deleted_at")) == (3, None)
    assert (mapping(system, 3).state, mapping(system, 3).deleted_at) == ("full", None)
    assert holders(system, "p3@example.com") == [3]
    assert is_finished(system)


def test_a_page_read_before_the_deletion_does_not_bring_it_back(system: SyncSystem, webhooks: list[Any]) -> None:
    """The page is on its way to Hull while the webhook is carried over; the walk ends without having noticed."""
    system.start(Entity.PERSON)
    system.run_batch_stage(*(system.next_batch() or pytest.fail("nothing is due")))
    held = system.rows("SELECT id FROM batches WHERE state IN ('ready', 'waiting') AND stage <> 'extract'")
    system.change_rows(
        "UPDATE batches SET due_at = now() + interval '1 hour' WHERE run_id IS NOT NULL AND state = 'ready'"
    )
    system.company.delete_person(3)
    deliver(system, *webhooks)
    system.work()
    first = mapping(system, 3).state

    system.end_pauses()
    system.work()

    assert held
    assert first == "deleted"
    assert (mapping(system, 3).state, user(system, 3).get("pipedrive/id")) == ("deleted", None)
    assert is_finished(system)


def test_a_page_that_reaches_hull_after_the_deletion_is_taken_back(
    system: SyncSystem, webhooks: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load had looked up the record before it was deleted, and posts afterwards."""
    real, once = HullClient.post_batches, []

    def delete_first(self: Any, *args: Any, **options: Any) -> Any:
        if not once:
            once.append(1)
            system.company.delete_person(3)
            deliver(system, *webhooks)
            work_live(system)
        return real(self, *args, **options)

    monkeypatch.setattr(HullClient, "post_batches", delete_first)
    system.fetch(Entity.PERSON)

    assert (mapping(system, 3).state, user(system, 3).get("pipedrive/id")) == ("deleted", None)
    assert user(system, 3)["pipedrive/deleted_at"] is not None
    assert [event[1] for event in since_then(system)] == ["deleted"]
    assert is_finished(system)


def work_live(system: SyncSystem) -> None:
    """Process the webhooks, and no page of the running fetch."""
    system.module("sync.changes.dispatch").dispatch_changes()
    for stage in ("extract", "transform", "load"):
        (batch,) = system.rows("SELECT id FROM batches WHERE queue = 'live' AND state = 'ready'")
        system.run_batch_stage(batch.id, "incoming", stage)


def merge(system: SyncSystem, loser: int, survivor: int, entity: Any = "person") -> None:
    assert system.company.merge(entity, loser, survivor) is not None


TOLD_BY = [[0, 1], [1, 0], [0], [1]]
"""The webhooks of a merge that arrive, in this order: the loser's deletion, the survivor's change."""


@pytest.mark.guide("Incoming Users", "Persons that are merged in Pipedrive become one User.")
@pytest.mark.defect(17, "A merge was taken for an update, and the id that was lost stayed where it was.")
@pytest.mark.parametrize("which", TOLD_BY, ids=["both", "turned round", "delete alone", "change alone"])
def test_merged_persons_are_one_user(system: SyncSystem, webhooks: list[Any], which: list[int]) -> None:
    merge(system, 3, 4)
    for number in which:
        deliver(system, webhooks[number])
        system.work()

    assert user(system, 3)["id"] == user(system, 4)["id"]
    assert (user(system, 4)["pipedrive/id"], user(system, 4)["pipedrive/name"]) == (4, "Person 4")
    assert user(system, 4).get("pipedrive/deleted_at") is None
    assert tuple(mapping(system, 3))[:2] == ("merged", 4)
    assert mapping(system, 4).state == "full"
    assert [event[1:] for event in since_then(system) if event[1]] == [("merged", "webhook", 3)]
    assert is_finished(system)


def test_a_merge_happens_in_hull_whether_or_not_deletions_are_wanted(system: SyncSystem, webhooks: list[Any]) -> None:
    system.change_settings(support_user_deletion=False)
    merge(system, 3, 4)
    deliver(system, *webhooks)

    system.work()

    assert user(system, 3)["id"] == user(system, 4)["id"]


def test_the_survivor_takes_over_what_the_other_one_held(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(4, emails=[])
    deliver(system, *webhooks)
    system.work()
    merge(system, 3, 4)

    deliver(system, *webhooks[1:])
    system.work()

    assert holders(system, "p3@example.com") == [4]
    assert (user(system, 4)["email"], system.company.record("person", 4)["emails"][0]["value"]) == (  # type: ignore[index]
        "p3@example.com",
        "p3@example.com",
    )


def test_what_the_other_one_alone_had_and_pipedrive_dropped_is_cleared(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, phones=[{"value": "+1 555", "primary": True}])
    deliver(system, *webhooks)
    system.work()
    merge(system, 3, 4)
    system.company.edit_person(4, phones=[])

    deliver(system, *webhooks[1:])
    system.work()

    assert user(system, 4).get("pipedrive/phone") is None
    assert is_finished(system)


def test_a_chain_of_merges_ends_in_one_user(system: SyncSystem, webhooks: list[Any]) -> None:
    merge(system, 1, 2)
    merge(system, 2, 3)
    deliver(system, *webhooks)

    system.work()

    assert len({user(system, number)["id"] for number in (1, 2, 3)}) == 1
    assert user(system, 3)["pipedrive/id"] == 3
    assert states(system) == {1: "merged", 2: "merged", 3: "full", 4: "full", 5: "full"}
    assert is_finished(system)


def test_a_survivor_that_is_deleted_later_is_marked(system: SyncSystem, webhooks: list[Any]) -> None:
    merge(system, 3, 4)
    system.company.delete_person(4)
    deliver(system, *webhooks)

    system.work()

    assert user(system, 3)["id"] == user(system, 4)["id"]
    assert user(system, 4).get("pipedrive/id") is None
    assert user(system, 4)["pipedrive/deleted_at"] is not None
    assert is_finished(system)


def test_a_merge_reported_after_the_deletion_still_joins(system: SyncSystem, webhooks: list[Any]) -> None:
    merge(system, 3, 4)
    system.fetch(Entity.PERSON)
    noticed = mapping(system, 3).state
    deliver(system, *webhooks)

    system.work()

    assert (noticed, mapping(system, 3).state) == ("deleted", "merged")
    assert user(system, 3)["id"] == user(system, 4)["id"]
    assert (user(system, 4)["pipedrive/id"], user(system, 4).get("pipedrive/deleted_at")) == (4, None)
    assert is_finished(system)


def test_two_with_external_ids_of_their_own_stay_two(system: SyncSystem) -> None:
    code = next(field.code for field in system.company.custom_fields("person") if field.name == "Customer number")
    system.change_settings(support_user_deletion=True, user_claims=[{"hull": "external_id", "service": code}])
    for number in (1, 2):
        system.company.create_person(name=f"Person {number}", custom_fields={code: f"C-{number}"})
    system.fetch(Entity.PERSON)
    webhooks = listen(system)
    merge(system, 1, 2)
    deliver(system, *webhooks)

    system.work()

    assert user(system, 1)["id"] != user(system, 2)["id"]
    assert user(system, 1)["pipedrive/deleted_at"] is not None
    assert tuple(mapping(system, 1))[:2] == ("merged", 2)
    assert ("incoming.user.success", "merge_not_applied", "webhook", 1) in since_then(system)


def test_a_merge_of_two_never_seen_brings_the_survivor_alone(system: SyncSystem, webhooks: list[Any]) -> None:
    for name in ("Brief", "Lasting"):
        system.company.create_person(name=name)
    merge(system, 6, 7)
    deliver(system, *webhooks[2:])

    system.work()

    assert 6 not in states(system)
    assert system.users()[7]["pipedrive/name"] == "Lasting"
    assert is_finished(system)


def test_a_user_known_under_the_other_ones_hull_id_is_sent_to_the_survivor(
    system: SyncSystem, webhooks: list[Any]
) -> None:
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    resolve(system)
    before = user(system, 3)
    merge(system, 3, 4)
    deliver(system, *webhooks)
    system.work()
    resolve(system)

    report = {"id": before["id"], "email": None, "nickname": "Sent", "anonymous_ids": []}
    notify(system, {"user": report, "segments": [], "changes": {}})
    system.work()

    assert system.company.record("person", 4)["name"] == "Sent"  # type: ignore[index]
    assert set(states(system).values()) == {"full", "merged"}


def test_history_is_that_of_all_who_became_one(system: SyncSystem, webhooks: list[Any]) -> None:
    from pipeline.operations.events import EventsRequest, list_events  # noqa: PLC0415 - named beside what it proves

    admin = Call(caller=Present(id=0, name="ana", role=Role.ADMIN))
    merge(system, 1, 2)
    merge(system, 2, 3)
    deliver(system, *webhooks)
    system.work()

    of_survivor, of_loser = (
        list_events(admin, EventsRequest(connector="acme", record=each)).events for each in ("3", "1")
    )
    assert {event.pipedrive_id for event in of_survivor} == {1, 2, 3}
    assert {event.pipedrive_id for event in of_loser} == {1}


def make_organizations(system: SyncSystem) -> list[Any]:
    """Two Organizations with a Person each, all known to Hull."""
    for number in (1, 2):
        system.company.create_organization(name=f"Org {number}", website=f"https://org{number}.example.com")
        system.company.create_person(name=f"Person {number}", org_id=number)
    for entity in (Entity.ORGANIZATION, Entity.PERSON):
        system.fetch(entity)
    return listen(system)


@pytest.mark.guide(
    "Incoming Accounts", "Organizations that are merged in Pipedrive become one Account, with the Users of both."
)
@pytest.mark.defect(17, "A merge was taken for an update, and the id that was lost stayed where it was.")
def test_merged_organizations_are_one_account_with_all_their_users(system: SyncSystem) -> None:
    webhooks = make_organizations(system)
    merge(system, 1, 2, "organization")
    deliver(system, *webhooks)

    system.work()

    assert user(system, 1, "account")["id"] == user(system, 2, "account")["id"]
    assert user(system, 2, "account")["pipedrive/id"] == 2
    assert {user(system, number)["account_id"] for number in (1, 2)} == {user(system, 2, "account")["id"]}
    assert states(system, "organization") == {1: "merged", 2: "full"}
    assert is_finished(system)


def test_a_person_that_moved_without_a_webhook_is_linked_to_the_survivor(system: SyncSystem) -> None:
    webhooks = make_organizations(system)
    merge(system, 1, 2, "organization")
    deliver(system, *[webhook for webhook in webhooks if webhook["meta"]["entity"] == "organization"])

    system.work()

    cause = "SELECT cause FROM sync_events WHERE entity = 'person' AND pipedrive_id = 1 ORDER BY id DESC LIMIT 1"
    assert [tuple(row) for row in system.rows(cause)] == [("merged",)]
    assert user(system, 1)["account_id"] == user(system, 2, "account")["id"]
    assert is_finished(system)


def test_a_person_that_still_names_a_deleted_organization_does_not_bring_its_account_back(system: SyncSystem) -> None:
    system.change_settings(support_account_deletion=True)
    system.company.behaviour.unlink_persons = False
    create_records(system, persons=1, organizations=1)
    for entity in Entity:
        system.fetch(entity)
    webhooks = listen(system)
    system.company.delete_organization(1)
    deliver(system, *webhooks)
    system.work()
    webhooks.clear()

    system.company.edit_person(1, name="Still there")
    deliver(system, *webhooks)
    system.work()

    assert user(system, 1)["pipedrive/name"] == "Still there"
    assert user(system, 1, "account").get("pipedrive/id") is None
    assert user(system, 1)["account_id"] == user(system, 1, "account")["id"]


def test_a_link_that_is_late_does_not_take_the_mark_back(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Person's load had asked whether its Organization lives; it posts after that was deleted."""
    system.change_settings(support_account_deletion=True)
    system.company.behaviour.unlink_persons = False
    create_records(system, persons=1, organizations=1)
    for entity in Entity:
        system.fetch(entity)
    webhooks = listen(system)
    system.company.edit_person(1, name="Late")
    deliver(system, *webhooks)
    real, once = HullClient.post_batches, []

    def delete_first(self: Any, *args: Any, **options: Any) -> Any:
        if not once:
            once.append(1)
            system.company.delete_organization(1)
            deliver(system, webhooks[-1])
            work_live(system)
        return real(self, *args, **options)

    monkeypatch.setattr(HullClient, "post_batches", delete_first)
    system.work()

    assert user(system, 1)["pipedrive/name"] == "Late"
    assert user(system, 1, "account").get("pipedrive/id") is None
    assert user(system, 1, "account")["pipedrive/deleted_at"] is not None


def test_a_fetch_that_lists_nothing_at_all_is_no_proof(system: SyncSystem, webhooks: list[Any]) -> None:
    """The lists of the fetch and the first reading by ids are wrongly empty; all five live."""
    system.pipedrive.faults.add("/persons$", "rewrite", count=None, find=r'"data":\[.*\]', put='"data":[]')
    system.fetch(Entity.PERSON)
    once = set(states(system).values())
    system.pipedrive.faults.rules.clear()

    system.end_pauses()
    system.work()

    assert (once, set(states(system).values()), is_finished(system)) == ({"full"}, {"full"}, True)


def test_a_user_gets_a_new_person_when_the_survivor_is_deleted_too(system: SyncSystem, webhooks: list[Any]) -> None:
    hull_id = user(system, 3)["id"]
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    merge(system, 3, 4)
    deliver(system, *webhooks)
    system.work()
    webhooks.clear()
    system.company.delete_person(4)
    deliver(system, *webhooks)
    system.work()
    system.change_settings(
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}], ignore_deleted_users=False
    )
    system.pipedrive.ledger.mutations.clear()

    notify(
        system,
        {"user": {"id": hull_id, "nickname": "Ann"}, "segments": [], "changes": {}},
        channel="user:update",
        key="n",
    )
    system.work()

    assert [each.method for each in system.pipedrive.ledger.mutations] == ["POST"]
    assert system.rows("SELECT 1 FROM changes") == []
