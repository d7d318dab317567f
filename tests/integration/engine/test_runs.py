"""Runs: the number of batches in flight, when a run may begin, and how it is cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from db import run as run_rows
from db.failure_filter import find_failures
from db.session import transaction
from pipeline import settings as settings_room
from pipeline.domain.kinds import Entity
from tests.integration.engine.tables import differences, everything
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, hull_names, pipedrive_names
from tests.logs import captured_log
from tests.system import SyncSystem


@pytest.fixture(params=[1, 2, 3])
def in_flight(system: SyncSystem, request: pytest.FixtureRequest) -> Iterator[int]:
    before = settings_room.settings()
    settings_room.use(before.replace(batches_in_flight=request.param))
    yield request.param
    settings_room.use(before)


def moving(system: SyncSystem) -> int:
    return int(system.rows("SELECT count(*) AS n FROM batches WHERE state IN ('ready', 'running')")[0].n)


def test_no_more_batches_are_in_flight_than_allowed(system: SyncSystem, in_flight: int) -> None:
    create_records(system, persons=6 * PAGE, organizations=0)
    run_id = system.start(Entity.PERSON)
    most = moving(system)
    while (due := system.next_batch()) is not None:
        system.run_batch_stage(*due)
        most = max(most, moving(system))

    assert most == in_flight
    assert system.run(run_id).state == "done"
    assert hull_names(system) == pipedrive_names(system)


def test_a_batch_that_waits_for_a_retry_counts_as_in_flight(system: SyncSystem) -> None:
    before = settings_room.settings()
    settings_room.use(before.replace(batches_in_flight=1))
    create_records(system, persons=3 * PAGE, organizations=0)
    system.start(Entity.PERSON)
    system.pipedrive.faults.add("/api/v2/persons$", "status", status=503)

    system.work()
    settings_room.use(before)

    assert moving(system) == 1
    assert system.users() == {}


def test_a_failed_batch_does_not_count_as_in_flight(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings_room.settings()
    settings_room.use(before.replace(batches_in_flight=1))
    create_records(system, persons=3 * PAGE, organizations=0)
    age_records(system)
    run_id = system.start(Entity.PERSON)
    incoming = system.module("tasks.incoming")
    real, broken = incoming.transform_batch, []

    def break_once(batch: Any) -> None:
        if not broken:
            broken.append(1)
            raise ValueError("a defect")
        real(batch)

    monkeypatch.setattr(incoming, "transform_batch", break_once)
    system.work()
    settings_room.use(before)

    assert system.run(run_id).state == "done"
    assert len(system.users()) == 2 * PAGE
    with transaction() as session:
        (failure,) = find_failures(session)
    assert (failure.kind, failure.stage, failure.reason, failure.batch_id) == (
        "batch",
        "transform",
        "internal_error",
        1,
    )
    assert "a defect" in str(failure.traceback)
    assert "a defect" not in failure.detail


def test_the_database_allows_one_run_of_a_kind(system: SyncSystem) -> None:
    system.start(Entity.PERSON)
    statement = (
        "INSERT INTO runs (connector_key, entity, kind, cause, settings_version) VALUES (:c, 'person', 'full', 'x', 1)"
    )

    with pytest.raises(IntegrityError):
        system.change_rows(statement, c=system.connector_key)


def test_of_two_runs_that_begin_at_the_same_moment_one_is_refused(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither has found the other: the index decides, and the error of the second one names the first run."""
    first = system.start(Entity.PERSON)
    real, blind = run_rows.running_run, [True]

    def look(*args: Any) -> Any:
        return None if blind.pop() else real(*args)

    blind.insert(0, False)
    monkeypatch.setattr(run_rows, "running_run", look)
    with pytest.raises(system.module("sync.runs.runs").RunInProgress) as refused:
        system.start(Entity.PERSON)

    assert refused.value.run_id == first


def test_an_incremental_run_continues_beside_a_full_one(system: SyncSystem) -> None:
    create_records(system, persons=5, organizations=0)
    full = system.start(Entity.PERSON)
    started_at = system.run(full).started_at

    incremental = system.fetch(Entity.PERSON, since=started_at.replace(year=2020))

    assert (incremental.kind, incremental.state, system.run(full).state) == ("incremental", "done", "done")
    assert incremental.changed_only


