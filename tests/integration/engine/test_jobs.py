"""A job is dispatched again if its message is lost, and has one worker at a time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from db import job as jobs
from db import job_item as job_items
from db.connector import remove_rows_of
from db.session import transaction
from pipeline.errors import LostLease
from tests.logs import captured_log
from tests.system import SyncSystem

JOBS = "SELECT state, reason, attempts, secret IS NULL AS is_empty FROM jobs ORDER BY id"


@pytest.fixture
def sent(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The messages to Celery: (name, arguments, queue)."""
    seen: list[tuple[Any, ...]] = []
    app = system.module("tasks.app").app
    monkeypatch.setattr(app, "send_task", lambda name, args, queue: seen.append((name, args, queue)))
    return seen


def enqueue(system: SyncSystem, kind: str = "settings_sync", key: str = "1", secret: str | None = None) -> None:
    with transaction() as session:
        system.module("sync.job_queue").enqueue(session, kind, key, connector_key=system.connector_key, secret=secret)


def claim(lease_s: float = 30) -> jobs.ClaimedJob | None:
    with transaction() as session:
        return jobs.claim(session, 1, lease_s=lease_s)


def test_each_job_is_dispatched_once_on_the_queue_of_its_kind(system: SyncSystem, sent: list[Any]) -> None:
    for kind in ("settings_sync", "export", "connector_creation"):
        enqueue(system, kind)

    for _ in range(3):
        system.module("sync.job_queue").dispatch()

    assert sorted(sent) == [
        ("control.job", (1,), "control"),
        ("control.job", (2,), "live"),
        ("control.job", (3,), "control"),
    ]


def test_workers_know_the_task(system: SyncSystem) -> None:
    app = system.module("tasks.app").app
    app.loader.import_default_modules()

    assert "control.job" in app.tasks


def test_a_lost_message_is_sent_again(system: SyncSystem, sent: list[Any]) -> None:
    enqueue(system)
    system.module("sync.job_queue").dispatch()
    system.change_rows("UPDATE jobs SET due_at = now() - interval '1 h', dispatched_at = now() - interval '31 s'")

    system.module("sync.job_queue").dispatch()

    assert len(sent) == 2


def test_a_job_that_lost_its_worker_or_was_postponed_is_dispatched_when_it_is_due(
    system: SyncSystem, sent: list[Any]
) -> None:
    enqueue(system)
    system.module("sync.job_queue").dispatch()
    assert claim() is not None
    system.module("sync.job_queue").dispatch()
    at_work = len(sent)
    system.change_rows("UPDATE jobs SET due_at = now(), dispatched_at = now() - interval '1 s'")

    system.module("sync.job_queue").dispatch()

    assert (at_work, len(sent)) == (1, 2)


def test_without_a_broker_it_stays_due(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: Any, **_options: Any) -> None:
        raise OSError("nobody there")

    monkeypatch.setattr(system.module("tasks.app").app, "send_task", away)
    enqueue(system)
    with captured_log() as lines:
        system.module("sync.job_queue").dispatch()

    assert [line["event"] for line in lines] == ["broker.unreachable"]
    assert [row.state for row in system.rows(JOBS)] == ["due"]


def test_a_job_has_one_worker_and_one_that_lost_its_lease_cannot_write(system: SyncSystem) -> None:
    enqueue(system, secret="canary")
    first = claim()
    assert first is not None
    assert claim() is None
    system.change_rows("UPDATE jobs SET due_at = now()")
    second = claim()
    assert second is not None

    for write in (jobs.hold, jobs.end):
        with pytest.raises(LostLease), transaction() as session:
            write(session, first)  # type: ignore[operator]
    with transaction() as session:
        jobs.extend_lease(session, first, 1_000)
        jobs.end(session, second)

    assert [tuple(row) for row in system.rows(JOBS)] == [("done", None, 2, True)]


def test_a_job_that_ends_every_worker_fails_with_a_reason(system: SyncSystem) -> None:
    enqueue(system)
    system.change_rows("UPDATE jobs SET attempts = 8")

    system.run_jobs()

    assert [(row.state, row.reason) for row in system.rows(JOBS)] == [("failed", "worker_lost")]
    assert [row.reason for row in system.rows("SELECT reason FROM failures")] == ["worker_lost"]


