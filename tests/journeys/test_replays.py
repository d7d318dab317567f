"""Replays: many failures at a time, at a pace, with what became of each; and whatever is replayed how often, nothing older wins."""

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
from tests.journeys.people import PAGE, age, fill, in_pipedrive, names
from tests.journeys.test_bad_records import raw
from tests.journeys.test_failures import break_stage, opened
from tests.journeys.told_by_hull import know_everything, patiently, person, say, user
from tests.manual_clock import Clock
from tests.prepared import prepared
from tests.world import World

FAST = 500.0
ATTEMPTS = 8


def begin(world: World, per_second: float = FAST, **chosen: Any) -> int:
    beginning = world.module("jobs.replays.start")
    with transaction() as session:
        which = FailureFilter(connector_key=world.connector_key, **chosen)
        return int(beginning.begin(session, which, by="ada", why="mended", per_second=per_second).id)


def act(world: World, name: str, replay_id: int, **by: str) -> bool:
    """Pause, resume or abort the job of a replay."""
    with transaction() as session:
        job = jobs.newest_jobs(session, world.connector_key, "replay", [str(replay_id)])[str(replay_id)]
        return bool(getattr(world.module("jobs.runtime"), name)(session, job, **by))


def advance(world: World) -> None:
    """Let the replay's job and everything it set going come to their ends."""
    for _ in range(4):
        world.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
        world.run_jobs()
        world.work()
        world.module("jobs.replays.advance").record_left_outcomes()


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
def broken(world: World, *numbers: int) -> None:
    """Persons without a time, as fetched."""
    for number in numbers:
        world.company.put_raw("person", raw(id=number, update_time=None, add_time=None))
    world.fetch(Entity.PERSON)


def mended(world: World, *numbers: int) -> None:
    for number in numbers:
        world.company.put_raw("person", raw(id=number))


def test_every_item_has_its_outcome(world: World) -> None:
    broken(world, 10, 11, 12)
    mended(world, 10, 11)

    replay_id = begin(world)
    before = outcomes(replay_id)
    advance(world)

    assert before == {"waiting": 3}
    assert outcomes(replay_id) == {"came_through": 2, "failed_again": 1}
    assert state(replay_id) == "done"
    assert set(world.users()) == {10, 11}
    (again,) = opened(world)
    (item,) = world.rows("SELECT new_failure_id, failure_id FROM replay_items WHERE state = 'failed_again'")
    assert (item.new_failure_id, again.record_id) == (again.id, "12")
    carried = world.rows("SELECT batch_id FROM replay_items WHERE state = 'came_through'")
    assert all(row.batch_id for row in carried)


def test_what_fails_later_is_not_on_the_list(world: World) -> None:
    broken(world, 10)
    replay_id = begin(world)
    broken(world, 11)
    mended(world, 10, 11)

    advance(world)

    assert outcomes(replay_id) == {"came_through": 1}
    assert [each.record_id for each in opened(world)] == ["11"]


def test_a_pace_is_kept(world: World, noon: Clock) -> None:
    broken(world, *range(10, 16))
    mended(world, *range(10, 16))
    replay_id = begin(world, per_second=2.0)

    def waiting_after(pause_s: float) -> int:
        noon.move(pause_s)
        world.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
        world.run_jobs()
        return outcomes(replay_id)["waiting"]

    assert [waiting_after(pause_s) for pause_s in (0, 0, 0.5, 0)] == [4, 4, 3, 3]
    assert waiting_after(3_600) == 1, "an hour that was lost is not made up for at once"


def test_a_replay_can_be_paused_and_goes_on(world: World) -> None:
    broken(world, 10, 11)
    mended(world, 10, 11)
    replay_id = begin(world)

    assert act(world, "pause", replay_id)
    assert not act(world, "pause", replay_id)
    advance(world)
    paused = (state(replay_id), outcomes(replay_id), world.rows("SELECT 1 FROM jobs WHERE state = 'due'"))
    assert act(world, "resume", replay_id, by="bo")
    advance(world)

    assert paused == ("paused", {"waiting": 2}, [])
    assert (outcomes(replay_id), state(replay_id)) == ({"came_through": 2}, "done")


def test_what_was_not_sent_stays_open_when_a_replay_is_aborted(world: World) -> None:
    broken(world, *range(10, 14))
    mended(world, *range(10, 14))
    replay_id = begin(world, per_second=1.0)
    world.run_jobs()

    assert act(world, "abort", replay_id, by="bo")
    assert not act(world, "resume", replay_id, by="bo")
    advance(world)

    assert outcomes(replay_id) == {"came_through": 1, "aborted": 3}
    assert state(replay_id) == "aborted"
    assert len(opened(world)) == 3
    assert world.rows("SELECT 1 FROM jobs WHERE state = 'due'") == []
    assert world.rows("SELECT 1 FROM replays WHERE ended_at IS NULL") == []


