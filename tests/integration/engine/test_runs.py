"""Runs: how many batches move at once, who may begin one, and what cancelling one leaves behind."""

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
from tests.journeys.people import PAGE, age, fill, in_pipedrive, names
from tests.logs import written
from tests.world import World


@pytest.fixture(params=[1, 2, 3])
def in_flight(world: World, request: pytest.FixtureRequest) -> Iterator[int]:
    before = settings_room.settings()
    settings_room.use(before.replace(batches_in_flight=request.param))
    yield request.param
    settings_room.use(before)


def moving(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM batches WHERE state IN ('ready', 'running')")[0].n)


def test_no_more_batches_move_than_may(world: World, in_flight: int) -> None:
    fill(world, persons=6 * PAGE, organizations=0)
    run_id = world.start(Entity.PERSON)
    most = moving(world)
    while (due := world.due()) is not None:
        world.step(*due)
        most = max(most, moving(world))

    assert most == in_flight
    assert world.run(run_id).state == "done"
    assert names(world) == in_pipedrive(world)


def test_a_batch_that_waits_for_a_retry_takes_up_its_place(world: World) -> None:
    before = settings_room.settings()
    settings_room.use(before.replace(batches_in_flight=1))
    fill(world, persons=3 * PAGE, organizations=0)
    world.start(Entity.PERSON)
    world.pipedrive.faults.add("/api/v2/persons$", "status", status=503)

    world.work()
    settings_room.use(before)

    assert moving(world) == 1
    assert world.users() == {}


def test_a_batch_that_failed_gives_its_place_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings_room.settings()
    settings_room.use(before.replace(batches_in_flight=1))
    fill(world, persons=3 * PAGE, organizations=0)
    age(world)
    run_id = world.start(Entity.PERSON)
    incoming = world.module("tasks.incoming")
    real, broken = incoming.transform_batch, []

    def break_once(batch: Any) -> None:
        if not broken:
            broken.append(1)
            raise ValueError("a defect")
        real(batch)

    monkeypatch.setattr(incoming, "transform_batch", break_once)
    world.work()
    settings_room.use(before)

    assert world.run(run_id).state == "done"
    assert len(world.users()) == 2 * PAGE
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


def test_one_run_of_a_kind_is_held_by_the_database_itself(world: World) -> None:
    world.start(Entity.PERSON)
    statement = (
        "INSERT INTO runs (connector_key, entity, kind, cause, settings_version) VALUES (:c, 'person', 'full', 'x', 1)"
    )

    with pytest.raises(IntegrityError):
        world.change_rows(statement, c=world.connector_key)


def test_two_who_begin_in_the_same_moment_are_told_apart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have looked, neither has seen the other: the index decides, and the loser is told whose run it is."""
    first = world.start(Entity.PERSON)
    real, blind = run_rows.running_run, [True]

    def look(*args: Any) -> Any:
        return None if blind.pop() else real(*args)

    blind.insert(0, False)
    monkeypatch.setattr(run_rows, "running_run", look)
    with pytest.raises(world.module("sync.runs.runs").RunInProgress) as refused:
        world.start(Entity.PERSON)

    assert refused.value.run_id == first


def test_an_incremental_run_goes_on_beside_a_full_one(world: World) -> None:
    fill(world, persons=5, organizations=0)
    full = world.start(Entity.PERSON)
    started_at = world.run(full).started_at

    incremental = world.fetch(Entity.PERSON, since=started_at.replace(year=2020))

    assert (incremental.kind, incremental.state, world.run(full).state) == ("incremental", "done", "done")
    assert incremental.changed_only


@pytest.mark.parametrize("stages", [0, 1, 2, 3, 5])
def test_a_cancelled_run_stops_where_it_stands(world: World, stages: int) -> None:
    fill(world, persons=4 * PAGE, organizations=0)
    age(world)
    run_id = world.start(Entity.PERSON)
    for _ in range(stages):
        world.step(*world.due())  # type: ignore[misc]
    arrived = len(world.users())

    with written() as lines:
        cancelled = world.cancel_run(run_id)
    world.work()

    run = world.run(run_id)
    assert cancelled
    assert (run.state, run.reason, len(world.users())) == ("cancelled", "cancelled", arrived)
    assert world.rows("SELECT 1 FROM batches WHERE state IN ('waiting', 'ready', 'running')") == []
    assert world.rows("SELECT 1 FROM batches WHERE extracted IS NOT NULL OR transformed IS NOT NULL") == []
    assert [line["state"] for line in lines if line["event"] == "incoming.job.error"] == ["cancelled"]
    assert not world.cancel_run(run_id)


@pytest.mark.parametrize("stage", ["extract", "transform", "load"])
def test_a_stage_at_work_stops_when_its_run_is_cancelled(
    world: World, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, persons=PAGE, organizations=0)
    age(world)
    run_id = world.start(Entity.PERSON)
    while (due := world.due()) is not None and due[2] != stage:
        world.step(*due)
    assert due is not None
    incoming = world.module("tasks.incoming")
    real, left = getattr(incoming, f"{stage}_batch"), []

    def cancel_meanwhile(batch: Any) -> None:
        world.cancel_run(run_id)
        left.append(everything())
        real(batch)

    monkeypatch.setattr(incoming, f"{stage}_batch", cancel_meanwhile)
    with written() as lines:
        world.step(*due)

    assert set(differences(left[0], everything())) <= {
        "field_definitions",
        "token_ledger",
    }  # what was read and spent stays so
    assert [line["event"] for line in lines if line["event"].startswith("batch.")] == ["batch.lease_lost"]


def test_a_new_run_may_follow_a_cancelled_one(world: World) -> None:
    fill(world, persons=2 * PAGE, organizations=0)
    world.cancel_run(world.start(Entity.PERSON))

    run = world.fetch(Entity.PERSON)

    assert run.state == "done"
    assert names(world) == in_pipedrive(world)


def test_a_stopped_run_is_not_reopened_while_another_is_under_way(world: World) -> None:
    fill(world, persons=3 * PAGE, organizations=0)
    fault = world.pipedrive.faults.add("/api/v2/persons$", "status", status=400, skip=1, count=None)
    world.fetch(Entity.PERSON)
    fault.count = 0
    world.start(Entity.PERSON)

    with transaction() as session:
        failure = find_failures(session)[0]
    with pytest.raises(world.module("jobs.replays.start").NotReplayable, match="in flight"), transaction() as session:
        world.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="again")

    with transaction() as session:
        assert find_failures(session)[0].state == "open"


def test_a_run_says_how_it_ended_with_what_it_did(world: World) -> None:
    fill(world, persons=3, organizations=0)

    with written() as lines:
        run = world.fetch(Entity.PERSON)

    named = [line for line in lines if line["event"].startswith("incoming.job.")]
    assert named[0]["event"] == "incoming.job.start"
    assert named[-1]["event"] == "incoming.job.success"
    assert (named[-1]["run_id"], named[-1]["new"], named[-1]["type"]) == (run.id, 3, "user")
    pages = [line for line in named if line["event"] == "incoming.job.progress"]
    assert len(pages) == run.pages
    assert sum(line.get("new", 0) for line in pages) == 3


def test_a_stopped_run_stands_still_with_both_its_walks(world: World) -> None:
    fill(world, persons=6 * PAGE, organizations=0)
    age(world)
    fault = world.pipedrive.faults.add("/api/v2/persons$", "status", status=400)
    run = world.fetch(Entity.PERSON)
    read = run.read

    world.work()
    with transaction() as session:
        for failure in find_failures(session):
            world.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="mended")
    world.work()

    assert fault.done == 1
    assert (run.state, read) == ("stopped", PAGE)  # the page of the other walk that was on its way
    assert world.run(run.id).state == "done"
    assert names(world) == in_pipedrive(world)
