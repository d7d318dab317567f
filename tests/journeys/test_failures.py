"""A failure is kept whole, closes when its record is synchronized, and can be replayed or discarded once."""

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
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, hull_names, pipedrive_names, raw_person
from tests.prepared import prepared
from tests.system import SyncSystem


def opened(system: SyncSystem) -> list[Failure]:
    with transaction() as session:
        return failure_filter.find_failures(session)


def the_failure(system: SyncSystem) -> Failure:
    (failure,) = opened(system)
    return failure


def replay(system: SyncSystem, failure: Failure, **more: Any) -> None:
    with transaction() as session:
        system.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="repaired", **more)


@pytest.fixture
@prepared
def broken(system: SyncSystem) -> Failure:
    """Five good Persons, and one without a time."""
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.company.put_raw("person", raw_person(update_time=None, add_time=None))
    system.fetch(Entity.PERSON)
    return the_failure(system)


def test_a_record_is_kept_as_it_came(system: SyncSystem, broken: Failure) -> None:
    assert (broken.kind, broken.subject, broken.record_id) == ("record", "incoming:person:10", "10")
    assert (broken.direction, broken.entity, broken.stage) == ("incoming", "person", "transform")
    assert orjson.loads(failures.payload_of(broken) or b"") == raw_person(update_time=None, add_time=None)
    assert broken.run_id == system.rows("SELECT id FROM runs")[0].id


def test_a_record_without_an_id_is_kept_once(system: SyncSystem) -> None:
    system.company.put_raw("person", {"name": "Nobody"})

    for _ in range(3):
        system.fetch(Entity.PERSON)

    failure = the_failure(system)
    assert failure.record_id is None
    assert failure.attempts >= 3
    assert orjson.loads(failures.payload_of(failure) or b"") == {"name": "Nobody"}


def test_what_fails_again_is_the_same_failure(system: SyncSystem, broken: Failure) -> None:
    system.fetch(Entity.PERSON)

    again = the_failure(system)
    assert again.id == broken.id
    assert again.attempts > broken.attempts


def test_a_failure_closes_when_its_record_is_synchronized(system: SyncSystem, broken: Failure) -> None:
    system.company.put_raw("person", raw_person())
    system.fetch(Entity.PERSON, changed_only=True)

    assert opened(system) == []
    (closed,) = system.rows("SELECT state, closed_by, closed_why FROM failures")
    assert tuple(closed) == ("replayed", "pipeline", "came through later")
    assert system.users()[10]["pipedrive/name"] == "Odd"


def test_a_failure_that_was_not_fixed_stays(system: SyncSystem, broken: Failure) -> None:
    system.company.edit_person(3, name="Somebody else")
    system.fetch(Entity.PERSON, changed_only=True)

    assert the_failure(system).id == broken.id


def test_a_replayed_record_is_read_again(system: SyncSystem, broken: Failure) -> None:
    system.company.put_raw("person", raw_person())

    replay(system, broken)
    system.work()

    assert system.users()[10]["pipedrive/name"] == "Odd"
    (closed,) = system.rows("SELECT state, closed_by, closed_why FROM failures")
    assert tuple(closed) == ("replayed", "ada", "repaired")
    assert system.rows("SELECT cause FROM sync_events ORDER BY id DESC LIMIT 1")[0].cause == "replay"


def test_a_record_that_fails_again_opens_a_new_failure(system: SyncSystem, broken: Failure) -> None:
    replay(system, broken)
    system.work()

    again = the_failure(system)
    assert (again.id != broken.id, again.reason, again.subject) == (True, broken.reason, broken.subject)


def test_a_record_that_was_deleted_since_is_reported(system: SyncSystem, broken: Failure) -> None:
    system.company.delete_person(10)

    replay(system, broken)
    system.work()
    system.end_pauses()
    system.work()

    assert opened(system) == []
    assert system.events()[-1] == ("incoming.user.skip", "gone", 10)


def test_a_failure_is_replayed_once(system: SyncSystem, broken: Failure) -> None:
    replay(system, broken)
    before = everything()

    with pytest.raises(system.module("jobs.replays.start").NotReplayable, match="closed already"):
        replay(system, broken)

    assert differences(before, everything()) == {}


def test_a_record_without_an_id_cannot_be_replayed_and_stays_open(system: SyncSystem) -> None:
    system.company.put_raw("person", {"name": "Nobody"})
    system.fetch(Entity.PERSON)

    with pytest.raises(system.module("jobs.replays.start").NotReplayable, match="no id"):
        replay(system, the_failure(system))

    assert len(opened(system)) == 1