def test_of_two_who_replay_the_same_one_does_it(world: World) -> None:
    broken(world, 10, 11)
    mended(world, 10, 11)

    first, second = begin(world), begin(world)
    advance(world)

    assert sorted([outcomes(first), outcomes(second)], key=str) == [{"came_through": 2}, {"skipped": 2}]
    assert len(world.rows("SELECT 1 FROM sync_events WHERE cause = 'replay' AND event LIKE '%.success'")) == 2


def test_a_replay_killed_anywhere_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    advancing = world.module("jobs.replays.advance")
    broken(world, 10, 11, 12)
    mended(world, 10, 11, 12)
    replay_id = begin(world)
    real, calls = advancing._send_one, []

    def killed(*given: Any) -> None:
        calls.append(1)
        real(*given)
        if len(calls) == 2:
            raise SystemExit

    monkeypatch.setattr(advancing, "_send_one", killed)
    with pytest.raises(SystemExit):
        world.run_jobs()
    assert (outcomes(replay_id), len(opened(world))) == ({"waiting": 3}, 3)

    world.change_rows("UPDATE jobs SET due_at = now()")
    advance(world)

    assert (outcomes(replay_id), opened(world)) == ({"came_through": 3}, [])


@pytest.mark.parametrize("line", ["_clear_stop", "record_outcomes", "_send", "_send_items", "_look_again_s", "_end"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_a_worker_is_killed_the_lease_brings_the_replay_to_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch, line: str, *, after: bool
) -> None:
    advancing = world.module("jobs.replays.advance")
    monkeypatch.setattr(advancing, "SLICE", 1)
    monkeypatch.setattr(world.module("jobs.runtime"), "SLICE_S", -1.0)
    broken(world, 10, 11)
    mended(world, 10, 11)
    replay_id = begin(world)
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
            advance(world)
    for _ in range(6):
        advance(world)

    assert killed
    assert (state(replay_id), outcomes(replay_id), opened(world)) == ("done", {"came_through": 2}, [])
    assert len(world.rows("SELECT 1 FROM sync_events WHERE cause = 'replay' AND event LIKE '%.success'")) == 2
    assert world.rows("SELECT 1 FROM jobs WHERE state = 'due'") == []


def test_a_worker_that_lost_its_job_changes_nothing(world: World) -> None:
    broken(world, 10)
    replay_id = begin(world)
    with transaction() as session:
        old = jobs.claim(session, 1, lease_s=0.0)
    with transaction() as session:
        assert jobs.claim(session, 1, lease_s=30) is not None
    assert old is not None

    with pytest.raises(Exception, match="lease_lost"):
        world.module("jobs.replays.advance").step(old)

    assert (outcomes(replay_id), len(opened(world))) == ({"waiting": 1}, 1)


def give_up(world: World, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Callable[[], None]:
    """Let the replay's job end for good by this error; what is returned mends it."""
    advancing = world.module("jobs.replays.advance")
    real = advancing.preview_failures

    def fail(*_given: Any, **_named: Any) -> None:
        raise error

    monkeypatch.setattr(advancing, "preview_failures", fail)
    for _ in range(ATTEMPTS):
        world.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
        world.run_jobs()
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
def test_a_replay_whose_job_gives_up_says_so_and_goes_on_when_told(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, way: str
) -> None:
    broken(world, 10, 11)
    mended(world, 10, 11)
    replay_id = begin(world)

    mend = give_up(world, monkeypatch, error)
    with transaction() as session:
        stopped = session.get_one(Replay, replay_id)
    (failure,) = [each for each in opened(world) if each.kind == "control"]
    mend()
    if way == "by its failure":
        with transaction() as session:
            world.module("jobs.replays.start").replay_failure(session, failure, by="bo", why="mended")
    else:
        if way != "resumed":
            with transaction() as session:
                failure_closing.close_failure(session, failure.id, "discarded", by="bo", why="seen")
        assert act(world, "resume", replay_id, by="bo")
    resumed = state(replay_id)
    advance(world)

    assert (stopped.state, stopped.reason, failure.reason) == ("stopped", reason, reason)
    assert (stopped.ended_at is not None, resumed) == (True, "running")
    assert (state(replay_id), outcomes(replay_id), opened(world)) == ("done", {"came_through": 2}, [])
    assert world.rows("SELECT reason, detail FROM replays") == [(None, None)]
    assert world.rows("SELECT 1 FROM jobs WHERE state = 'due'") == []


def test_a_replay_whose_workers_all_die_says_so(world: World) -> None:
    broken(world, 10)
    replay_id = begin(world)
    world.change_rows("UPDATE jobs SET attempts = 8, lease_token = 8, due_at = now() - interval '1 s'")

    world.run_jobs()

    assert world.rows("SELECT state, reason FROM replays") == [("stopped", "worker_lost")]
    assert outcomes(replay_id) == {"waiting": 1}


def test_a_replay_that_is_resumed_and_paused_has_not_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(world, 10)
    replay_id = begin(world)
    give_up(world, monkeypatch, Rejected("refused_by_pipedrive", ""))()

    assert act(world, "resume", replay_id, by="bo")
    assert act(world, "pause", replay_id)

    assert world.rows("SELECT state, reason, ended_at FROM replays") == [("running", None, None)]


def test_a_replay_that_stopped_can_be_aborted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(world, 10)
    replay_id = begin(world)
    give_up(world, monkeypatch, Rejected("refused_by_pipedrive", ""))()

    assert act(world, "abort", replay_id, by="bo")
    advance(world)

    assert (state(replay_id), outcomes(replay_id)) == ("aborted", {"aborted": 1})
    assert [each.kind for each in opened(world)] == ["record"], "what was not sent stays open"
    assert world.rows("SELECT 1 FROM replays WHERE ended_at IS NULL OR reason IS NOT NULL") == []


def test_outcomes_of_what_was_sent_are_learned_while_a_replay_is_paused(world: World) -> None:
    broken(world, 10, 11)
    mended(world, 10, 11)
    replay_id = begin(world, per_second=1.0)
    world.run_jobs()
    assert act(world, "pause", replay_id)

    advance(world)
    paused = (state(replay_id), outcomes(replay_id))
    world.change_rows("UPDATE replays SET per_second = 500")
    assert act(world, "resume", replay_id, by="bo")
    advance(world)

    assert paused == ("paused", {"came_through": 1, "waiting": 1})
    assert (state(replay_id), outcomes(replay_id)) == ("done", {"came_through": 2})


def test_a_long_replay_is_handed_on_and_never_taken_for_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    advancing = world.module("jobs.replays.advance")
    monkeypatch.setattr(advancing, "SLICE", 1)
    monkeypatch.setattr(world.module("jobs.runtime"), "SLICE_S", -1.0)
    people = range(10, 10 + ATTEMPTS + 4)
    broken(world, *people)
    mended(world, *people)
    replay_id = begin(world)

    for _ in people:
        world.change_rows("UPDATE replays SET sent_until = now() - interval '1 h'")
        world.run_jobs()
        world.work()
    advance(world)

    assert (state(replay_id), outcomes(replay_id)) == ("done", {"came_through": len(people)})


def test_a_record_without_a_preview_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(world, 10, 11, 12)
    mended(world, 10, 11, 12)
    looking = world.module("jobs.replays.preview_records")
    real = looking._incoming

    def defeated(failure: Any, *more: Any) -> Any:
        if failure.record_id == "11":
            raise RecursionError
        return real(failure, *more)

    monkeypatch.setattr(looking, "_incoming", defeated)
    replay_id = begin(world)
    with capture_logs() as told:
        advance(world)

    assert (state(replay_id), outcomes(replay_id)) == ("done", {"came_through": 3})
    assert [each["error"] for each in told if each["event"] == "failures.verdict.error"] == ["RecursionError"]


def test_batches_are_replayed_as_records_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, persons=3 * PAGE, organizations=0)
    age(world)
    mend = break_stage(world, monkeypatch, "incoming", "load")
    world.fetch(Entity.PERSON)
    mend()

    replay_id = begin(world)
    advance(world)

    assert set(outcomes(replay_id)) == {"came_through"}
    assert state(replay_id) == "done"
    assert names(world) == in_pipedrive(world)


def test_a_batch_that_fails_again_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, persons=5, organizations=0)
    break_stage(world, monkeypatch, "incoming", "load")
    world.fetch(Entity.PERSON)

    replay_id = begin(world)
    advance(world)

    assert set(outcomes(replay_id)) == {"failed_again"}
    assert mood(replay_id) == "error"
    again = world.rows("SELECT new_failure_id FROM replay_items")
    assert {row.new_failure_id for row in again} == {each.id for each in opened(world)}


