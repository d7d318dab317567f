"""Deletions without a webhook: a full fetch finds them, and too many of them need approval."""

from __future__ import annotations

from typing import Any

import pytest

from db import failure as failures
from db import failure_filter
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.journeys.pipedrive_records import age_records, create_records
from tests.journeys.test_deletions import is_finished, mapping, since_then, states, user
from tests.prepared import prepared
from tests.system import SyncSystem


@pytest.fixture
@prepared
def known(system: SyncSystem) -> SyncSystem:
    """120 Persons in Hull, which supports deletions."""
    system.change_settings(support_user_deletion=True)
    create_records(system, persons=120, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    return system


def verified_at(system: SyncSystem) -> Any:
    (row,) = system.rows("SELECT deletes_verified_at FROM watermarks WHERE entity = 'person'")
    return row.deletes_verified_at


def open_failures(system: SyncSystem) -> list[failures.Failure]:
    with transaction() as session:
        return failure_filter.find_failures(session)


def replay(system: SyncSystem) -> None:
    with transaction() as session:
        system.module("jobs.replays.start").replay_failure(
            session, open_failures(system)[0], by="test", why="they were deleted"
        )
    system.work()


@pytest.mark.guide("Incoming Users", "A deletion without a webhook is detected by the next full fetch.")
def test_a_full_fetch_marks_deletions_without_a_webhook(known: SyncSystem) -> None:
    for number in (1, 60, 120):
        known.company.delete_person(number)

    run = known.fetch(Entity.PERSON, changed_only=True)

    assert {number for number, state in states(known).items() if state == "deleted"} == {1, 60, 120}
    assert all(user(known, number).get("pipedrive/id") is None for number in (1, 60, 120))
    assert since_then(known) == [("incoming.user.success", "deleted", "missing", number) for number in (1, 120, 60)]
    assert verified_at(known) == run.started_at
    assert known.rows("SELECT 1 FROM page_ids") == []
    assert is_finished(known)


def test_a_first_fetch_misses_no_record(system: SyncSystem) -> None:
    create_records(system, persons=60, organizations=0)

    system.fetch(Entity.PERSON)

    assert set(states(system).values()) == {"full"}
    assert since_then(system) == []


def test_what_was_not_listed_and_is_there_lives(known: SyncSystem) -> None:
    """Each is looked for by its id first: lists may leave out what moved while they were read."""
    run_id = known.start(Entity.PERSON, changed_only=True)
    for _ in range(3):
        known.run_batch_stage(*(known.next_batch() or pytest.fail("nothing is due")))
    known.change_rows("UPDATE page_ids SET ids = array_remove(ids, 7)")
    known.work()

    assert known.run(run_id).state == "done"
    assert set(states(known).values()) == {"full"}
    assert since_then(known) == []
    assert is_finished(known)


def test_who_comes_while_the_fetch_runs_is_not_missing(known: SyncSystem) -> None:
    run_id = known.start(Entity.PERSON)
    known.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by, first_seen_at)"
        " VALUES (:c, 'person', 999, 'full', 'webhook', now() + interval '1 s')",
        c=known.connector_key,
    )
    known.work()

    assert known.run(run_id).state == "done"
    assert (mapping(known, 999).state, since_then(known)) == ("full", [])


def test_a_fetch_that_is_not_complete_proves_nothing(known: SyncSystem) -> None:
    verified = verified_at(known)
    known.company.delete_person(60)
    run_id = known.start(Entity.PERSON)
    known.run_batch_stage(*(known.next_batch() or pytest.fail("nothing is due")))
    known.cancel_run(run_id)
    known.work()

    assert (mapping(known, 60).state, verified_at(known)) == ("full", verified)


def test_an_incremental_fetch_stores_no_ids_and_misses_no_record(known: SyncSystem) -> None:
    known.company.delete_person(60)

    known.fetch(Entity.PERSON, since=known.run(1).started_at)

    assert (mapping(known, 60).state, known.rows("SELECT 1 FROM page_ids")) == ("full", [])


def test_pages_without_stored_ids_prove_nothing(known: SyncSystem) -> None:
    known.company.delete_person(60)
    known.start(Entity.PERSON)
    known.run_batch_stage(*(known.next_batch() or pytest.fail("nothing is due")))
    known.change_rows("DELETE FROM page_ids")
    known.work()

    assert mapping(known, 60).state == "full"


def test_too_many_missing_stop_before_anything_is_marked(known: SyncSystem) -> None:
    """A removed permission looks like a deletion."""
    verified = verified_at(known)
    for number in range(1, 41):
        known.company.delete_person(number)

    run = known.fetch(Entity.PERSON)

    (failure,) = open_failures(known)
    assert (failure.kind, failure.stage, failure.reason) == ("control", "confirm_missing", "too_many_missing")
    assert failure.detail == f"run {run.id}: 40 of 120 known persons were not listed (33%)"
    assert set(states(known).values()) == {"full"}
    assert (run.state, verified_at(known)) == ("done", verified)


def test_an_operator_may_confirm_many_deletions(known: SyncSystem) -> None:
    for number in range(1, 41):
        known.company.delete_person(number)
    run = known.fetch(Entity.PERSON)

    replay(known)

    assert {number for number, state in states(known).items() if state == "deleted"} == set(range(1, 41))
    assert verified_at(known) == run.started_at
    assert is_finished(known)


def test_a_stop_is_lifted_when_the_records_are_listed_again(known: SyncSystem) -> None:
    for number in range(1, 41):
        known.company.delete_person(number)
    known.fetch(Entity.PERSON)
    for number in range(1, 41):
        known.company.undelete("person", number)

    run = known.fetch(Entity.PERSON)

    assert open_failures(known) == []
    assert set(states(known).values()) == {"full"}
    assert verified_at(known) == run.started_at


def test_how_many_are_too_many_is_a_setting(known: SyncSystem) -> None:
    known.change_settings(support_user_deletion=True, deletion_stop_share=0.5)
    for number in range(1, 41):
        known.company.delete_person(number)

    known.fetch(Entity.PERSON)

    assert len([state for state in states(known).values() if state == "deleted"]) == 40


def test_a_few_may_always_be_missing(system: SyncSystem) -> None:
    create_records(system, persons=10, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    for number in range(1, 9):
        system.company.delete_person(number)

    system.fetch(Entity.PERSON)

    assert len([state for state in states(system).values() if state == "deleted"]) == 8
