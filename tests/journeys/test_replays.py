"""Replays: many failures at a time, at a pace, with the outcome of each; older values never overwrite newer ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from db import failure_closing
from db import job as jobs
from db import replay as rows
from db.failure_filter import FailureFilter
from db.replay import Replay
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected, Retryable
from pipeline.operations.replays import describe_replays
from tests.journeys.hull_messages import fetch_everything, person, send_messages, user, work_until_idle
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, hull_names, pipedrive_names, raw_person
from tests.journeys.test_failures import break_stage, opened
from tests.manual_clock import Clock
from tests.prepared import prepared
from tests.system import SyncSystem

FAST = 500.0
ATTEMPTS = 8


def begin(system: SyncSystem, per_second: float = FAST, **chosen: Any) -> int:
    beginning = system.module("jobs.replays.start")
    with transaction() as session:
        which = FailureFilter(connector_key=system.connector_key, **chosen)
        return int(beginning.begin(session, which, by="ada", why="fixed", per_second=per_second).id)


def act(system: SyncSystem, name: str, replay_id: int, **by: str) -> bool:
    """Pause, resume or abort the job of a replay."""
    with transaction() as session:
        job = jobs.newest_jobs(session, system.connector_key, "replay", [str(replay_id)])[str(replay_id)]
        return bool(getattr(system.module("jobs.runtime"), name)(session, job, **by))


def advance(system: SyncSystem) -> None:
    """Run the replay's job and all work that it started to their ends."""
    for _ in range(4):
        system.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
        system.run_jobs()
        system.work()
        system.module("jobs.replays.advance").record_left_outcomes()


def outcomes(replay_id: int) -> dict[str, int]:
    with transaction() as session:
        return rows.item_counts(session, [replay_id])[replay_id]


def mood(replay_id: int) -> str:
    with transaction() as session:
        (progress,) = describe_replays(session, [session.get_one(Replay, replay_id)])
        return progress.mood


def state(replay_id: int) -> str:
    with transaction() as session:
        (progress,) = describe_replays(session, [session.get_one(Replay, replay_id)])
        return progress.state


@prepared
def broken(system: SyncSystem, *numbers: int) -> None:
    """Persons without a time, as fetched."""
    for number in numbers:
        system.company.put_raw("person", raw_person(id=number, update_time=None, add_time=None))
    system.fetch(Entity.PERSON)


def fixed(system: SyncSystem, *numbers: int) -> None:
    for number in numbers:
        system.company.put_raw("person", raw_person(id=number))


def test_every_item_has_its_outcome(system: SyncSystem) -> None:
    broken(system, 10, 11, 12)
    fixed(system, 10, 11)

    replay_id = begin(system)
    before = outcomes(replay_id)
    advance(system)

    assert before == {"waiting": 3}
    assert outcomes(replay_id) == {"came_through": 2, "failed_again": 1}
    assert state(replay_id) == "done"
    assert set(system.users()) == {10, 11}
    (again,) = opened(system)
    (item,) = system.rows("SELECT new_failure_id, failure_id FROM replay_items WHERE state = 'failed_again'")
    assert (item.new_failure_id, again.record_id) == (again.id, "12")
    carried = system.rows("SELECT batch_id FROM replay_items WHERE state = 'came_through'")
    assert all(row.batch_id for row in carried)


def test_a_replay_has_no_later_failures(system: SyncSystem) -> None:
    broken(system, 10)
    replay_id = begin(system)
    broken(system, 11)
    fixed(system, 10, 11)

    advance(system)

    assert outcomes(replay_id) == {"came_through": 1}
    assert [each.record_id for each in opened(system)] == ["11"]


def test_a_pace_is_kept(system: SyncSystem, noon: Clock) -> None:
    broken(system, *range(10, 16))
    fixed(system, *range(10, 16))
    replay_id = begin(system, per_second=2.0)

    def waiting_after(pause_s: float) -> int:
        noon.move(pause_s)
        system.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
        system.run_jobs()
        return outcomes(replay_id)["waiting"]

    assert [waiting_after(pause_s) for pause_s in (0, 0, 0.5, 0)] == [4, 4, 3, 3]
    assert waiting_after(3_600) == 1, "an hour that was lost is not made up for at once"