def test_a_discarded_failure_cannot_be_replayed(system: SyncSystem, broken: Failure) -> None:
    with transaction() as session:
        first = failure_closing.close_failure(session, broken.id, "discarded", by="ada", why="a test record")
    with transaction() as session:
        second = failure_closing.close_failure(session, broken.id, "discarded", by="bo", why="me too")

    assert (first, second, opened(system)) == (True, False, [])
    (closed,) = system.rows("SELECT state, closed_by FROM failures")
    assert tuple(closed) == ("discarded", "ada")
    with pytest.raises(system.module("jobs.replays.start").NotReplayable):
        replay(system, broken)


# --- batches ---------------------------------------------------------------------------------------------------------


def break_stage(
    system: SyncSystem,
    monkeypatch: pytest.MonkeyPatch,
    direction: str,
    stage: str,
    when: Callable[[Any], bool] = lambda _: True,
    error: Exception | None = None,
) -> Callable[[], None]:
    """Let a stage fail with `error`, by default a defect; call the returned function to repair it."""
    module = system.module(f"tasks.{direction}")
    real, repaired = getattr(module, f"{stage}_batch"), []

    def broken_stage(batch: Any) -> None:
        if when(batch) and not repaired:
            raise error or ValueError("a defect")
        real(batch)

    monkeypatch.setattr(module, f"{stage}_batch", broken_stage)
    return lambda: repaired.append(True)


@pytest.mark.parametrize("stage", ["extract", "transform", "load"])
def test_a_batch_is_replayed_from_the_stage_that_failed(
    system: SyncSystem, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=3 * PAGE, organizations=0)
    age_records(system)
    run_id = system.start(Entity.PERSON)
    first = system.next_batch()
    assert first is not None
    repair = break_stage(system, monkeypatch, "incoming", stage, lambda batch: batch.id == first[0])
    system.work()
    failure = the_failure(system)
    missing = 3 * PAGE - len(system.users())
    repair()

    replay(system, failure)
    revived = system.rows("SELECT stage, state FROM batches WHERE id = :id", id=first[0])
    system.work()

    assert (failure.kind, failure.stage, failure.reason) == ("batch", stage, "internal_error")
    assert failure.task_id == f"test-{first[0]}-{stage}"
    assert "a defect" in (failure.traceback or "")
    assert missing >= PAGE
    assert tuple(revived[0]) == (stage, "ready")
    assert hull_names(system) == pipedrive_names(system)
    assert (opened(system), system.run(run_id).state) == ([], "done")