def test_a_control_task_is_replayed_as_records_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, persons=2, organizations=0)
    world.fetch(Entity.PERSON)
    control = world.module("tasks.control")
    with monkeypatch.context() as patch:
        patch.setattr(control.hull_ids, "resolve", lambda _key: 1 / 0)
        with pytest.raises(world.module("sync.stage").StageFailed):
            control.resolve_hull_ids()
    asked: list[str] = []
    monkeypatch.setattr(
        world.module("tasks.canvases"), "wake_control", lambda name, countdown_s=None: asked.append(name)
    )

    replay_id = begin(world)
    advance(world)
    early = outcomes(replay_id)
    world.change_rows("UPDATE replay_items SET sent_at = sent_at - interval '1 min'")
    advance(world)

    assert "resolve_hull_ids" in asked
    assert (early, outcomes(replay_id)) == ({"sent": 1}, {"came_through": 1})


def test_a_replay_is_forgotten_long_after_its_end(world: World) -> None:
    broken(world, 10)
    begin(world)
    advance(world)
    running = begin(world)
    world.change_rows("UPDATE replays SET ended_at = ended_at - interval '91 d'")

    world.module("sync.upkeep").tidy()

    assert [row.id for row in world.rows("SELECT id FROM replays")] == [running]
    assert {row.replay_id for row in world.rows("SELECT replay_id FROM replay_items")} == {running}


