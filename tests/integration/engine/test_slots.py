"""Slots: calls of all connectors to a stalled remote system block only a part of the live processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from db import batch as batches
from db import schedule
from db import slot as slots
from db.connector import Connector
from db.session import transaction
from pipeline.errors import LostLease
from tests.system import SyncSystem

LEASE_S = 30.0


def processes(count: int) -> None:
    """Register this number of processes for live batches."""
    with transaction() as session:
        schedule.note_heartbeats(session, [f"{schedule.LIVE_PROCESS}live@host {number}" for number in range(count)])


def connector(name: str, *, company: int | None, hull: str) -> int:
    with transaction() as session:
        added = Connector(id=name, name=name, hull_organization=hull, company_id=company)
        session.add(added)
        session.flush()
        return added.key


def begin(connector_key: int, stage: str = "extract") -> batches.ClaimedBatch:
    """Return a live batch that a worker has just claimed."""
    with transaction() as session:
        row = batches.Batch(
            connector_key=connector_key, direction="incoming", entity="person", queue="live", state="ready", stage=stage
        )
        session.add(row)
        session.flush()
        batch = batches.claim(session, row.id, stage, lease_s=LEASE_S, task_id="t")
    assert batch is not None
    return batch


def takes(batch: batches.ClaimedBatch, remote: str = "pipedrive", at_once: int = 3) -> bool:
    with transaction() as session:
        return slots.take(session, batch, remote, at_once=at_once, lease_s=LEASE_S).is_ours


def test_connectors_of_one_company_share_its_slots(system: SyncSystem) -> None:
    processes(4)
    first, second = connector("a", company=7, hull="a.test"), connector("b", company=7, hull="b.test")
    other = connector("c", company=8, hull="c.test")

    assert [takes(begin(key)) for key in (first, second, first, second, first)] == [True, True, True, False, False]
    assert takes(begin(other)), "another company has slots of its own"
    assert takes(begin(second), "hull"), "so has Hull"


def test_connectors_of_one_hull_organization_share_its_slots(system: SyncSystem) -> None:
    processes(4)
    keys = [connector(name, company=number, hull="same.test") for number, name in enumerate("abcd")]

    assert [takes(begin(key), "hull") for key in keys] == [True, True, True, False]


@pytest.mark.parametrize(("count", "at_once", "of_remote"), [(1, 3, 1), (2, 3, 1), (3, 3, 2), (4, 3, 3), (9, 3, 3)])
def test_one_process_is_left_for_other_work(system: SyncSystem, count: int, at_once: int, of_remote: int) -> None:
    processes(count)

    taken = [takes(begin(system.connector_key), at_once=at_once) for _ in range(of_remote + 1)]

    assert taken == [True] * of_remote + [False]


def test_a_connector_with_two_stalled_systems_leaves_a_process_for_other_work(system: SyncSystem) -> None:
    processes(4)

    wanted = [
        (begin(system.connector_key), remote) for remote in ("pipedrive", "pipedrive", "hull", "hull", "pipedrive")
    ]

    assert [takes(batch, remote) for batch, remote in wanted] == [True, True, True, False, False]
    assert takes(begin(connector("other", company=9, hull="other.test")))


def test_a_process_without_a_heartbeat_does_not_count(system: SyncSystem) -> None:
    processes(4)
    system.change_rows("UPDATE heartbeats SET at = now() - interval '21 s' WHERE name LIKE '% 3'")

    assert [takes(begin(system.connector_key)) for _ in range(3)] == [True, True, False]


def test_concurrent_batches_take_no_more_slots_than_there_are(system: SyncSystem) -> None:
    processes(4)
    begun = [begin(system.connector_key) for _ in range(12)]

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(takes, begun)) == 3


def test_a_killed_worker_holds_its_slot_for_half_a_lease_at_most(system: SyncSystem) -> None:
    processes(4)
    for _ in range(3):
        assert takes(begin(system.connector_key))
    system.change_rows("UPDATE batches SET lease_until = lease_until - interval '14 s'")
    assert not takes(begin(system.connector_key)), "a worker that lives extends after a third"

    system.change_rows("UPDATE batches SET lease_until = lease_until - interval '1.1 s' WHERE slot IS NOT NULL")

    assert takes(begin(system.connector_key))


def test_a_slot_ends_with_its_stage(system: SyncSystem) -> None:
    processes(2)
    first = begin(system.connector_key)
    assert takes(first)
    assert not takes(begin(system.connector_key))

    with transaction() as session:
        batches.pass_to_transform(session, first.id, b"[]", records=0)
    assert takes(begin(system.connector_key))

    with transaction() as session:
        assert batches.claim(session, first.id, "transform", lease_s=LEASE_S, task_id="t")
    assert system.rows("SELECT slot FROM batches WHERE id = :id", id=first.id)[0].slot is None


def test_a_worker_that_lost_its_lease_takes_no_slot(system: SyncSystem) -> None:
    batch = begin(system.connector_key)
    with transaction() as session:
        session.execute(text("UPDATE batches SET lease_token = gen_random_uuid() WHERE id = :id"), {"id": batch.id})

    with pytest.raises(LostLease), transaction() as session:
        slots.take(session, batch, "pipedrive", at_once=3, lease_s=LEASE_S)


def test_a_batch_waits_for_a_slot_that_was_just_taken(system: SyncSystem) -> None:
    processes(2)
    assert takes(begin(system.connector_key))
    waiting = begin(system.connector_key)

    def stalled() -> bool:
        with transaction() as session:
            return slots.take(session, waiting, "pipedrive", at_once=3, lease_s=LEASE_S).is_stalled

    assert not stalled()
    system.change_rows("UPDATE batches SET slot_at = slot_at - interval '1 s' WHERE slot IS NOT NULL")
    assert stalled()


def test_the_first_batch_that_waits_for_a_system_gets_its_next_free_slot(system: SyncSystem) -> None:
    first, second = connector("a", company=7, hull="a.test"), connector("b", company=7, hull="b.test")
    other = connector("c", company=8, hull="c.test")
    waiting = [begin(key) for key in (other, second, first)]
    with transaction() as session:
        for batch in waiting:
            batches.put_off(session, batch, 15.0, counted=False, waits_for="turn")

    with transaction() as session:
        woken = slots.next_in_turn(session, first, "pipedrive")

    assert [each.batch_id for each in woken] == [waiting[1].id]
    due = system.rows("SELECT id FROM batches WHERE state = 'ready' AND due_at <= now()")
    assert [row.id for row in due] == [waiting[1].id]


@pytest.mark.parametrize(
    ("before_any_call", "age_s", "is_kept"), [(True, 0, True), (True, 50, False), (False, 0, False)]
)
def test_an_outgoing_batch_that_only_waited_for_its_turn_keeps_its_staged_data(
    system: SyncSystem, before_any_call: bool, age_s: int, is_kept: bool
) -> None:
    with transaction() as session:
        row = batches.Batch(
            connector_key=system.connector_key,
            direction="outgoing",
            entity="person",
            queue="live",
            state="ready",
            stage="load",
            extracted=b"candidates",
            transformed=b"decisions",
        )
        session.add(row)
        session.flush()
        batch = batches.claim(session, row.id, "load", lease_s=LEASE_S, task_id="t")
    assert batch is not None
    system.change_rows("UPDATE batches SET created_at = now() - make_interval(secs => :age_s)", age_s=age_s)

    with transaction() as session:
        batches.put_off(session, batch, 15.0, counted=False, waits_for="turn", before_any_call=before_any_call)

    (staged,) = system.rows("SELECT extracted IS NOT NULL, transformed IS NOT NULL FROM batches")
    assert tuple(staged) == (is_kept, is_kept)
