"""Deliveries become changes in one order, so that several workers may coalesce them at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread

from sqlalchemy import text

from db import change_writer
from db import delivery as deliveries
from db.change_writer import DeliverySummary
from db.session import transaction
from tests.system import SyncSystem

BEHIND_ME = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_blocking_pids(pid) @> ARRAY[pg_backend_pid()]"
PATIENCE = 20_000


def summaries(system: SyncSystem, record_ids: Sequence[int]) -> list[DeliverySummary]:
    with transaction() as session:
        kept = [deliveries.keep_delivery(session, system.connector_key, "pipedrive", f"{n}", b"{}") for n in record_ids]
    return [
        DeliverySummary(
            delivery_id=delivery_id or 0,
            entity="person",
            record_id=str(record_id),
            rank=1,
            is_usable=True,
            is_created=False,
        )
        for record_id, delivery_id in zip(record_ids, kept, strict=True)
    ]


def test_two_that_coalesce_the_same_records_in_opposite_orders_do_not_deadlock(system: SyncSystem) -> None:
    one, two = summaries(system, [1, 2])

    def coalesce_backwards() -> None:
        with transaction() as session:
            change_writer.write_webhooks(session, [two, one])

    other = Thread(target=coalesce_backwards)
    with transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '5s'"))
        change_writer.write_webhooks(session, [one])
        other.start()
        for _ in range(PATIENCE):  # until the other one stands in line, behind the first record
            if session.execute(text(BEHIND_ME)).scalar_one():
                break
        change_writer.write_webhooks(session, [two])
    other.join()

    rows = system.rows("SELECT record_id, revision FROM changes ORDER BY record_id")
    assert [tuple(row) for row in rows] == [("1", 2), ("2", 2)]


def test_the_end_of_a_batch_and_coalescing_do_not_deadlock(system: SyncSystem) -> None:
    one, two = summaries(system, [1, 2])
    with transaction() as session:
        change_writer.write_webhooks(session, [two])
        change_writer.write_webhooks(session, [one])
    system.module("sync.changes.dispatch").dispatch_changes()
    (batch,) = system.rows("SELECT id FROM batches")

    def clear() -> None:
        with transaction() as session:
            change_writer.clear_changes(session, batch.id)

    other = Thread(target=clear)
    with transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '5s'"))
        change_writer.write_webhooks(session, [one])
        other.start()
        for _ in range(PATIENCE):
            if session.execute(text(BEHIND_ME)).scalar_one():
                break
        change_writer.write_webhooks(session, [two])
    other.join()

    rows = system.rows("SELECT record_id, batch_id FROM changes ORDER BY record_id")
    assert [tuple(row) for row in rows] == [("1", None), ("2", None)]


def test_a_hint_removes_the_payload_whenever_it_was_sent(system: SyncSystem) -> None:
    (one,) = summaries(system, [1])
    with transaction() as session:
        change_writer.write_webhooks(session, [one])
        usable = session.execute(text("SELECT payload IS NOT NULL FROM changes")).scalar_one()
        hint = DeliverySummary(
            delivery_id=one.delivery_id, entity="person", record_id="1", rank=0, is_usable=False, is_created=True
        )
        change_writer.write_webhooks(session, [hint])

    (row,) = system.rows("SELECT payload, rank, is_created, revision FROM changes")
    assert (usable, tuple(row)) == (True, (None, 1, True, 2))