def test_a_user_whose_hull_id_is_asked_for_anew_has_its_outcome_too(world: World) -> None:
    """A new e-mail makes the id map let go of the Hull id for a while: Hull may have joined the User with another."""
    fill(world, persons=2, organizations=0)
    world.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    know_everything(world)
    mend = refuse_names(world)
    ann = {**world.users()[1], "hull_id": world.users()[1]["id"]}
    say(world, user(**{**ann, "nickname": "Ann", "email": "ann@new.test"}))
    mend()

    replay_id = begin(world)
    advance(world)

    assert world.rows("SELECT hull_id FROM id_mappings WHERE pipedrive_id = 1")[0].hull_id is None
    assert outcomes(replay_id) == {"came_through": 1}
    (item,) = world.rows("SELECT b.task_id FROM replay_items i JOIN batches b ON b.id = i.batch_id")
    assert item.task_id


# --- what is replayed never brings back the past ----------------------------------------------------------------------


def refuse_names(world: World) -> Any:
    """Let Pipedrive refuse every write, until the answer is called."""
    faults = world.pipedrive.faults
    faults.replace([{"path": "persons", "method": "PATCH", "kind": "status", "status": 400, "count": None}])
    return lambda: faults.replace([])


def reopen(world: World) -> None:
    """Behind everybody's back: as if nobody had replayed them."""
    world.change_rows("UPDATE failures SET state = 'open' WHERE state = 'replayed'")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.parametrize("is_export", [False, True])
def test_replayed_three_times_in_any_order_with_edits_between_the_end_is_the_same(
    world: World, seed: int, is_export: bool
) -> None:
    """Hull's newest word wins, whatever is replayed when; the world without failures ends in the same state."""
    chance = random.Random(seed)
    fill(world, persons=6, organizations=0)
    world.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    know_everything(world)
    mend = refuse_names(world)
    second = [0]

    def hull_says(number: int, name: str) -> None:
        second[0] += 1
        report = {**world.users()[number], "nickname": name, "indexed_at": f"2026-09-01T10:00:{second[0]:02}Z"}
        message = {"user": report, "segments": [], "changes": {}, "is_export": is_export}
        folding = world.module("sync.changes.outgoing_changes")
        with transaction() as session:
            folding.coalesce_messages(
                session,
                world.connector_key,
                Entity.PERSON,
                [message],
                cause="test",
                is_export=is_export,
                rank=second[0],
            )
        world.work()

    for number in range(1, 7):
        hull_says(number, f"First {number}")
    mend()
    newest = {number: f"First {number}" for number in range(1, 7)}
    ids = [each.id for each in opened(world)]
    assert len(ids) == 6
    for _ in range(3):
        chance.shuffle(ids)
        reopen(world)
        for some in (ids[:3], ids[3:]):
            edited = chance.choice(range(1, 7))
            newest[edited] = f"Edit {second[0]} of {edited}"
            hull_says(edited, newest[edited])
            still = tuple(each.id for each in opened(world) if each.id in some)
            if still:
                begin(world, ids=still)
            advance(world)

    patiently(world)
    assert {number: person(world, number)["name"] for number in newest} == newest
    assert {number: each["pipedrive/name"] for number, each in world.users().items()} == newest
    assert world.rows("SELECT 1 FROM changes") == []
