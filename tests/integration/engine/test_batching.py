"""Under load many changes share one batch: no new batch is created while one of its kind waits for a worker."""

from __future__ import annotations

import json

import pytest

from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import create_records, hull_names, pipedrive_names
from tests.system import SyncSystem


@pytest.fixture
def edited(system: SyncSystem) -> list[bytes]:
    """Webhooks about six Persons that are not known yet."""
    received = listen(system)
    create_records(system, persons=6, organizations=0)
    return [json.dumps(body).encode() for body in received]


def live_batches(system: SyncSystem) -> list[tuple[str, str]]:
    return [tuple(row) for row in system.rows("SELECT stage, state FROM batches WHERE queue = 'live' ORDER BY id")]


def waiting(system: SyncSystem) -> int:
    return len(system.rows("SELECT 1 FROM changes WHERE batch_id IS NULL"))


def test_changes_wait_behind_a_batch_that_has_not_begun(system: SyncSystem, edited: list[bytes]) -> None:
    for body in edited:
        deliver(system, body)
        system.module("sync.changes.dispatch").dispatch_changes()

    assert live_batches(system) == [("extract", "ready")]
    assert waiting(system) == 5


def test_once_it_has_begun_the_next_batch_may_begin(system: SyncSystem, edited: list[bytes]) -> None:
    deliver(system, edited[0])
    system.module("sync.changes.dispatch").dispatch_changes()
    due = system.next_batch()
    assert due is not None
    system.run_batch_stage(*due)
    for body in edited[1:]:
        deliver(system, body)
        system.module("sync.changes.dispatch").dispatch_changes()

    assert live_batches(system) == [("transform", "ready"), ("extract", "ready")]
    assert waiting(system) == 4


def test_the_end_of_a_batch_starts_the_changes_that_waited_behind_it(system: SyncSystem, edited: list[bytes]) -> None:
    for body in edited:
        deliver(system, body)
        system.module("sync.changes.dispatch").dispatch_changes()
    for _ in range(3):
        due = system.next_batch()
        assert due is not None
        system.run_batch_stage(*due)

    assert live_batches(system) == [("load", "done"), ("extract", "ready")]
    assert waiting(system) == 0
    system.work()
    assert hull_names(system) == pipedrive_names(system)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE batches SET enqueued_at = now() - interval '10 s'",
        "UPDATE batches SET due_at = now() + interval '1 minute'",
        "UPDATE batches SET entity = 'organization'",
        "UPDATE batches SET direction = 'outgoing'",
        "UPDATE batches SET direction = 'outgoing', entity = 'organization'",
    ],
    ids=["its message was lost", "it was put off", "another entity", "another direction", "another of both"],
)
def test_a_batch_that_begins_later_or_of_another_kind_delays_nothing(
    system: SyncSystem, edited: list[bytes], change: str
) -> None:
    deliver(system, edited[0])
    system.module("sync.changes.dispatch").dispatch_changes()
    system.change_rows(change)

    deliver(system, edited[1])
    made = system.module("sync.changes.dispatch").dispatch_changes()

    assert made == 1
    assert waiting(system) == 0
