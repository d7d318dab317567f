"""A full fetch: every Person and Organization ends up in Hull, whatever the order and whatever happens meanwhile."""

from __future__ import annotations

import itertools
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import text

from db.connector import remove_rows_of
from db.session import transaction
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from tests.journeys.people import PAGE, age, fill, in_pipedrive, names
from tests.world import World, make_world


@pytest.mark.parametrize("first", [Entity.PERSON, Entity.ORGANIZATION])
def test_brings_every_record_in_either_order(world: World, first: Entity) -> None:
    fill(world)

    runs = [world.fetch(entity) for entity in (first, *[each for each in Entity if each is not first])]

    assert [run.state for run in runs] == ["done", "done"]
    users, accounts = world.users(), world.accounts()
    assert sorted(users) == list(range(1, 121))
    assert sorted(accounts) == list(range(1, 41))
    assert accounts[7]["pipedrive/name"] == "Org 7"
    linked = {person_id: user.get("account_id") for person_id, user in users.items()}
    assert linked[1] == accounts[2]["id"]
    assert linked[5] is None


def test_leaves_the_same_id_map_in_either_order(database: str) -> None:
    left = []
    for order in permutations(Entity):
        with make_world() as world:
            fill(world, persons=30, organizations=8)
            for entity in Entity:
                age(world, entity)
            for entity in order:
                world.fetch(entity)
            left.append(
                (
                    world.rows(
                        "SELECT entity, pipedrive_id, state, digest FROM id_mappings ORDER BY entity, pipedrive_id"
                    ),
                    world.rows(
                        "SELECT entity, kind, value, role, pipedrive_id FROM identifiers ORDER BY 1, 2, 3, 4, 5"
                    ),
                    _without_ids(world),
                )
            )
            with transaction() as session:
                remove_rows_of(session, world.connector_key)

    assert left[0] == left[1]
    assert len(left[0][0]) == 38


def _without_ids(world: World) -> list[Any]:
    accounts = {account["id"]: pipedrive_id for pipedrive_id, account in world.accounts().items()}
    dull = {"id", "created_at", "updated_at", "account_id", "account", "indexed_at"}
    shown = []
    for records in (world.users(), world.accounts()):
        for pipedrive_id, record in sorted(records.items()):
            facts = {name: value for name, value in record.items() if name not in dull and "time" not in name}
            shown.append((pipedrive_id, accounts.get(record.get("account_id")), facts))
    return shown


def test_walks_from_both_ends_and_reads_no_page_twice(world: World) -> None:
    fill(world, persons=230, organizations=0)

    run = world.fetch(Entity.PERSON)

    assert (run.state, run.new) == ("done", 230)
    caught_up = 5  # all 230 are younger than the overlap of the catch-up walk
    assert run.pages <= 230 // PAGE + 2 + caught_up


@pytest.mark.parametrize("persons", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE, 3 * PAGE + 1])
def test_brings_each_record_once_whatever_the_number_of_pages(world: World, persons: int) -> None:
    fill(world, persons=persons, organizations=0)
    age(world)

    run = world.fetch(Entity.PERSON)

    assert (run.state, run.new, run.changed, run.same, run.failed) == ("done", persons, 0, 0, 0)
    assert sorted(world.users()) == list(range(1, persons + 1))
    assert world.hull.received.count == persons
    assert run.pages <= -(-persons // PAGE) + 3


def test_finishes_when_only_one_walk_finds_anything(world: World) -> None:
    fill(world, persons=PAGE + 1, organizations=0)
    age(world)
    world.pipedrive.faults.add("/api/v2/persons$", "status", status=503, skip=1, count=1)  # the walk from the end

    begun = world.fetch(Entity.PERSON)
    walks = {row.walk: row.pages for row in world.rows("SELECT walk, pages FROM slices")}
    world.later()
    world.work()

    run = world.run(begun.id)
    assert (begun.state, begun.new, walks) == ("running", PAGE + 1, {"ascending": 2, "descending": 0})
    assert (run.state, run.new, run.same) == ("done", PAGE + 1, 0)
    assert world.hull.received.count == PAGE + 1


def test_two_walks_that_read_the_same_page_at_one_moment_count_its_records_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, persons=5, organizations=0)
    age(world)
    real, turns = PipedriveClient.list_page, itertools.count()
    run_id = world.start(Entity.PERSON)
    one, another = (row.id for row in world.rows("SELECT id FROM batches ORDER BY id"))

    def read(*args: Any, **options: Any) -> Any:
        page = real(*args, **options)
        if next(turns) == 0:  # while the other walk reads its page
            world.step(another, "incoming", "extract")
        return page

    monkeypatch.setattr(PipedriveClient, "list_page", read)
    world.step(one, "incoming", "extract")
    world.work()

    run = world.run(run_id)
    assert (run.state, run.read, run.new, run.same) == ("done", 5, 5, 0)
    assert [row.event for row in world.rows("SELECT event FROM sync_events WHERE pipedrive_id IS NOT NULL")] == [
        "incoming.user.success"
    ] * 5


