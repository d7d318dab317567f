"""Errands are found again whatever becomes of their messages, and belong to one worker at a time."""

from __future__ import annotations

from typing import Any

import pytest

from db import errand as errands
from db.connector import remove_rows_of
from db.session import transaction
from pipeline.errors import LostLease
from tests.logs import written
from tests.world import World

ERRANDS = "SELECT state, reason, attempts, sealed IS NULL AS is_empty FROM errands ORDER BY id"


@pytest.fixture
def sent(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is handed to Celery: (name, arguments, queue)."""
    seen: list[tuple[Any, ...]] = []
    app = world.module("tasks.app").app
    monkeypatch.setattr(app, "send_task", lambda name, args, queue: seen.append((name, args, queue)))
    return seen


def ask(world: World, kind: str = "settings", key: str = "1", secret: str | None = None) -> None:
    with transaction() as session:
        world.module("sync.job_queue").ask(session, kind, key, connector_key=world.connector_key, secret=secret)


def claim(lease_s: float = 30) -> errands.ClaimedErrand | None:
    with transaction() as session:
        return errands.claim(session, 1, lease_s=lease_s)


def test_a_worker_is_woken_once_for_each_on_the_queue_of_its_kind(world: World, sent: list[Any]) -> None:
    for kind in ("settings", "export", "adoption"):
        ask(world, kind)

    for _ in range(3):
        world.module("sync.job_queue").dispatch()

    assert sorted(sent) == [
        ("control.errand", (1,), "control"),
        ("control.errand", (2,), "live"),
        ("control.errand", (3,), "control"),
    ]


def test_workers_know_the_task(world: World) -> None:
    app = world.module("tasks.app").app
    app.loader.import_default_modules()

    assert "control.errand" in app.tasks


def test_of_a_lost_message_another_one_goes(world: World, sent: list[Any]) -> None:
    ask(world)
    world.module("sync.job_queue").dispatch()
    world.change_rows("UPDATE errands SET due_at = now() - interval '1 h', woken_at = now() - interval '31 s'")

    world.module("sync.job_queue").dispatch()

    assert len(sent) == 2


def test_one_that_lost_its_worker_or_was_put_off_is_woken_when_it_is_due(world: World, sent: list[Any]) -> None:
    ask(world)
    world.module("sync.job_queue").dispatch()
    assert claim() is not None
    world.module("sync.job_queue").dispatch()
    at_work = len(sent)
    world.change_rows("UPDATE errands SET due_at = now(), woken_at = now() - interval '1 s'")

    world.module("sync.job_queue").dispatch()

    assert (at_work, len(sent)) == (1, 2)


def test_without_a_broker_it_stays_due(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: Any, **_options: Any) -> None:
        raise OSError("nobody there")

    monkeypatch.setattr(world.module("tasks.app").app, "send_task", away)
    ask(world)
    with written() as lines:
        world.module("sync.job_queue").dispatch()

    assert [line["event"] for line in lines] == ["broker.unreachable"]
    assert [row.state for row in world.rows(ERRANDS)] == ["due"]


def test_one_worker_at_a_time_and_the_late_one_cannot_write(world: World) -> None:
    ask(world, secret="canary")
    first = claim()
    assert first is not None
    assert claim() is None
    world.change_rows("UPDATE errands SET due_at = now()")
    second = claim()
    assert second is not None

    for write in (errands.hold, errands.end):
        with pytest.raises(LostLease), transaction() as session:
            write(session, first)  # type: ignore[operator]
    with transaction() as session:
        errands.extend_lease(session, first, 1_000)
        errands.end(session, second)

    assert [tuple(row) for row in world.rows(ERRANDS)] == [("done", None, 2, True)]


def test_what_no_worker_survives_is_given_up_by_name(world: World) -> None:
    ask(world)
    world.change_rows("UPDATE errands SET attempts = 8")

    world.run_errands()

    assert [(row.state, row.reason) for row in world.rows(ERRANDS)] == [("failed", "worker_lost")]
    assert [row.reason for row in world.rows("SELECT reason FROM failures")] == ["worker_lost"]


def test_a_defect_is_kept_with_its_place_and_never_repeated_blindly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(_errand: Any) -> None:
        raise ValueError("canary")

    monkeypatch.setitem(world.module("jobs.runtime").HANDLERS, "settings", break_down)
    ask(world)

    world.run_errands()
    world.run_errands()

    [failure] = world.rows("SELECT reason, detail, traceback, attempts FROM failures")
    assert (failure.reason, failure.attempts, "canary" in failure.detail) == ("internal_error", 1, False)
    assert "break_down" in failure.traceback


def test_what_has_ended_is_forgotten_after_its_time_and_what_failed_is_kept(world: World) -> None:
    states = ("done", "refused", "failed", "due")
    for number, state in enumerate(states):
        ask(world, key=str(number))
        world.change_rows(
            "UPDATE errands SET state = :state, ended_at = now() - interval '31 d' WHERE key = :key",
            state=state,
            key=str(number),
        )
    ask(world, key="new")
    world.change_rows("UPDATE errands SET state = 'done', ended_at = now() WHERE key = 'new'")

    world.module("sync.retention").tidy()

    assert [row.state for row in world.rows(ERRANDS)] == ["failed", "due", "done"]


def test_a_connector_that_is_removed_takes_its_errands_along(world: World) -> None:
    ask(world)
    with transaction() as session:
        remove_rows_of(session, world.connector_key)

    assert world.rows("SELECT 1 FROM errands") == []
