"""Leases: a batch has one worker at a time, and a worker that lost its lease writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from threading import enumerate as enumerate_threads
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db import batch as batches
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.errors import LostLease
from tests.deliveries import deliver, listen, notify
from tests.integration.engine.tables import differences, everything
from tests.journeys.pipedrive_records import age_records, create_records
from tests.logs import captured_log
from tests.system import SyncSystem

Due = tuple[int, str, str]


def claim(batch_id: int, stage: str, lease_s: float = 30.0) -> batches.ClaimedBatch | None:
    with transaction() as session:
        return batches.claim(session, batch_id, stage, lease_s=lease_s, task_id="t")


@pytest.fixture
def batch(system: SyncSystem) -> int:
    """A batch that is ready for extract."""
    system.start(Entity.PERSON)
    due = system.next_batch()
    assert due is not None
    return due[0]


def test_a_batch_is_claimed_by_one_worker(system: SyncSystem, batch: int) -> None:
    first, second = claim(batch, "extract"), claim(batch, "extract")

    assert first is not None
    assert second is None
    assert first.attempts == 1


def test_a_batch_at_another_stage_is_not_claimed(system: SyncSystem, batch: int) -> None:
    assert claim(batch, "transform") is None
    assert claim(batch, "load") is None
    assert claim(999, "extract") is None


def test_a_batch_that_is_not_due_is_not_claimed(system: SyncSystem, batch: int) -> None:
    system.change_rows("UPDATE batches SET due_at = now() + interval '1 s'")

    assert claim(batch, "extract") is None


@pytest.mark.parametrize("state", ["waiting", "done", "failed", "cancelled"])
def test_a_batch_that_is_not_ready_is_not_claimed(system: SyncSystem, batch: int, state: str) -> None:
    system.change_rows("UPDATE batches SET state = :state", state=state)

    assert claim(batch, "extract") is None


def test_a_batch_with_an_expired_lease_is_claimed_with_a_new_token(system: SyncSystem, batch: int) -> None:
    first = claim(batch, "extract")
    system.expire_leases()
    second = claim(batch, "extract")

    assert first is not None
    assert second is not None
    assert (second.attempts, second.token != first.token) == (2, True)
    with transaction() as session:
        batches.hold(session, second)
    with pytest.raises(LostLease), transaction() as session:
        batches.hold(session, first)


def test_a_lost_lease_cannot_be_extended(system: SyncSystem, batch: int) -> None:
    first = claim(batch, "extract")
    system.expire_leases()
    second = claim(batch, "extract", lease_s=100)
    assert first is not None
    assert second is not None

    with transaction() as session:
        batches.extend_lease(session, first, 10_000)

    (row,) = system.rows("SELECT extract(epoch FROM lease_until - now()) AS left FROM batches WHERE id = :id", id=batch)
    assert row.left <= 100


class Beats(Event):
    """A manual clock: the first third of the lease passes immediately, the second one when the stage has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[float | None] = []
        self.extended = Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.turns.append(timeout)
        if len(self.turns) == 1:
            return False
        self.extended.set()
        return super().wait(10)