def test_a_replay_can_be_paused_and_resumed(system: SyncSystem) -> None:
    broken(system, 10, 11)
    fixed(system, 10, 11)
    replay_id = begin(system)

    assert act(system, "pause", replay_id)
    assert not act(system, "pause", replay_id)
    advance(system)
    paused = (state(replay_id), outcomes(replay_id), system.rows("SELECT 1 FROM jobs WHERE state = 'due'"))
    assert act(system, "resume", replay_id, by="bo")
    advance(system)

    assert paused == ("paused", {"waiting": 2}, [])
    assert (outcomes(replay_id), state(replay_id)) == ({"came_through": 2}, "done")


def test_what_was_not_sent_stays_open_when_a_replay_is_aborted(system: SyncSystem) -> None:
    broken(system, *range(10, 14))
    fixed(system, *range(10, 14))
    replay_id = begin(system, per_second=1.0)
    system.run_jobs()

    assert act(system, "abort", replay_id, by="bo")
    assert not act(system, "resume", replay_id, by="bo")
    advance(system)

    assert outcomes(replay_id) == {"came_through": 1, "aborted": 3}
    assert state(replay_id) == "aborted"
    assert len(opened(system)) == 3
    assert system.rows("SELECT 1 FROM jobs WHERE state = 'due'") == []
    assert system.rows("SELECT 1 FROM replays WHERE ended_at IS NULL") == []


def test_of_two_replays_of_the_same_failures_one_sends_them(system: SyncSystem) -> None:
    broken(system, 10, 11)
    fixed(system, 10, 11)

    first, second = begin(system), begin(system)
    advance(system)

    assert sorted([outcomes(first), outcomes(second)], key=str) == [{"came_through": 2}, {"skipped": 2}]
    assert len(system.rows("SELECT 1 FROM sync_events WHERE cause = 'replay' AND event LIKE '%.success'")) == 2