@pytest.mark.parametrize("stages", [0, 1, 2, 3, 5])
def test_a_cancelled_run_stops(system: SyncSystem, stages: int) -> None:
    create_records(system, persons=4 * PAGE, organizations=0)
    age_records(system)
    run_id = system.start(Entity.PERSON)
    for _ in range(stages):
        system.run_batch_stage(*system.next_batch())  # type: ignore[misc]
    arrived = len(system.users())

    with captured_log() as lines:
        cancelled = system.cancel_run(run_id)
    system.work()

    run = system.run(run_id)
    assert cancelled
    assert (run.state, run.reason, len(system.users())) == ("cancelled", "cancelled", arrived)
    assert system.rows("SELECT 1 FROM batches WHERE state IN ('waiting', 'ready', 'running')") == []
    assert system.rows("SELECT 1 FROM batches WHERE extracted IS NOT NULL OR transformed IS NOT NULL") == []
    assert [line["state"] for line in lines if line["event"] == "incoming.job.error"] == ["cancelled"]
    assert not system.cancel_run(run_id)


@pytest.mark.parametrize("stage", ["extract", "transform", "load"])
def test_a_running_stage_stops_when_its_run_is_cancelled(
    system: SyncSystem, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=PAGE, organizations=0)
    age_records(system)
    run_id = system.start(Entity.PERSON)
    while (due := system.next_batch()) is not None and due[2] != stage:
        system.run_batch_stage(*due)
    assert due is not None
    incoming = system.module("tasks.incoming")
    real, left = getattr(incoming, f"{stage}_batch"), []

    def cancel_first(batch: Any) -> None:
        system.cancel_run(run_id)
        left.append(everything())
        real(batch)

    monkeypatch.setattr(incoming, f"{stage}_batch", cancel_first)
    with captured_log() as lines:
        system.run_batch_stage(*due)

    assert set(differences(left[0], everything())) <= {
        "field_definitions",
        "token_ledger",
    }  # what was read and spent stays so
    assert [line["event"] for line in lines if line["event"].startswith("batch.")] == ["batch.lease_lost"]


def test_a_new_run_may_follow_a_cancelled_one(system: SyncSystem) -> None:
    create_records(system, persons=2 * PAGE, organizations=0)
    system.cancel_run(system.start(Entity.PERSON))

    run = system.fetch(Entity.PERSON)

    assert run.state == "done"
    assert hull_names(system) == pipedrive_names(system)


def test_a_stopped_run_is_not_reopened_while_another_one_is_running(system: SyncSystem) -> None:
    create_records(system, persons=3 * PAGE, organizations=0)
    fault = system.pipedrive.faults.add("/api/v2/persons$", "status", status=400, skip=1, count=None)
    system.fetch(Entity.PERSON)
    fault.count = 0
    system.start(Entity.PERSON)

    with transaction() as session:
        failure = find_failures(session)[0]
    with pytest.raises(system.module("jobs.replays.start").NotReplayable, match="in flight"), transaction() as session:
        system.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="again")

    with transaction() as session:
        assert find_failures(session)[0].state == "open"


def test_a_run_logs_its_end_with_its_counters(system: SyncSystem) -> None:
    create_records(system, persons=3, organizations=0)

    with captured_log() as lines:
        run = system.fetch(Entity.PERSON)

    named = [line for line in lines if line["event"].startswith("incoming.job.")]
    assert named[0]["event"] == "incoming.job.start"
    assert named[-1]["event"] == "incoming.job.success"
    assert (named[-1]["run_id"], named[-1]["new"], named[-1]["type"]) == (run.id, 3, "user")
    pages = [line for line in named if line["event"] == "incoming.job.progress"]
    assert len(pages) == run.pages
    assert sum(line.get("new", 0) for line in pages) == 3


def test_both_walks_of_a_stopped_run_stop(system: SyncSystem) -> None:
    create_records(system, persons=6 * PAGE, organizations=0)
    age_records(system)
    fault = system.pipedrive.faults.add("/api/v2/persons$", "status", status=400)
    run = system.fetch(Entity.PERSON)
    read = run.read

    system.work()
    with transaction() as session:
        for failure in find_failures(session):
            system.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="mended")
    system.work()

    assert fault.done == 1
    assert (run.state, read) == ("stopped", PAGE)  # the page of the other walk that was on its way
    assert system.run(run.id).state == "done"
    assert hull_names(system) == pipedrive_names(system)