def test_a_lease_is_extended_only_while_a_stage_works(
    system: SyncSystem, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, beats = system.module("sync.stage"), Beats()
    monkeypatch.setattr(lease, "Event", lambda: beats)
    claimed = claim(batch, "extract", lease_s=30.0)
    assert claimed is not None
    system.expire_leases()

    with lease.lease_kept(
        lambda session, lease_s: batches.extend_lease(session, claimed, lease_s), began=time.monotonic()
    ):
        assert beats.extended.wait(10)
        (row,) = system.rows("SELECT lease_until > now() AS kept FROM batches WHERE id = :id", id=batch)
    for keeper in [thread for thread in enumerate_threads() if thread.name == "lease"]:
        keeper.join(10)

    assert row.kept
    assert beats.turns == [10.0] * 2


# --- every stage, of every kind of batch -----------------------------------------------------------------------------


def a_page(system: SyncSystem) -> None:
    create_records(system, persons=60, organizations=5)
    age_records(system)
    system.start(Entity.PERSON)


def a_live_batch(system: SyncSystem) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    messages = listen(system)
    for number in (1, 2):
        system.company.edit_person(number, name=f"Edited {number}")
    deliver(system, *messages)
    system.module("sync.changes.dispatch").dispatch_changes()


def an_outgoing_batch(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    create_records(system, persons=3, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    users = system.users()
    notify(system, *[{"user": {**users[number], "nickname": f"New {number}"}, "segments": []} for number in (1, 2, 3)])
    system.module("sync.changes.dispatch").dispatch_changes()


KINDS = [
    (kind, stage) for kind in (a_page, a_live_batch, an_outgoing_batch) for stage in ("extract", "transform", "load")
]


def bring_to(system: SyncSystem, stage: str) -> Due:
    """Work until a batch is ready for this stage."""
    while (due := system.next_batch()) is not None:
        if due[2] == stage:
            return due
        system.run_batch_stage(*due)
    raise AssertionError(f"nothing comes to {stage}")


@pytest.mark.parametrize(("kind", "stage"), KINDS)
def test_a_stage_run_twice_changes_nothing(system: SyncSystem, kind: Callable[[SyncSystem], None], stage: str) -> None:
    kind(system)
    due = bring_to(system, stage)
    system.run_batch_stage(*due)
    before, messages = everything(), system.hull.received.count

    system.run_batch_stage(*due)

    assert differences(before, everything()) == {}
    assert system.hull.received.count == messages


@pytest.mark.parametrize(("kind", "stage"), KINDS)
def test_a_stage_does_nothing_if_its_batch_is_in_another_stage(
    system: SyncSystem, kind: Callable[[SyncSystem], None], stage: str
) -> None:
    kind(system)
    due = bring_to(system, stage)
    before = everything()

    for other in {"extract", "transform", "load"} - {stage}:
        system.run_batch_stage(due[0], due[1], other)

    assert differences(before, everything()) == {}


@pytest.mark.parametrize(("kind", "stage"), KINDS)
def test_a_worker_that_lost_its_lease_writes_nothing_at_any_stage(
    system: SyncSystem, kind: Callable[[SyncSystem], None], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker stops before its last transaction; another worker completes this stage and the next ones."""
    kind(system)
    due = bring_to(system, stage)
    real, frozen = batches.hold, []
    left: list[Any] = []
    holds_before_the_last = 1 if (due[1], stage) == ("incoming", "load") else 0

    def hold(session: Any, batch: batches.ClaimedBatch) -> None:
        frozen.append(batch)
        if len(frozen) == 1 + holds_before_the_last:
            system.expire_leases()
            system.run_batch_stage(*due)
            left.append(everything())
        real(session, batch)

    monkeypatch.setattr(batches, "hold", hold)
    with captured_log() as lines:
        system.run_batch_stage(*due)

    assert differences(left[0], everything()) == {}
    assert [line["stage"] for line in lines if line["event"] == "batch.lease_lost"] == [stage]


def test_a_worker_that_lost_its_lease_and_fails_changes_nothing(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker loses its lease, and then its work fails: neither a retry nor a failure may be stored."""
    a_page(system)
    due = bring_to(system, "transform")
    incoming = system.module("tasks.incoming")

    def break_down(*_args: Any) -> Any:
        system.expire_leases()
        assert claim(due[0], "transform") is not None
        raise ValueError("canary value")

    monkeypatch.setattr(incoming, "transform_batch", break_down)
    with captured_log() as lines:
        system.run_batch_stage(*due)

    (row,) = system.rows("SELECT state, attempts FROM batches WHERE id = :id", id=due[0])
    assert (row.state, row.attempts) == ("running", 2)
    assert system.rows("SELECT 1 FROM failures") == []
    assert "canary value" not in str(lines)


def test_an_error_that_cannot_be_stored_is_left_to_the_end_of_the_lease(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is lost in the middle of a stage: nothing is stored, and nothing of the record is logged."""
    a_page(system)
    due = bring_to(system, "transform")

    def break_down(*_args: Any) -> Any:
        raise ValueError("canary value")

    def away(*_args: Any, **_options: Any) -> Any:
        raise OperationalError("SELECT 1", {}, Exception("gone away"))

    with monkeypatch.context() as patch, captured_log() as lines:
        patch.setattr(system.module("tasks.incoming"), "transform_batch", break_down)
        patch.setattr(system.module("sync.stage").failures, "keep_failures", away)
        system.run_batch_stage(*due)
    (row,) = system.rows("SELECT state FROM batches WHERE id = :id", id=due[0])
    system.expire_leases()
    system.work()

    assert row.state == "running"
    assert [(line["event"], line["reason"]) for line in lines if line["log_level"] == "error"] == [
        ("batch.not_settled", "database_unavailable")
    ]
    assert "canary value" not in str(lines)
    assert len(system.users()) == 60


class Turns:
    """An event that allows the lease keeper this number of turns without a pause."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._over = Event()
        self.waited: list[float] = []

    def wait(self, timeout: float) -> bool:
        self.waited.append(timeout)
        self._left -= 1
        return self._over.wait(10) if self._left < 0 else False

    def set(self) -> None:
        self._over.set()


def keep_for(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch, turns: int, extend: Callable[..., bool]
) -> tuple[Turns, Any]:
    """Let the keeper have its turns, then end the work; return the turns and the lease."""
    module, given = system.module("sync.stage"), Turns(turns)
    monkeypatch.setattr(module, "Event", lambda: given)
    with module.lease_kept(extend, began=time.monotonic() - 25) as lease:
        while len(given.waited) <= turns and any(each.name == "lease" for each in enumerate_threads()):
            time.sleep(0.001)
    return given, lease


@pytest.mark.parametrize("error", [PoolTimeout(), RuntimeError("whatever"), OperationalError("", {}, Exception())])
def test_no_error_ends_the_keeper(system: SyncSystem, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    errors = [error]

    def extend(_session: Any, _lease_s: float) -> bool:
        if errors:
            raise errors.pop()
        return True

    turns, lease = keep_for(system, monkeypatch, 2, extend)

    assert turns.waited == [10.0, 1.0, 10.0]
    assert lease.write_deadline_s(60.0) == pytest.approx(30.0, abs=5.0)


def test_a_worker_writes_nothing_after_another_one_has_claimed_its_batch(
    system: SyncSystem, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = claim(batch, "extract")
    assert claimed is not None
    system.expire_leases()
    assert claim(batch, "extract") is not None

    _, lease = keep_for(
        system, monkeypatch, 1, lambda session, lease_s: batches.extend_lease(session, claimed, lease_s)
    )

    with pytest.raises(LostLease):
        lease.write_deadline_s(1.0)
