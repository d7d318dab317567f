"""What gave up is kept whole, closes by itself when the record comes through, and can be replayed or thrown away, once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest

from db import failure as failures
from db import failure_closing, failure_filter
from db.failure import Failure
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.errors import PipelineError
from tests.deliveries import deliver, listen, notify
from tests.integration.engine.tables import differences, everything
from tests.journeys.people import PAGE, age, fill, in_pipedrive, names
from tests.journeys.test_bad_records import raw
from tests.prepared import prepared
from tests.world import World


def opened(world: World) -> list[Failure]:
    with transaction() as session:
        return failure_filter.find_failures(session)


def the_failure(world: World) -> Failure:
    (failure,) = opened(world)
    return failure


def replay(world: World, failure: Failure, **more: Any) -> None:
    with transaction() as session:
        world.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="mended", **more)


@pytest.fixture
@prepared
def broken(world: World) -> Failure:
    """Five good Persons, and one without a time."""
    fill(world, persons=5, organizations=0)
    age(world)
    world.company.put_raw("person", raw(update_time=None, add_time=None))
    world.fetch(Entity.PERSON)
    return the_failure(world)


def test_a_record_is_kept_as_it_came(world: World, broken: Failure) -> None:
    assert (broken.kind, broken.subject, broken.record_id) == ("record", "incoming:person:10", "10")
    assert (broken.direction, broken.entity, broken.stage) == ("incoming", "person", "transform")
    assert orjson.loads(failures.payload_of(broken) or b"") == raw(update_time=None, add_time=None)
    assert broken.run_id == world.rows("SELECT id FROM runs")[0].id


def test_a_record_without_an_id_is_kept_once(world: World) -> None:
    world.company.put_raw("person", {"name": "Nobody"})

    for _ in range(3):
        world.fetch(Entity.PERSON)

    failure = the_failure(world)
    assert failure.record_id is None
    assert failure.attempts >= 3
    assert orjson.loads(failures.payload_of(failure) or b"") == {"name": "Nobody"}


def test_what_fails_again_is_the_same_failure(world: World, broken: Failure) -> None:
    world.fetch(Entity.PERSON)

    again = the_failure(world)
    assert again.id == broken.id
    assert again.attempts > broken.attempts


def test_a_failure_closes_by_itself_when_its_record_comes_through(world: World, broken: Failure) -> None:
    world.company.put_raw("person", raw())
    world.fetch(Entity.PERSON, changed_only=True)

    assert opened(world) == []
    (closed,) = world.rows("SELECT state, closed_by, closed_why FROM failures")
    assert tuple(closed) == ("replayed", "pipeline", "came through later")
    assert world.users()[10]["pipedrive/name"] == "Odd"


def test_a_failure_that_was_not_mended_stays(world: World, broken: Failure) -> None:
    world.company.edit_person(3, name="Somebody else")
    world.fetch(Entity.PERSON, changed_only=True)

    assert the_failure(world).id == broken.id


def test_a_replayed_record_is_read_again(world: World, broken: Failure) -> None:
    world.company.put_raw("person", raw())

    replay(world, broken)
    world.work()

    assert world.users()[10]["pipedrive/name"] == "Odd"
    (closed,) = world.rows("SELECT state, closed_by, closed_why FROM failures")
    assert tuple(closed) == ("replayed", "ada", "mended")
    assert world.rows("SELECT cause FROM sync_events ORDER BY id DESC LIMIT 1")[0].cause == "replay"


def test_a_record_replayed_in_vain_fails_anew(world: World, broken: Failure) -> None:
    replay(world, broken)
    world.work()

    again = the_failure(world)
    assert (again.id != broken.id, again.reason, again.subject) == (True, broken.reason, broken.subject)


def test_a_record_that_is_gone_meanwhile_is_told(world: World, broken: Failure) -> None:
    world.company.delete_person(10)

    replay(world, broken)
    world.work()
    world.later()
    world.work()

    assert opened(world) == []
    assert world.events()[-1] == ("incoming.user.skip", "gone", 10)


def test_a_failure_is_replayed_once(world: World, broken: Failure) -> None:
    replay(world, broken)
    before = everything()

    with pytest.raises(world.module("jobs.replays.start").NotReplayable, match="closed already"):
        replay(world, broken)

    assert differences(before, everything()) == {}


def test_a_record_without_an_id_cannot_be_replayed_and_stays_open(world: World) -> None:
    world.company.put_raw("person", {"name": "Nobody"})
    world.fetch(Entity.PERSON)

    with pytest.raises(world.module("jobs.replays.start").NotReplayable, match="no id"):
        replay(world, the_failure(world))

    assert len(opened(world)) == 1


def test_a_discarded_failure_is_gone_for_good(world: World, broken: Failure) -> None:
    with transaction() as session:
        first = failure_closing.close_failure(session, broken.id, "discarded", by="ada", why="a test record")
    with transaction() as session:
        second = failure_closing.close_failure(session, broken.id, "discarded", by="bo", why="me too")

    assert (first, second, opened(world)) == (True, False, [])
    (closed,) = world.rows("SELECT state, closed_by FROM failures")
    assert tuple(closed) == ("discarded", "ada")
    with pytest.raises(world.module("jobs.replays.start").NotReplayable):
        replay(world, broken)


# --- batches ---------------------------------------------------------------------------------------------------------


def break_stage(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    direction: str,
    stage: str,
    when: Callable[[Any], bool] = lambda _: True,
    error: Exception | None = None,
) -> Callable[[], None]:
    """Let a stage fail with `error`, by default for a defect; call the answer to repair it."""
    module = world.module(f"tasks.{direction}")
    real, mended = getattr(module, f"{stage}_batch"), []

    def broken_stage(batch: Any) -> None:
        if when(batch) and not mended:
            raise error or ValueError("a defect")
        real(batch)

    monkeypatch.setattr(module, f"{stage}_batch", broken_stage)
    return lambda: mended.append(True)


@pytest.mark.parametrize("stage", ["extract", "transform", "load"])
def test_a_batch_is_replayed_from_the_stage_that_failed(
    world: World, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, persons=3 * PAGE, organizations=0)
    age(world)
    run_id = world.start(Entity.PERSON)
    first = world.due()
    assert first is not None
    mend = break_stage(world, monkeypatch, "incoming", stage, lambda batch: batch.id == first[0])
    world.work()
    failure = the_failure(world)
    missing = 3 * PAGE - len(world.users())
    mend()

    replay(world, failure)
    revived = world.rows("SELECT stage, state FROM batches WHERE id = :id", id=first[0])
    world.work()

    assert (failure.kind, failure.stage, failure.reason) == ("batch", stage, "internal_error")
    assert failure.task_id == f"test-{first[0]}-{stage}"
    assert "a defect" in (failure.traceback or "")
    assert missing >= PAGE
    assert tuple(revived[0]) == (stage, "ready")
    assert names(world) == in_pipedrive(world)
    assert (opened(world), world.run(run_id).state) == ([], "done")


def test_a_batch_replayed_in_vain_fails_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, persons=5, organizations=0)
    break_stage(world, monkeypatch, "incoming", "load")
    world.fetch(Entity.PERSON)
    failed = {failure.id for failure in opened(world)}

    for failure in opened(world):
        replay(world, failure)
    world.work()

    assert {failure.id for failure in opened(world)}.isdisjoint(failed)
    assert len(opened(world)) == len(failed)


def test_replaying_everything_that_failed_heals_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, persons=3 * PAGE, organizations=4)
    mend = break_stage(world, monkeypatch, "incoming", "transform")
    for entity in Entity:
        world.fetch(entity)
    nothing = (world.users(), world.accounts())
    mend()

    for failure in opened(world):
        replay(world, failure)
    world.work()

    assert nothing == ({}, {})
    assert opened(world) == []
    assert names(world) == in_pipedrive(world)
    assert len(world.accounts()) == 4


def test_a_live_batch_is_replayed_with_what_was_staged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, persons=5, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    said = listen(world)
    for number in (2, 3):
        world.company.edit_person(number, name=f"Edited {number}")
    deliver(world, *said)
    mend = break_stage(world, monkeypatch, "incoming", "load")
    world.work()
    mend()

    replay(world, the_failure(world))
    world.work()

    assert names(world) == in_pipedrive(world)
    assert world.rows("SELECT 1 FROM changes") == []


def test_an_old_live_batch_replayed_late_does_not_bring_back_the_past(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, persons=5, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    said = listen(world)
    world.company.edit_person(3, name="First")
    said[0]["data"]["update_time"] = "2026-06-01T00:00:00Z"
    deliver(world, *said)
    mend = break_stage(world, monkeypatch, "incoming", "load")
    world.work()
    mend()
    world.company.edit_person(3, name="Second")
    deliver(world, said[1])
    world.work()

    replay(world, the_failure(world))
    world.work()

    assert names(world)[3] == "Second"
    assert world.rows("SELECT 1 FROM changes") == []


STAGES = ["extract", "transform", "load"]


def send_name(world: World, name: str, key: str) -> None:
    """Hull reports that User 1 is now called so."""
    notify(world, {"user": {**world.users()[1], "nickname": name}, "segments": []}, key=key)


@pytest.fixture
@prepared
def outgoing(world: World) -> None:
    """Two Users whose nickname is the name of their Persons."""
    world.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    fill(world, persons=2, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    world.module("sync.changes.hull_ids").resolve(world.connector_key)


@pytest.mark.usefixtures("outgoing")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("reason", ["internal_error", "worker_lost"])
def test_a_replayed_outgoing_batch_never_writes_older_values(
    world: World, stage: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair = break_stage(world, monkeypatch, "outgoing", stage, error=PipelineError(reason))
    send_name(world, "Older", "n1")
    world.work()
    failure = the_failure(world)
    repair()
    send_name(world, "Newer", "n2")
    world.work()
    sent = in_pipedrive(world)[1]

    with suppress(world.module("jobs.replays.start").NotReplayable):
        replay(world, failure)
    world.work()

    assert (failure.reason, sent, in_pipedrive(world)[1]) == (reason, "Newer", "Newer")
    assert opened(world) == []
    assert world.rows("SELECT 1 FROM changes") == []


@pytest.mark.usefixtures("outgoing")
@pytest.mark.parametrize("stage", STAGES)
def test_an_outgoing_batch_that_failed_is_decided_again(
    world: World, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_name(world, "Ann", "n1")
    mend = break_stage(world, monkeypatch, "outgoing", stage)
    world.work()
    failure = the_failure(world)
    mend()

    replay(world, failure)
    world.work()

    assert (failure.direction, failure.stage) == ("outgoing", stage)
    assert in_pipedrive(world)[1] == "Ann"
    assert names(world)[1] == "Ann"
    assert opened(world) == []


@pytest.mark.usefixtures("outgoing")
def test_an_outgoing_batch_failure_closes_when_newer_reports_were_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_name(world, "Older", "n1")
    repair = break_stage(world, monkeypatch, "outgoing", "load")
    world.work()
    repair()

    send_name(world, "Newer", "n2")
    world.work()

    assert opened(world) == []
    assert world.rows("SELECT state, closed_by FROM failures")[0] == ("replayed", "pipeline")
    assert world.rows("SELECT 1 FROM batches WHERE state = 'failed'") == []


@pytest.mark.parametrize("stage", ["extract", "transform", "load"])
def test_an_incoming_batch_failure_closes_when_a_full_fetch_has_read_its_records(
    world: World, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, persons=5, organizations=0)
    age(world)
    repair = break_stage(world, monkeypatch, "incoming", stage)
    world.fetch(Entity.PERSON)
    failed = len(opened(world))
    repair()

    world.fetch(Entity.PERSON)

    assert failed > 0
    assert opened(world) == []
    assert names(world) == in_pipedrive(world)
    assert world.rows("SELECT 1 FROM batches WHERE state = 'failed'") == []


def test_a_live_batch_that_failed_after_a_fetch_began_stays_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, persons=5, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    said = listen(world)
    run_id = world.start(Entity.PERSON)
    world.company.edit_person(2, name="Edited")
    deliver(world, *said)
    break_stage(world, monkeypatch, "incoming", "load", lambda batch: batch.run_id is None)

    world.work()

    assert world.run(run_id).state == "done"
    assert the_failure(world).kind == "batch"


# --- control tasks ---------------------------------------------------------------------------------------------------


def test_a_control_task_that_gives_up_is_kept_and_can_be_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, persons=2, organizations=0)
    world.fetch(Entity.PERSON)
    control = world.module("tasks.control")
    asked: list[str] = []
    monkeypatch.setattr(
        world.module("tasks.canvases"), "wake_control", lambda name, countdown_s=None: asked.append(name)
    )
    with monkeypatch.context() as patch:
        patch.setattr(control.hull_ids, "resolve", lambda _key: 1 / 0)
        with pytest.raises(world.module("sync.stage").StageFailed):
            control.resolve_hull_ids()
    failure = the_failure(world)

    replay(world, failure)

    assert (failure.kind, failure.stage, failure.reason) == ("control", "resolve_hull_ids", "internal_error")
    assert "ZeroDivisionError" in (failure.traceback or "")
    assert asked == ["resolve_hull_ids"]
    assert opened(world) == []


def test_a_control_task_that_may_succeed_later_is_no_failure(world: World) -> None:
    fill(world, persons=2, organizations=0)
    world.fetch(Entity.PERSON)
    world.hull_app.extensions["hull_faults"].replace(
        [{"path": "search", "kind": "status", "status": 503, "count": None}]
    )

    world.module("tasks.control").resolve_hull_ids()

    assert opened(world) == []
    assert world.rows("SELECT state FROM connectors")[0].state == "active"


def test_a_control_task_that_is_refused_pauses_the_connector(world: World) -> None:
    fill(world, persons=2, organizations=0)
    world.fetch(Entity.PERSON)
    world.hull_app.extensions["hull_faults"].replace(
        [{"path": "search", "kind": "status", "status": 401, "count": None}]
    )

    with pytest.raises(world.module("sync.stage").StageFailed, match="hull_refused"):
        world.module("tasks.control").resolve_hull_ids()

    assert the_failure(world).reason == "hull_refused"
    assert world.rows("SELECT state FROM connectors")[0].state == "paused"