def test_a_defect_is_stored_with_its_traceback_and_not_retried(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(_job: Any) -> None:
        raise ValueError("canary")

    broken = replace(system.module("jobs.runtime").HANDLERS["settings_sync"], step=break_down)
    monkeypatch.setitem(system.module("jobs.runtime").HANDLERS, "settings_sync", broken)
    enqueue(system)

    system.run_jobs()
    system.run_jobs()

    [failure] = system.rows("SELECT reason, detail, traceback, attempts FROM failures")
    assert (failure.reason, failure.attempts, "canary" in failure.detail) == ("internal_error", 1, False)
    assert "break_down" in failure.traceback


def test_a_job_of_an_unknown_kind_fails_when_its_attempts_are_used_up(system: SyncSystem) -> None:
    enqueue(system, "of_tomorrow")

    for _ in range(10):
        system.run_jobs()
        system.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")

    assert [(row.state, row.reason, row.attempts) for row in system.rows(JOBS)] == [("failed", "job_kind_unknown", 8)]
    assert [row.subject for row in system.rows("SELECT subject FROM failures")] == ["control:of_tomorrow:1"]


def test_a_job_of_an_unknown_kind_does_not_stop_the_others(system: SyncSystem, sent: list[Any]) -> None:
    enqueue(system, "of_tomorrow")
    enqueue(system)

    system.module("sync.job_queue").dispatch()

    assert sorted(sent) == [("control.job", (1,), "control"), ("control.job", (2,), "control")]


@pytest.mark.parametrize("kind", ["export", "send", "verify", "log_export"])
def test_an_unreadable_order_fails_without_its_content(system: SyncSystem, kind: str) -> None:
    enqueue(system, kind, secret='{"email": "canary@acme.test"')

    system.run_jobs()

    [failure] = system.rows("SELECT reason, detail, traceback FROM failures")
    assert failure.reason == "job_unreadable"
    assert "canary" not in f"{failure.detail}{failure.traceback}"


def test_unreadable_progress_fails_with_a_reason(system: SyncSystem) -> None:
    enqueue(system, "verify", secret='{"sample": 5, "requested_by": "ana"}')
    system.change_rows("UPDATE jobs SET checkpoint = 'not JSON'")

    system.run_jobs()

    assert [row.reason for row in system.rows(JOBS)] == ["job_unreadable"]


def test_a_failed_job_is_kept_while_its_failure_is_open(system: SyncSystem) -> None:
    enqueue(system)
    system.change_rows("UPDATE jobs SET attempts = 8")
    system.run_jobs()
    system.change_rows("UPDATE jobs SET ended_at = now() - interval '31 d'")

    system.module("sync.upkeep").tidy()
    kept = [row.state for row in system.rows(JOBS)]
    system.change_rows("UPDATE failures SET state = 'discarded'")
    system.module("sync.upkeep").tidy()

    assert (kept, system.rows(JOBS)) == (["failed"], [])


def test_items_of_a_failed_job_are_kept_for_a_month_and_a_replay_then_begins_again(system: SyncSystem) -> None:
    enqueue(system)
    system.change_rows("UPDATE jobs SET attempts = 8, progress = 3, checkpoint = 'page 3'")
    with transaction() as session:
        job_items.add_item(session, 1, "page", b"1")
    system.run_jobs()

    for days in (29, 31):
        system.change_rows("UPDATE jobs SET ended_at = now() - make_interval(days => :days)", days=days)
        system.module("sync.upkeep").tidy()
        [row] = system.rows("SELECT progress, checkpoint, (SELECT count(*) FROM job_items) AS items FROM jobs")
        assert tuple(row) == ((3, "page 3", 1) if days == 29 else (0, None, 0))


def test_ended_jobs_are_deleted_after_their_retention(system: SyncSystem) -> None:
    states = ("done", "refused", "aborted", "failed", "due", "paused")
    for number, state in enumerate(states):
        enqueue(system, key=str(number))
        system.change_rows(
            "UPDATE jobs SET state = :state, ended_at = now() - interval '31 d' WHERE dedupe_key = :key",
            state=state,
            key=str(number),
        )
    enqueue(system, key="new")
    system.change_rows("UPDATE jobs SET state = 'done', ended_at = now() WHERE dedupe_key = 'new'")

    system.module("sync.upkeep").tidy()

    assert [row.state for row in system.rows(JOBS)] == ["due", "paused", "done"]


def test_removing_a_connector_deletes_its_jobs(system: SyncSystem) -> None:
    enqueue(system)
    with transaction() as session:
        remove_rows_of(session, system.connector_key)

    assert system.rows("SELECT 1 FROM jobs") == []


def test_steps_run_until_the_slice_is_over_and_are_no_attempts(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    runtime = system.module("jobs.runtime")
    clock = iter(range(0, 1_000, 10))

    def step(job: jobs.ClaimedJob) -> Any:
        steps.append(job.attempts)
        return system.module("sync.job_queue").CONTINUE if len(steps) < 12 else system.module("sync.job_queue").DONE

    monkeypatch.setitem(runtime.HANDLERS, "settings_sync", replace(runtime.HANDLERS["settings_sync"], step=step))
    monkeypatch.setattr(runtime, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    enqueue(system)
    system.change_rows("UPDATE jobs SET attempts = 7")

    system.run_jobs()
    [between] = system.rows("SELECT state, attempts, due_at <= now() AS is_due FROM jobs")
    system.run_jobs()

    assert (between.state, between.attempts, between.is_due, steps[:2]) == ("due", 0, True, [8, 0])
    assert (len(steps), [row.state for row in system.rows(JOBS)]) == (12, ["done"])


@pytest.mark.parametrize("slice_s", [60.0, -1.0], ids=["in one task", "a step to a task"])
def test_a_job_that_is_requested_while_it_runs_begins_again_afterwards(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch, slice_s: float
) -> None:
    steps: list[tuple[int, int]] = []
    runtime, handler = system.module("jobs.runtime"), system.module("sync.job_queue")

    def step(job: jobs.ClaimedJob) -> Any:
        with transaction() as session:
            steps.append((job.progress, len(job_items.items_of(session, job.id, "page"))))
            if job.progress == 2:
                return handler.DONE
            jobs.checkpoint(session, job, job.progress + 1, "page")
            job_items.add_item(session, job.id, "page", b"1")
        if len(steps) == 2:
            enqueue(system)
        return handler.CONTINUE

    monkeypatch.setitem(runtime.HANDLERS, "settings_sync", replace(runtime.HANDLERS["settings_sync"], step=step))
    monkeypatch.setattr(runtime, "SLICE_S", slice_s)
    enqueue(system)
    enqueue(system)

    for _ in range(10):
        system.run_jobs()

    assert steps == [(0, 0), (1, 1), (2, 2)] * 2
    assert [row.state for row in system.rows(JOBS)] == ["done"]


def test_a_step_that_waits_postpones_the_job(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = system.module("jobs.runtime")
    waits = replace(runtime.HANDLERS["settings_sync"], step=lambda _job: system.module("sync.job_queue").wait(90.0))
    monkeypatch.setitem(runtime.HANDLERS, "settings_sync", waits)
    enqueue(system)

    system.run_jobs()

    [row] = system.rows("SELECT state, attempts, extract(epoch FROM due_at - now())::int AS wait_s FROM jobs")
    assert (row.state, row.attempts) == ("due", 0)
    assert 80 <= row.wait_s <= 90


def act(name: str, job_id: int = 1) -> bool:
    with transaction() as session:
        seen = [session.get_one(jobs.Job, job_id).state] if name == "abort" else []
        done: bool = getattr(jobs, name)(session, job_id, *seen)
    return done


def test_a_paused_job_does_not_run_until_it_is_resumed_and_uses_no_attempts(
    system: SyncSystem, sent: list[Any]
) -> None:
    enqueue(system)
    system.change_rows("UPDATE jobs SET attempts = 5")
    assert act("pause")

    system.module("sync.job_queue").dispatch()
    system.module("tasks.control").sweep()
    assert system.module("jobs.runtime").run_job(1, None) is False
    assert (sent, claim()) == ([], None)
    assert [(row.state, row.attempts) for row in system.rows(JOBS)] == [("paused", 0)]

    assert act("resume")
    system.module("sync.job_queue").dispatch()
    assert (len(sent), claim() is not None) == (1, True)


def test_a_worker_that_is_killed_in_a_paused_job_changes_nothing(system: SyncSystem, sent: list[Any]) -> None:
    """Its lease expires while the job is paused; neither the sweep nor a late write of the worker changes the row."""
    enqueue(system, secret="canary")
    killed = claim(lease_s=0.0)
    assert killed is not None
    assert act("pause")
    before = system.rows("SELECT * FROM jobs")

    system.module("sync.job_queue").dispatch()
    system.module("tasks.control").sweep()
    for write in (jobs.hold, jobs.end, jobs.checkpoint):
        with pytest.raises(LostLease), transaction() as session:
            write(session, killed)  # type: ignore[operator]
    with transaction() as session:
        assert not jobs.extend_lease(session, killed, 1_000)

    assert (system.rows("SELECT * FROM jobs"), sent) == (before, [])
    assert act("resume")
    with pytest.raises(LostLease), transaction() as session:
        jobs.hold(session, killed)


@pytest.mark.parametrize(("name", "state"), [("pause", "paused"), ("abort", "aborted")])
def test_a_worker_stops_before_its_next_step_when_an_operator_pauses_or_aborts_the_job(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch, name: str, state: str
) -> None:
    runtime, steps = system.module("jobs.runtime"), []

    def step(_job: Any) -> Any:
        steps.append(act(name))
        return system.module("sync.job_queue").CONTINUE

    monkeypatch.setitem(runtime.HANDLERS, "settings_sync", replace(runtime.HANDLERS["settings_sync"], step=step))
    enqueue(system)
    system.run_jobs()

    assert steps == [True]
    assert [(row.state, row.attempts) for row in system.rows(JOBS)] == [(state, 0)]
    assert system.rows("SELECT 1 FROM failures") == []


def test_a_request_joins_the_job_that_is_paused(system: SyncSystem) -> None:
    enqueue(system)
    assert act("pause")

    enqueue(system)

    [row] = system.rows("SELECT state, requested FROM jobs")
    assert (row.state, row.requested) == ("paused", 2)


def test_an_aborted_job_has_no_secret_and_its_key_is_free(system: SyncSystem) -> None:
    enqueue(system, secret="canary")
    assert act("abort")
    assert (act("abort"), act("pause"), act("resume")) == (False, False, False)

    enqueue(system)

    rows = system.rows("SELECT state, secret IS NULL AS is_empty, ended_at IS NULL AS is_open FROM jobs ORDER BY id")
    assert [tuple(row) for row in rows] == [("aborted", True, False), ("due", True, True)]