def test_a_batch_that_fails_again_opens_a_new_failure(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    create_records(system, persons=5, organizations=0)
    break_stage(system, monkeypatch, "incoming", "load")
    system.fetch(Entity.PERSON)
    failed = {failure.id for failure in opened(system)}

    for failure in opened(system):
        replay(system, failure)
    system.work()

    assert {failure.id for failure in opened(system)}.isdisjoint(failed)
    assert len(opened(system)) == len(failed)


def test_replaying_all_failures_synchronizes_everything(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    create_records(system, persons=3 * PAGE, organizations=4)
    repair = break_stage(system, monkeypatch, "incoming", "transform")
    for entity in Entity:
        system.fetch(entity)
    nothing = (system.users(), system.accounts())
    repair()

    for failure in opened(system):
        replay(system, failure)
    system.work()

    assert nothing == ({}, {})
    assert opened(system) == []
    assert hull_names(system) == pipedrive_names(system)
    assert len(system.accounts()) == 4


def test_a_live_batch_is_replayed_with_what_was_staged(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    webhooks = listen(system)
    for number in (2, 3):
        system.company.edit_person(number, name=f"Edited {number}")
    deliver(system, *webhooks)
    repair = break_stage(system, monkeypatch, "incoming", "load")
    system.work()
    repair()

    replay(system, the_failure(system))
    system.work()

    assert hull_names(system) == pipedrive_names(system)
    assert system.rows("SELECT 1 FROM changes") == []


def test_an_old_live_batch_does_not_overwrite_newer_values(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    webhooks = listen(system)
    system.company.edit_person(3, name="First")
    webhooks[0]["data"]["update_time"] = "2026-06-01T00:00:00Z"
    deliver(system, *webhooks)
    repair = break_stage(system, monkeypatch, "incoming", "load")
    system.work()
    repair()
    system.company.edit_person(3, name="Second")
    deliver(system, webhooks[1])
    system.work()

    replay(system, the_failure(system))
    system.work()

    assert hull_names(system)[3] == "Second"
    assert system.rows("SELECT 1 FROM changes") == []


STAGES = ["extract", "transform", "load"]


def send_name(system: SyncSystem, name: str, key: str) -> None:
    """Hull reports that User 1 is now called so."""
    notify(system, {"user": {**system.users()[1], "nickname": name}, "segments": []}, key=key)


@pytest.fixture
@prepared
def outgoing(system: SyncSystem) -> None:
    """Two Users with a nickname that is the name of their Persons."""
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    create_records(system, persons=2, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)


@pytest.mark.usefixtures("outgoing")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("reason", ["internal_error", "worker_lost"])
def test_a_replayed_outgoing_batch_never_writes_older_values(
    system: SyncSystem, stage: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repair = break_stage(system, monkeypatch, "outgoing", stage, error=PipelineError(reason))
    send_name(system, "Older", "n1")
    system.work()
    failure = the_failure(system)
    repair()
    send_name(system, "Newer", "n2")
    system.work()
    sent = pipedrive_names(system)[1]

    with suppress(system.module("jobs.replays.start").NotReplayable):
        replay(system, failure)
    system.work()

    assert (failure.reason, sent, pipedrive_names(system)[1]) == (reason, "Newer", "Newer")
    assert opened(system) == []
    assert system.rows("SELECT 1 FROM changes") == []


@pytest.mark.usefixtures("outgoing")
@pytest.mark.parametrize("stage", STAGES)
def test_an_outgoing_batch_that_failed_is_decided_again(
    system: SyncSystem, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_name(system, "Ann", "n1")
    repair = break_stage(system, monkeypatch, "outgoing", stage)
    system.work()
    failure = the_failure(system)
    repair()

    replay(system, failure)
    system.work()

    assert (failure.direction, failure.stage) == ("outgoing", stage)
    assert pipedrive_names(system)[1] == "Ann"
    assert hull_names(system)[1] == "Ann"
    assert opened(system) == []


@pytest.mark.usefixtures("outgoing")
def test_an_outgoing_batch_failure_closes_when_newer_reports_were_sent(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_name(system, "Older", "n1")
    repair = break_stage(system, monkeypatch, "outgoing", "load")
    system.work()
    repair()

    send_name(system, "Newer", "n2")
    system.work()

    assert opened(system) == []
    assert system.rows("SELECT state, closed_by FROM failures")[0] == ("replayed", "pipeline")
    assert system.rows("SELECT 1 FROM batches WHERE state = 'failed'") == []


@pytest.mark.parametrize("stage", ["extract", "transform", "load"])
def test_an_incoming_batch_failure_closes_when_a_full_fetch_has_read_its_records(
    system: SyncSystem, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    repair = break_stage(system, monkeypatch, "incoming", stage)
    system.fetch(Entity.PERSON)
    failed = len(opened(system))
    repair()

    system.fetch(Entity.PERSON)

    assert failed > 0
    assert opened(system) == []
    assert hull_names(system) == pipedrive_names(system)
    assert system.rows("SELECT 1 FROM batches WHERE state = 'failed'") == []


def test_a_live_batch_that_failed_after_a_fetch_began_stays_open(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    webhooks = listen(system)
    run_id = system.start(Entity.PERSON)
    system.company.edit_person(2, name="Edited")
    deliver(system, *webhooks)
    break_stage(system, monkeypatch, "incoming", "load", lambda batch: batch.run_id is None)

    system.work()

    assert system.run(run_id).state == "done"
    assert the_failure(system).kind == "batch"


# --- control tasks ---------------------------------------------------------------------------------------------------


def test_a_control_task_that_fails_is_kept_and_can_be_replayed(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    control = system.module("tasks.control")
    asked: list[str] = []
    monkeypatch.setattr(
        system.module("tasks.canvases"), "wake_control", lambda name, countdown_s=None: asked.append(name)
    )
    with monkeypatch.context() as patch:
        patch.setattr(control.hull_ids, "resolve", lambda _key: 1 / 0)
        with pytest.raises(system.module("sync.stage").StageFailed):
            control.resolve_hull_ids()
    failure = the_failure(system)

    replay(system, failure)

    assert (failure.kind, failure.stage, failure.reason) == ("control", "resolve_hull_ids", "internal_error")
    assert "ZeroDivisionError" in (failure.traceback or "")
    assert asked == ["resolve_hull_ids"]
    assert opened(system) == []


def test_a_control_task_that_may_succeed_later_is_no_failure(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    system.hull_app.extensions["hull_faults"].replace(
        [{"path": "search", "kind": "status", "status": 503, "count": None}]
    )

    system.module("tasks.control").resolve_hull_ids()

    assert opened(system) == []
    assert system.rows("SELECT state FROM connectors")[0].state == "active"


def test_a_control_task_that_is_refused_pauses_the_connector(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    system.hull_app.extensions["hull_faults"].replace(
        [{"path": "search", "kind": "status", "status": 401, "count": None}]
    )

    with pytest.raises(system.module("sync.stage").StageFailed, match="hull_refused"):
        system.module("tasks.control").resolve_hull_ids()

    assert the_failure(system).reason == "hull_refused"
    assert system.rows("SELECT state FROM connectors")[0].state == "paused"