def test_a_replay_continues_after_a_killed_worker(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    advancing = system.module("jobs.replays.advance")
    broken(system, 10, 11, 12)
    fixed(system, 10, 11, 12)
    replay_id = begin(system)
    real, calls = advancing._send_one, []

    def killed(*given: Any) -> None:
        calls.append(1)
        real(*given)
        if len(calls) == 2:
            raise SystemExit

    monkeypatch.setattr(advancing, "_send_one", killed)
    with pytest.raises(SystemExit):
        system.run_jobs()
    assert (outcomes(replay_id), len(opened(system))) == ({"waiting": 3}, 3)

    system.change_rows("UPDATE jobs SET due_at = now()")
    advance(system)

    assert (outcomes(replay_id), opened(system)) == ({"came_through": 3}, [])


@pytest.mark.parametrize("line", ["_clear_stop", "record_outcomes", "_send", "_send_items", "_next_check_s", "_end"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_replay_ends_wherever_a_worker_is_killed(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch, line: str, *, after: bool
) -> None:
    advancing = system.module("jobs.replays.advance")
    monkeypatch.setattr(advancing, "SLICE", 1)
    monkeypatch.setattr(system.module("jobs.runtime"), "SLICE_S", -1.0)
    broken(system, 10, 11)
    fixed(system, 10, 11)
    replay_id = begin(system)
    real, killed = getattr(advancing, line), []

    def kill(*given: Any) -> Any:
        answer = real(*given) if after or killed else None
        if not killed:
            killed.append(line)
            raise SystemExit
        return answer

    monkeypatch.setattr(advancing, line, kill)
    for _ in range(2):
        with suppress(SystemExit):
            advance(system)
    for _ in range(6):
        advance(system)

    assert killed
    assert (state(replay_id), outcomes(replay_id), opened(system)) == ("done", {"came_through": 2}, [])
    assert len(system.rows("SELECT 1 FROM sync_events WHERE cause = 'replay' AND event LIKE '%.success'")) == 2
    assert system.rows("SELECT 1 FROM jobs WHERE state = 'due'") == []


def test_a_worker_that_lost_its_job_changes_nothing(system: SyncSystem) -> None:
    broken(system, 10)
    replay_id = begin(system)
    with transaction() as session:
        old = jobs.claim(session, 1, lease_s=0.0)
    with transaction() as session:
        assert jobs.claim(session, 1, lease_s=30) is not None
    assert old is not None

    with pytest.raises(Exception, match="lease_lost"):
        system.module("jobs.replays.advance").step(old)

    assert (outcomes(replay_id), len(opened(system))) == ({"waiting": 1}, 1)


def fail_job(system: SyncSystem, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Callable[[], None]:
    """Let the replay's job fail by this error; the returned function repairs it."""
    advancing = system.module("jobs.replays.advance")
    real = advancing.preview_failures

    def fail(*_given: Any, **_named: Any) -> None:
        raise error

    monkeypatch.setattr(advancing, "preview_failures", fail)
    for _ in range(ATTEMPTS):
        system.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
        system.run_jobs()
    return lambda: monkeypatch.setattr(advancing, "preview_failures", real)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Rejected("refused_by_pipedrive", "said no"), "refused_by_pipedrive"),
        (Retryable("remote_unavailable", "503"), "remote_unavailable"),
        (ZeroDivisionError("a defect"), "internal_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("way", ["resumed", "by its failure", "after its failure was discarded"])
def test_a_replay_with_a_failed_job_stops_and_can_be_resumed(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, way: str
) -> None:
    broken(system, 10, 11)
    fixed(system, 10, 11)
    replay_id = begin(system)

    repair = fail_job(system, monkeypatch, error)
    with transaction() as session:
        stopped = session.get_one(Replay, replay_id)
    (failure,) = [each for each in opened(system) if each.kind == "control"]
    repair()
    if way == "by its failure":
        with transaction() as session:
            system.module("jobs.replays.start").replay_failure(session, failure, by="bo", why="fixed")
    else:
        if way != "resumed":
            with transaction() as session:
                failure_closing.close_failure(session, failure.id, "discarded", by="bo", why="seen")
        assert act(system, "resume", replay_id, by="bo")
    resumed = state(replay_id)
    advance(system)

    assert (stopped.state, stopped.reason, failure.reason) == ("stopped", reason, reason)
    assert (stopped.ended_at is not None, resumed) == (True, "running")
    assert (state(replay_id), outcomes(replay_id), opened(system)) == ("done", {"came_through": 2}, [])
    assert system.rows("SELECT reason, detail FROM replays") == [(None, None)]
    assert system.rows("SELECT 1 FROM jobs WHERE state = 'due'") == []


def test_a_replay_stops_if_all_its_workers_die(system: SyncSystem) -> None:
    broken(system, 10)
    replay_id = begin(system)
    system.change_rows("UPDATE jobs SET attempts = 8, lease_token = 8, due_at = now() - interval '1 s'")

    system.run_jobs()

    assert system.rows("SELECT state, reason FROM replays") == [("stopped", "worker_lost")]
    assert outcomes(replay_id) == {"waiting": 1}


def test_a_replay_that_is_resumed_and_paused_has_not_ended(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(system, 10)
    replay_id = begin(system)
    fail_job(system, monkeypatch, Rejected("refused_by_pipedrive", ""))()

    assert act(system, "resume", replay_id, by="bo")
    assert act(system, "pause", replay_id)

    assert system.rows("SELECT state, reason, ended_at FROM replays") == [("running", None, None)]


def test_a_replay_that_stopped_can_be_aborted(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(system, 10)
    replay_id = begin(system)
    fail_job(system, monkeypatch, Rejected("refused_by_pipedrive", ""))()

    assert act(system, "abort", replay_id, by="bo")
    advance(system)

    assert (state(replay_id), outcomes(replay_id)) == ("aborted", {"aborted": 1})
    assert [each.kind for each in opened(system)] == ["record"], "what was not sent stays open"
    assert system.rows("SELECT 1 FROM replays WHERE ended_at IS NULL OR reason IS NOT NULL") == []


def test_outcomes_are_recorded_while_a_replay_is_paused(system: SyncSystem) -> None:
    broken(system, 10, 11)
    fixed(system, 10, 11)
    replay_id = begin(system, per_second=1.0)
    system.run_jobs()
    assert act(system, "pause", replay_id)

    advance(system)
    paused = (state(replay_id), outcomes(replay_id))
    system.change_rows("UPDATE replays SET per_second = 500")
    assert act(system, "resume", replay_id, by="bo")
    advance(system)

    assert paused == ("paused", {"came_through": 1, "waiting": 1})
    assert (state(replay_id), outcomes(replay_id)) == ("done", {"came_through": 2})


def test_a_long_replay_changes_workers_and_is_never_taken_for_lost(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    advancing = system.module("jobs.replays.advance")
    monkeypatch.setattr(advancing, "SLICE", 1)
    monkeypatch.setattr(system.module("jobs.runtime"), "SLICE_S", -1.0)
    people = range(10, 10 + ATTEMPTS + 4)
    broken(system, *people)
    fixed(system, *people)
    replay_id = begin(system)

    for _ in people:
        system.change_rows("UPDATE replays SET sent_until = now() - interval '1 h'")
        system.run_jobs()
        system.work()
    advance(system)

    assert (state(replay_id), outcomes(replay_id)) == ("done", {"came_through": len(people)})


def test_a_record_without_a_preview_does_not_stop_the_others(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(system, 10, 11, 12)
    fixed(system, 10, 11, 12)
    looking = system.module("jobs.replays.preview_records")
    real = looking._incoming

    def defeated(failure: Any, *more: Any) -> Any:
        if failure.record_id == "11":
            raise RecursionError
        return real(failure, *more)

    monkeypatch.setattr(looking, "_incoming", defeated)
    replay_id = begin(system)
    with capture_logs() as logged:
        advance(system)

    assert (state(replay_id), outcomes(replay_id)) == ("done", {"came_through": 3})
    assert [each["error"] for each in logged if each["event"] == "failures.preview.error"] == ["RecursionError"]


def test_batches_are_replayed_as_records_are(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    create_records(system, persons=3 * PAGE, organizations=0)
    age_records(system)
    repair = break_stage(system, monkeypatch, "incoming", "load")
    system.fetch(Entity.PERSON)
    repair()

    replay_id = begin(system)
    advance(system)

    assert set(outcomes(replay_id)) == {"came_through"}
    assert state(replay_id) == "done"
    assert hull_names(system) == pipedrive_names(system)


def test_a_batch_that_fails_again_is_reported(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    create_records(system, persons=5, organizations=0)
    break_stage(system, monkeypatch, "incoming", "load")
    system.fetch(Entity.PERSON)

    replay_id = begin(system)
    advance(system)

    assert set(outcomes(replay_id)) == {"failed_again"}
    assert mood(replay_id) == "error"
    again = system.rows("SELECT new_failure_id FROM replay_items")
    assert {row.new_failure_id for row in again} == {each.id for each in opened(system)}


def test_a_control_task_is_replayed_as_records_are(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    control = system.module("tasks.control")
    with monkeypatch.context() as patch:
        patch.setattr(control.hull_ids, "resolve", lambda _key: 1 / 0)
        with pytest.raises(system.module("sync.stage").StageFailed):
            control.resolve_hull_ids()
    asked: list[str] = []
    monkeypatch.setattr(
        system.module("tasks.canvases"), "wake_control", lambda name, countdown_s=None: asked.append(name)
    )

    replay_id = begin(system)
    advance(system)
    early = outcomes(replay_id)
    system.change_rows("UPDATE replay_items SET sent_at = sent_at - interval '1 min'")
    advance(system)

    assert "resolve_hull_ids" in asked
    assert (early, outcomes(replay_id)) == ({"sent": 1}, {"came_through": 1})


def test_a_replay_is_deleted_long_after_its_end(system: SyncSystem) -> None:
    broken(system, 10)
    begin(system)
    advance(system)
    running = begin(system)
    system.change_rows("UPDATE replays SET ended_at = ended_at - interval '91 d'")

    system.module("sync.upkeep").tidy()

    assert [row.id for row in system.rows("SELECT id FROM replays")] == [running]
    assert {row.replay_id for row in system.rows("SELECT replay_id FROM replay_items")} == {running}


def test_a_user_with_a_released_hull_id_has_its_outcome_too(system: SyncSystem) -> None:
    """A new e-mail makes the id map release the Hull id for a while: Hull may have merged the User with another."""
    create_records(system, persons=2, organizations=0)
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    fetch_everything(system)
    repair = refuse_names(system)
    ann = {**system.users()[1], "hull_id": system.users()[1]["id"]}
    send_messages(system, user(**{**ann, "nickname": "Ann", "email": "ann@new.test"}))
    repair()

    replay_id = begin(system)
    advance(system)

    assert system.rows("SELECT hull_id FROM id_mappings WHERE pipedrive_id = 1")[0].hull_id is None
    assert outcomes(replay_id) == {"came_through": 1}
    (item,) = system.rows("SELECT b.task_id FROM replay_items i JOIN batches b ON b.id = i.batch_id")
    assert item.task_id


# --- what is replayed never brings back the past ----------------------------------------------------------------------


def refuse_names(system: SyncSystem) -> Any:
    """Let Pipedrive refuse every write, until the answer is called."""
    faults = system.pipedrive.faults
    faults.replace([{"path": "persons", "method": "PATCH", "kind": "status", "status": 400, "count": None}])
    return lambda: faults.replace([])


def reopen(system: SyncSystem) -> None:
    """Open all replayed failures again, as if they had not been replayed."""
    system.change_rows("UPDATE failures SET state = 'open' WHERE state = 'replayed'")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize("is_export", [False, True])
def test_replays_in_any_order_with_edits_between_end_in_the_same_state(
    system: SyncSystem, seed: int, is_export: bool
) -> None:
    """Hull's newest report wins in any order; a system without failures ends in the same state."""
    chance = random.Random(seed)
    create_records(system, persons=6, organizations=0)
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    fetch_everything(system)
    repair = refuse_names(system)
    second = [0]

    def report_names(number: int, name: str) -> None:
        second[0] += 1
        report = {**system.users()[number], "nickname": name, "indexed_at": f"2026-09-01T10:00:{second[0]:02}Z"}
        message = {"user": report, "segments": [], "changes": {}, "is_export": is_export}
        changes = system.module("sync.changes.outgoing_changes")
        with transaction() as session:
            changes.coalesce_messages(
                session,
                system.connector_key,
                Entity.PERSON,
                [message],
                cause="test",
                is_export=is_export,
                rank=second[0],
            )
        system.work()

    for number in range(1, 7):
        report_names(number, f"First {number}")
    repair()
    newest = {number: f"First {number}" for number in range(1, 7)}
    ids = [each.id for each in opened(system)]
    assert len(ids) == 6
    for _ in range(3):
        chance.shuffle(ids)
        reopen(system)
        for some in (ids[:3], ids[3:]):
            edited = chance.choice(range(1, 7))
            newest[edited] = f"Edit {second[0]} of {edited}"
            report_names(edited, newest[edited])
            still = tuple(each.id for each in opened(system) if each.id in some)
            if still:
                begin(system, ids=still)
            advance(system)

    work_until_idle(system)
    assert {number: person(system, number)["name"] for number in newest} == newest
    assert {number: each["pipedrive/name"] for number, each in system.users().items()} == newest
    assert system.rows("SELECT 1 FROM changes") == []
