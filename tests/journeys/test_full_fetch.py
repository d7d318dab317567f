"""A full fetch: every Person and Organization reaches Hull, in any order and whatever happens during the fetch."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import text

from db import run as run_rows
from db.connector import remove_rows_of
from db.session import transaction
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.budget import fetch_cost
from pipeline.domain.kinds import Entity
from pipeline.operations.runs import estimate_fetch
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, hull_names, pipedrive_names
from tests.system import SyncSystem, make_system


@pytest.mark.guide(
    "Configure your Pipedrive Connector", "The connector keeps Persons and Users, Organizations and Accounts the same."
)
@pytest.mark.guide("Incoming Accounts", "A fetch reads every Organization; there is no filter here either.")
@pytest.mark.guide("Incoming Users", "A fetch reads every Person; there is no filter.")
@pytest.mark.guide("Incoming Users", "A User is linked to the Account of its Person's Organization.")
@pytest.mark.defect(2, "A fetched Organization brought no mapped attribute to its Account.")
@pytest.mark.parametrize("first", [Entity.PERSON, Entity.ORGANIZATION])
def test_brings_every_record_in_either_order(system: SyncSystem, first: Entity) -> None:
    system.change_settings(
        synchronized_user_segments=["vip"], synchronized_account_segments=["vip"]
    )  # for outgoing only
    create_records(system)

    runs = [system.fetch(entity) for entity in (first, *[each for each in Entity if each is not first])]

    assert [run.state for run in runs] == ["done", "done"]
    users, accounts = system.users(), system.accounts()
    assert sorted(users) == list(range(1, 121))
    assert sorted(accounts) == list(range(1, 41))
    assert accounts[7]["pipedrive/name"] == "Org 7"
    linked = {person_id: user.get("account_id") for person_id, user in users.items()}
    assert linked[1] == accounts[2]["id"]
    assert linked[5] is None


@pytest.mark.guide("Incoming Accounts", "An Organization that is deleted in Pipedrive is not sent to Hull.")
@pytest.mark.guide("Incoming Users", "A Person that is deleted in Pipedrive is not sent to Hull.")
@pytest.mark.parametrize("entity", Entity)
def test_leaves_out_deleted_records(system: SyncSystem, entity: Entity) -> None:
    for name in "abc":
        system.company.create(entity.value, {"name": name})
    system.company.delete(entity.value, 2)

    system.fetch(entity)

    assert sorted(each["pipedrive/id"] for each in system.hull_records(entity.hull)) == [1, 3]


@pytest.mark.guide(
    "Incoming Accounts",
    "Incoming account attributes: the Organization fields that are mapped here become attributes of the Account,"
    " and no others.",
)
@pytest.mark.guide(
    "Incoming Users",
    "Incoming user attributes: the Person fields that are mapped here become attributes of the User, and no others.",
)
@pytest.mark.defect(2, "A fetched Organization brought no mapped attribute to its Account.")
@pytest.mark.parametrize("entity", Entity)
def test_delivers_only_what_is_mapped(system: SyncSystem, entity: Entity) -> None:
    system.change_settings(**{f"incoming_{entity.hull}_attributes": [{"hull": "crm_name", "service": "name"}]})
    system.company.create(entity.value, {"name": "Ada", "visible_to": 3})

    system.fetch(entity)

    assert [body for _, _, body in system.hull.received] == [{"crm_name": "Ada", "pipedrive/id": 1}]


def test_leaves_the_same_id_map_in_either_order(database: str) -> None:
    left = []
    for order in permutations(Entity):
        with make_system() as system:
            create_records(system, persons=30, organizations=8)
            for entity in Entity:
                age_records(system, entity)
            for entity in order:
                system.fetch(entity)
            left.append(
                (
                    system.rows(
                        "SELECT entity, pipedrive_id, state, digest FROM id_mappings ORDER BY entity, pipedrive_id"
                    ),
                    system.rows(
                        "SELECT entity, kind, value, role, pipedrive_id FROM identifiers ORDER BY 1, 2, 3, 4, 5"
                    ),
                    _without_ids(system),
                )
            )
            with transaction() as session:
                remove_rows_of(session, system.connector_key)

    assert left[0] == left[1]
    assert len(left[0][0]) == 38


def _without_ids(system: SyncSystem) -> list[Any]:
    accounts = {account["id"]: pipedrive_id for pipedrive_id, account in system.accounts().items()}
    dull = {"id", "created_at", "updated_at", "account_id", "account", "indexed_at"}
    shown = []
    for records in (system.users(), system.accounts()):
        for pipedrive_id, record in sorted(records.items()):
            facts = {name: value for name, value in record.items() if name not in dull and "time" not in name}
            shown.append((pipedrive_id, accounts.get(record.get("account_id")), facts))
    return shown


def test_walks_from_both_ends_and_reads_no_page_twice(system: SyncSystem) -> None:
    create_records(system, persons=230, organizations=0)

    run = system.fetch(Entity.PERSON)

    assert (run.state, run.new) == ("done", 230)
    caught_up = 5  # all 230 are younger than the overlap of the catch-up walk
    assert run.pages <= 230 // PAGE + 2 + caught_up


@pytest.mark.defect(1, "The fetch moved on by one record instead of one page, and sent everybody a hundred times.")
@pytest.mark.parametrize("persons", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE, 3 * PAGE + 1])
def test_brings_each_record_once_whatever_the_number_of_pages(system: SyncSystem, persons: int) -> None:
    create_records(system, persons=persons, organizations=0)
    age_records(system)

    run = system.fetch(Entity.PERSON)

    assert (run.state, run.new, run.changed, run.same, run.failed) == ("done", persons, 0, 0, 0)
    assert sorted(system.users()) == list(range(1, persons + 1))
    assert system.hull.received.count == persons
    assert run.pages <= -(-persons // PAGE) + 3


def test_finishes_when_only_one_walk_finds_anything(system: SyncSystem) -> None:
    create_records(system, persons=PAGE + 1, organizations=0)
    age_records(system)
    run_id = system.start(Entity.PERSON)
    system.change_rows(
        "UPDATE batches SET due_at = now() + interval '1 hour'"
        " WHERE slice_id = (SELECT id FROM slices WHERE walk = 'descending')"
    )

    system.work()
    begun = system.run(run_id)
    walks = {row.walk: row.pages for row in system.rows("SELECT walk, pages FROM slices")}
    system.end_pauses()
    system.work()

    run = system.run(begun.id)
    assert (begun.state, begun.new, walks) == ("running", PAGE + 1, {"ascending": 2, "descending": 0})
    assert (run.state, run.new, run.same) == ("done", PAGE + 1, 0)
    assert system.hull.received.count == PAGE + 1


def test_two_walks_that_read_the_same_page_at_one_moment_count_its_records_once(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    real, turns = PipedriveClient.list_page, itertools.count()
    run_id = system.start(Entity.PERSON)
    one, another = (row.id for row in system.rows("SELECT id FROM batches ORDER BY id"))

    def read(*args: Any, **options: Any) -> Any:
        page = real(*args, **options)
        if next(turns) == 0:  # while the other walk reads its page
            system.run_batch_stage(another, "incoming", "extract")
        return page

    monkeypatch.setattr(PipedriveClient, "list_page", read)
    system.run_batch_stage(one, "incoming", "extract")
    system.work()

    run = system.run(run_id)
    assert (run.state, run.read, run.new, run.same) == ("done", 5, 5, 0)
    assert [row.event for row in system.rows("SELECT event FROM sync_events WHERE pipedrive_id IS NOT NULL")] == [
        "incoming.user.success"
    ] * 5


def test_a_walk_that_waits_for_the_lock_sees_what_the_opposite_walk_saved_before(system: SyncSystem) -> None:
    """Otherwise both walks send the whole page of a small company to Hull."""
    run_id = system.start(Entity.PERSON)
    with transaction() as session:
        first, second = (part.id for part in run_rows.slices_of(session, run_id))
    with ThreadPoolExecutor(1) as pool, transaction() as session:
        run_rows.lock_walk(session, run_id, first)
        run_rows.move_slice(session, first, None, 7, records=7, done=True)
        session.execute(text("UPDATE slices SET state = 'done' WHERE run_id = :run_id"), {"run_id": run_id})
        session.flush()
        waiting = pool.submit(_lock_walk, run_id, second)
        while not system.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'FROM runs'"):
            assert not waiting.done()
        session.commit()
        walk = waiting.result(10)

    assert (walk.state, walk.other_end) == ("done", 7)


def _lock_walk(run_id: int, slice_id: int) -> run_rows.LockedWalk:
    with transaction() as session:
        return run_rows.lock_walk(session, run_id, slice_id)


@pytest.mark.parametrize("persons", [0, 1, PAGE - 1, PAGE, PAGE + 1, PAGE + PAGE // 2, 2 * PAGE])
@pytest.mark.parametrize("deletes", [False, True])
def test_reads_as_many_pages_as_estimated_and_each_record_once(
    system: SyncSystem, persons: int, *, deletes: bool
) -> None:
    """The sizes are those around one page and two. With `deletes`, every third id is missing, in the middle and at the ends."""
    create_records(system, persons=persons * 3 // 2 + 2 if deletes else persons, organizations=0)
    if deletes:
        for number in range(1, persons * 3 // 2 + 3, 3):
            system.company.delete_person(number)
        for pipedrive_id in list(pipedrive_names(system))[persons:]:
            system.company.delete_person(pipedrive_id)
    age_records(system)
    expected = sorted(pipedrive_names(system))
    assert len(expected) == persons

    first = system.fetch(Entity.PERSON)
    sent_first = system.hull.received.count
    with transaction() as session:
        estimate = estimate_fetch(session, system.connector_key, Entity.PERSON)
    again = system.fetch(Entity.PERSON)

    assert sorted(system.users()) == expected
    assert (first.read, first.new, first.same, sent_first) == (persons, persons, 0, persons)
    assert (again.read, again.new, again.same, system.hull.received.count) == (persons, 0, persons, 2 * persons)
    gap = int(deletes and persons == 2 * PAGE)  # ids are missing between two full pages: both walks read on
    assert first.pages <= fetch_cost(persons, PAGE).pages + gap
    if persons:
        assert (estimate.pages, estimate.tokens) == (again.pages - gap, again.tokens - 10 * gap)


def test_a_fetch_that_expects_one_page_finds_many(system: SyncSystem) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    create_records(system, persons=6 * PAGE, organizations=0)
    age_records(system)

    run_id = system.start(Entity.PERSON)
    walks = [row.walk for row in system.rows("SELECT walk FROM slices WHERE run_id = :id", id=run_id)]
    system.work()
    run = system.run(run_id)

    assert walks == ["ascending"]
    assert (run.state, run.read, run.new, run.same) == ("done", 6 * PAGE + 5, 6 * PAGE, 5)
    pages = {row.walk: row.pages for row in system.rows("SELECT walk, pages FROM slices WHERE run_id = :id", id=run_id)}
    assert min(pages["ascending"], pages["descending"]) >= 3


def test_counts_what_it_did(system: SyncSystem) -> None:
    create_records(system, persons=120, organizations=10)
    age_records(system)
    system.company.put_raw("person", {"id": 500, "name": "No time", "update_time": None, "add_time": None})
    system.pipedrive.ledger.requests.clear()

    first = system.fetch(Entity.PERSON)
    system.company.edit_person(7, name="Seventh")
    second = system.fetch(Entity.PERSON, changed_only=True)

    assert (first.new, first.changed, first.same, first.skipped) == (120, 0, 0, 0)
    assert first.shells == 8  # nobody belongs to two of the ten
    assert first.links == 96
    assert first.messages == 120 + 96
    assert first.failed >= 1
    lists = system.pipedrive.ledger.requests["list"]
    assert first.pages + second.pages == lists
    assert first.tokens + second.tokens == 10 * lists + 20  # each fetch reads the field definitions once
    assert (second.new, second.changed) == (0, 1)
    assert second.same >= 119
    assert second.messages == 2  # the User and its link


def test_saves_the_cursor_with_the_page(system: SyncSystem) -> None:
    create_records(system, persons=3 * PAGE, organizations=0)
    system.start(Entity.PERSON)
    before = system.rows("SELECT walk, cursor, frontier, pages FROM slices ORDER BY walk")
    system.run_batch_stage(*system.next_batch())  # type: ignore[misc]

    after = {row.walk: row for row in system.rows("SELECT walk, cursor, frontier, pages FROM slices ORDER BY walk")}
    assert [tuple(row)[1:] for row in before] == [(None, None, 0)] * 2
    assert after["ascending"].frontier == PAGE
    assert after["ascending"].cursor
    assert after["ascending"].pages == 1
    stages = system.rows("SELECT stage, state, records FROM batches WHERE extracted IS NOT NULL")
    assert [tuple(row) for row in stages] == [("transform", "ready", PAGE)]


@pytest.mark.parametrize("moment", range(12))
def test_misses_nothing_that_happens_during_the_walk(system: SyncSystem, moment: int) -> None:
    """An edit, an insert and a delete after any number of stages: Hull ends up with Pipedrive's state."""
    create_records(system, persons=3 * PAGE, organizations=0)
    age_records(system)
    system.start(Entity.PERSON)
    for _ in range(moment):
        if due := system.next_batch():
            system.run_batch_stage(*due)
    system.company.edit_person(2, name="Edited low")
    system.company.edit_person(3 * PAGE - 1, name="Edited high")
    system.company.create_person(name="Inserted")
    system.company.delete_person(3 * PAGE // 2)
    system.work()

    shown = hull_names(system)
    shown.pop(3 * PAGE // 2, None)  # its deletion is for a later check: it may have been carried over before
    assert shown == pipedrive_names(system)
    assert system.rows("SELECT DISTINCT state FROM runs") == [("done",)]


def test_ends_only_after_everything_was_carried_over(system: SyncSystem) -> None:
    create_records(system, persons=2 * PAGE, organizations=0)
    run_id = system.start(Entity.PERSON)
    while due := system.next_batch():
        system.run_batch_stage(*due)
        open_batches = system.rows("SELECT 1 FROM batches WHERE state IN ('waiting', 'ready', 'running')")
        assert bool(open_batches) == (system.run(run_id).state == "running")

    assert system.run(run_id).phase == "catch_up"
    assert system.rows("SELECT 1 FROM batches WHERE extracted IS NOT NULL OR transformed IS NOT NULL") == []


@pytest.mark.guide("Email as an identifier", "A Person can have several e-mails; the primary one is the User's.")
def test_takes_the_e_mail_marked_primary(system: SyncSystem) -> None:
    emails = [{"value": "Second@Example.com", "primary": False}, {"value": " First@Example.com", "primary": True}]
    system.company.put_raw(
        "person",
        {
            "id": 1,
            "name": "Ada",
            "emails": emails,
            "add_time": "2026-01-01T00:00:00Z",
            "update_time": "2026-01-01T00:00:00Z",
        },
    )

    system.fetch(Entity.PERSON)

    assert system.users()[1]["email"] == "first@example.com"


@pytest.mark.guide("I get empty Accounts", "without them, Hull receives only the Pipedrive id.")
def test_delivers_only_the_id_where_nothing_is_mapped(system: SyncSystem) -> None:
    system.change_settings(incoming_user_attributes=[], incoming_account_attributes=[])
    system.company.create_organization(name="Acme")
    system.company.create_person(name="Ada")

    for entity in Entity:
        system.fetch(entity)

    bodies = [body for _, _, body in system.hull.received]
    assert bodies == [{"pipedrive/id": 1}, {"pipedrive/id": 1}]


def test_refuses_a_second_run_of_its_kind(system: SyncSystem) -> None:
    first = system.start(Entity.PERSON)
    with pytest.raises(system.module("sync.runs.runs").RunInProgress) as refused:
        system.start(Entity.PERSON)
    system.start(Entity.ORGANIZATION)

    assert refused.value.run_id == first
    assert f"runs cancel CONNECTOR {first}" in str(refused.value)


def test_a_record_is_counted_once_however_often_a_fetch_reads_it(system: SyncSystem) -> None:
    """The catch-up reads whatever changed a minute before the fetch began, which is all of a young company."""
    create_records(system, persons=7, organizations=0)

    run = system.fetch(Entity.PERSON)
    again = system.fetch(Entity.PERSON)

    assert (run.read, run.new, run.changed, run.same) == (7, 7, 0, 0)
    assert (again.read, again.new, again.changed, again.same) == (7, 0, 0, 7)


def test_a_fetch_lasts_until_its_comparison_has_ended(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    create_records(system, persons=2, organizations=0)
    missing = system.module("sync.runs.missing_records")
    real, ended = missing.compare, []

    def compare(session: Any, run: Any) -> None:
        real(session, run)
        ended.append(session.execute(text("SELECT clock_timestamp()")).scalar_one())

    monkeypatch.setattr(missing, "compare", compare)

    run = system.fetch(Entity.PERSON)

    assert run.finished_at is not None
    assert run.finished_at >= ended[-1]
