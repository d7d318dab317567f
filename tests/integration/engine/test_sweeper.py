"""The sweep enqueues due batches without a message or worker; in normal operation it finds no batch."""

from __future__ import annotations

from typing import Any

import pytest

from db import batch as batches
from db import batch_queue
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen, notify
from tests.journeys.pipedrive_records import age_records, create_records
from tests.logs import captured_log
from tests.system import SyncSystem


def swept() -> list[tuple[int, str]]:
    with transaction() as session:
        return sorted((wakeup.batch_id, why) for wakeup, why in batch_queue.sweep(session))


@pytest.fixture
def started(system: SyncSystem) -> SyncSystem:
    create_records(system, persons=120, organizations=0)
    age_records(system)
    system.start(Entity.PERSON)
    return system


def test_in_normal_operation_it_finds_nothing(started: SyncSystem) -> None:
    found = [swept()]
    while (due := started.next_batch()) is not None:
        started.run_batch_stage(*due)
        found.append(swept())

    assert [each for each in found if each] == []
    assert len(found) > 9


def test_a_lost_message_is_sent_again_once(started: SyncSystem) -> None:
    started.change_rows("UPDATE batches SET enqueued_at = now() - interval '21 s'")

    assert swept() == [(1, "lost"), (2, "lost")]
    assert swept() == []


def test_a_batch_that_was_just_enqueued_is_left_to_its_message(started: SyncSystem) -> None:
    started.change_rows("UPDATE batches SET enqueued_at = now() - interval '15 s'")

    assert swept() == []


def test_a_batch_that_is_due_after_a_pause_is_not_lost(started: SyncSystem) -> None:
    started.pipedrive.faults.add("/api/v2/persons$", "status", status=503)
    started.run_batch_stage(*started.next_batch())  # type: ignore[misc]
    before = swept()
    started.end_pauses()

    assert before == []
    assert swept() == [(1, "waited")]


@pytest.mark.parametrize("stage", ["extract", "transform", "load"])
def test_a_lost_worker_is_detected_when_its_lease_expires(started: SyncSystem, stage: str) -> None:
    while (due := started.next_batch()) is not None and due[2] != stage:
        started.run_batch_stage(*due)
    assert due is not None
    with transaction() as session:
        batches.claim(session, due[0], stage, lease_s=30, task_id=None)

    early = [each for each in swept() if each[0] == due[0]]
    started.expire_leases()
    late = [each for each in swept() if each[0] == due[0]]

    assert early == []
    assert late == [(due[0], "lost")]


def test_a_second_lost_message_is_sent_again_too(started: SyncSystem) -> None:
    """The worker is killed, the sweep sends a message, and the broker loses it: the batch must be enqueued again."""
    with transaction() as session:
        batches.claim(session, 1, "extract", lease_s=30, task_id=None)
    started.expire_leases()

    first, at_once = swept(), swept()
    later = "lease_until = now() - interval '22 s', enqueued_at = now() - interval '21 s'"
    started.change_rows(f"UPDATE batches SET {later} WHERE id = 1")  # noqa: S608 - a constant

    assert first == [(1, "lost")]
    assert at_once == []
    assert swept() == [(1, "lost")]


def test_batches_of_a_paused_connector_are_not_enqueued(started: SyncSystem) -> None:
    started.change_rows("UPDATE batches SET enqueued_at = NULL")
    started.change_rows("UPDATE connectors SET state = 'paused'")
    paused = swept()
    started.change_rows("UPDATE connectors SET state = 'active'")

    assert paused == []
    assert [batch_id for batch_id, _ in swept()] == [1, 2]


@pytest.mark.parametrize("state", ["waiting", "done", "failed", "cancelled"])
def test_batches_that_ended_or_wait_for_their_turn_are_not_enqueued(started: SyncSystem, state: str) -> None:
    started.change_rows("UPDATE batches SET state = :state, enqueued_at = NULL", state=state)

    assert swept() == []


def test_it_enqueues_lost_batches_and_logs_their_number(started: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[Any] = []
    monkeypatch.setattr(started.module("tasks.canvases"), "wake", lambda wakeups, **_options: woken.extend(wakeups))
    started.change_rows("UPDATE batches SET enqueued_at = now() - interval '1 min'")

    with captured_log() as lines:
        started.module("tasks.control").sweep()

    assert sorted((wakeup.batch_id, wakeup.queue, wakeup.stage) for wakeup in woken) == [
        (1, "bulk", "extract"),
        (2, "bulk", "extract"),
    ]
    assert [(line["event"], line["swept_total"]) for line in lines if line["event"].startswith("sweep.")] == [
        ("sweep.recovered", 2)
    ]


def test_it_processes_new_deliveries(system: SyncSystem) -> None:
    received = listen(system)
    system.company.create_person(name="Ada")
    deliver(system, *received)

    system.module("tasks.control").sweep()
    while (due := system.next_batch()) is not None:
        system.run_batch_stage(*due)

    assert system.users()[1]["pipedrive/name"] == "Ada"


class TestUsersBehindAccounts:
    @pytest.fixture
    def both(self, system: SyncSystem) -> SyncSystem:
        system.change_settings(link_users_in_service=True)
        user = {"user": {"id": "u1"}, "account": {"id": "a1"}, "segments": [], "account_segments": []}
        notify(system, user)
        assert system.module("sync.changes.dispatch").dispatch_changes() == 2
        system.change_rows("UPDATE batches SET enqueued_at = now() - interval '1 min' WHERE state = 'ready'")
        return system

    def batch(self, system: SyncSystem, entity: str) -> int:
        query = "SELECT id FROM batches WHERE direction = 'outgoing' AND entity = :entity"
        return int(system.rows(query, entity=entity)[0].id)

    def test_are_left_to_their_canvas_while_these_are_in_flight(self, both: SyncSystem) -> None:
        accounts = self.batch(both, "organization")

        assert swept() == [(accounts, "lost")]
        both.change_rows(
            "UPDATE batches SET state = 'running', lease_until = now() + interval '1 min' WHERE id = :id", id=accounts
        )
        assert swept() == []

    @pytest.mark.parametrize("change", ["state = 'failed'", "state = 'done'", "due_at = now() + interval '1 min'"])
    def test_are_enqueued_when_these_have_stopped(self, both: SyncSystem, change: str) -> None:
        both.change_rows(f"UPDATE batches SET {change} WHERE id = :id", id=self.batch(both, "organization"))  # noqa: S608

        assert swept() == [(self.batch(both, "person"), "lost")]