def test_counts_what_it_did(world: World) -> None:
    fill(world, persons=120, organizations=10)
    age(world)
    world.company.put_raw("person", {"id": 500, "name": "No time", "update_time": None, "add_time": None})
    world.pipedrive.ledger.requests.clear()

    first = world.fetch(Entity.PERSON)
    world.company.edit_person(7, name="Seventh")
    second = world.fetch(Entity.PERSON, changed_only=True)

    assert (first.new, first.changed, first.same, first.skipped) == (120, 0, 0, 0)
    assert first.shells == 8  # nobody belongs to two of the ten
    assert first.links == 96
    assert first.messages == 120 + 96
    assert first.failed >= 1
    lists = world.pipedrive.ledger.requests["list"]
    assert first.pages + second.pages == lists
    assert first.tokens + second.tokens == 10 * lists + 20  # each fetch reads the field definitions once
    assert (second.new, second.changed) == (0, 1)
    assert second.same >= 119
    assert second.messages == 2  # the User and its link


def test_saves_the_cursor_with_the_page(world: World) -> None:
    fill(world, persons=3 * PAGE, organizations=0)
    world.start(Entity.PERSON)
    before = world.rows("SELECT walk, cursor, frontier, pages FROM slices ORDER BY walk")
    world.step(*world.due())  # type: ignore[misc]

    after = {row.walk: row for row in world.rows("SELECT walk, cursor, frontier, pages FROM slices ORDER BY walk")}
    assert [tuple(row)[1:] for row in before] == [(None, None, 0)] * 2
    assert after["ascending"].frontier == PAGE
    assert after["ascending"].cursor
    assert after["ascending"].pages == 1
    stages = world.rows("SELECT stage, state, records FROM batches WHERE extracted IS NOT NULL")
    assert [tuple(row) for row in stages] == [("transform", "ready", PAGE)]


@pytest.mark.parametrize("moment", range(12))
def test_misses_nothing_that_happens_during_the_walk(world: World, moment: int) -> None:
    """An edit, an insert and a delete after any number of stages: Hull ends up with Pipedrive's state."""
    fill(world, persons=3 * PAGE, organizations=0)
    age(world)
    world.start(Entity.PERSON)
    for _ in range(moment):
        if due := world.due():
            world.step(*due)
    world.company.edit_person(2, name="Edited low")
    world.company.edit_person(3 * PAGE - 1, name="Edited high")
    world.company.create_person(name="Inserted")
    world.company.delete_person(3 * PAGE // 2)
    world.work()

    shown = names(world)
    shown.pop(3 * PAGE // 2, None)  # its deletion is for a later check: it may have been carried over before
    assert shown == in_pipedrive(world)
    assert world.rows("SELECT DISTINCT state FROM runs") == [("done",)]


def test_ends_only_after_everything_was_carried_over(world: World) -> None:
    fill(world, persons=2 * PAGE, organizations=0)
    run_id = world.start(Entity.PERSON)
    while due := world.due():
        world.step(*due)
        open_batches = world.rows("SELECT 1 FROM batches WHERE state IN ('waiting', 'ready', 'running')")
        assert bool(open_batches) == (world.run(run_id).state == "running")

    assert world.run(run_id).phase == "catch_up"
    assert world.rows("SELECT 1 FROM batches WHERE extracted IS NOT NULL OR transformed IS NOT NULL") == []


def test_takes_the_e_mail_marked_primary(world: World) -> None:
    emails = [{"value": "Second@Example.com", "primary": False}, {"value": " First@Example.com", "primary": True}]
    world.company.put_raw(
        "person",
        {
            "id": 1,
            "name": "Ada",
            "emails": emails,
            "add_time": "2026-01-01T00:00:00Z",
            "update_time": "2026-01-01T00:00:00Z",
        },
    )

    world.fetch(Entity.PERSON)

    assert world.users()[1]["email"] == "first@example.com"


def test_delivers_only_the_id_where_nothing_is_mapped(world: World) -> None:
    world.change_settings(incoming_user_attributes=[], incoming_account_attributes=[])
    world.company.create_organization(name="Acme")
    world.company.create_person(name="Ada")

    for entity in Entity:
        world.fetch(entity)

    bodies = [body for _, _, body in world.hull.received]
    assert bodies == [{"pipedrive/id": 1}, {"pipedrive/id": 1}]


def test_refuses_a_second_run_of_its_kind(world: World) -> None:
    first = world.start(Entity.PERSON)
    with pytest.raises(world.module("sync.runs.runs").RunInProgress) as refused:
        world.start(Entity.PERSON)
    world.start(Entity.ORGANIZATION)

    assert refused.value.run_id == first
    assert f"runs cancel CONNECTOR {first}" in str(refused.value)


def test_a_record_is_counted_once_however_often_a_fetch_reads_it(world: World) -> None:
    """The catch-up reads whatever changed a minute before the fetch began, which is all of a young company."""
    fill(world, persons=7, organizations=0)

    run = world.fetch(Entity.PERSON)
    again = world.fetch(Entity.PERSON)

    assert (run.read, run.new, run.changed, run.same) == (7, 7, 0, 0)
    assert (again.read, again.new, again.changed, again.same) == (7, 0, 0, 7)


def test_a_fetch_lasts_until_its_comparison_has_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, persons=2, organizations=0)
    missing = world.module("sync.runs.missing_records")
    real, ended = missing.compare, []

    def compare(session: Any, run: Any) -> None:
        real(session, run)
        ended.append(session.execute(text("SELECT clock_timestamp()")).scalar_one())

    monkeypatch.setattr(missing, "compare", compare)

    run = world.fetch(Entity.PERSON)

    assert run.finished_at is not None
    assert run.finished_at >= ended[-1]
