"""The upkeep deletes what is past its retention and nothing else, and blocks no other transaction."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from db import sync_event
from db.session import transaction
from pipeline.sync import upkeep
from pipeline.sync.stage import StageFailed
from tests.logs import captured_log
from tests.system import SyncSystem


def test_the_upkeep_deletes_processed_deliveries_and_ended_batches_past_their_retention(system: SyncSystem) -> None:
    with transaction() as session:
        for key, state, days in (("old", "processed", 40), ("old-new", "new", 40), ("fresh", "processed", 1)):
            session.execute(
                text(
                    "INSERT INTO deliveries (connector_key, source, key, body, state, received_at)"
                    " VALUES (:c, 'hull', :key, '', :state, now() - make_interval(days => :days))"
                ),
                {"c": system.connector_key, "key": key, "state": state, "days": days},
            )
        for state in ("done", "failed", "cancelled"):
            session.execute(
                text(
                    "INSERT INTO batches (connector_key, direction, entity, queue, state, created_at)"
                    " VALUES (:c, 'incoming', 'person', 'live', :state, now() - interval '40 days')"
                ),
                {"c": system.connector_key, "state": state},
            )

    upkeep.tidy()

    assert {row.key for row in system.rows("SELECT key FROM deliveries")} == {"old-new", "fresh"}
    assert [row.state for row in system.rows("SELECT state FROM batches")] == ["failed"]


def test_a_failed_step_does_not_prevent_the_others(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def step(name: str) -> Callable[[], None]:
        def turn() -> None:
            turns.append(name)
            if name == "dropped":
                raise OperationalError("", {}, Exception())

        return turn

    steps = list(upkeep.STEPS)
    monkeypatch.setattr(upkeep, "STEPS", {name: step(name) for name in steps})

    with captured_log("error") as log, pytest.raises(StageFailed, match="dropped"):
        upkeep.tidy()

    assert turns == steps
    assert [(line["event"], line["step"]) for line in log] == [("tidy.step_failed", "dropped")]


def test_many_rows_are_deleted_in_several_transactions(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "AT_ONCE", 10)
    system.change_rows(
        "INSERT INTO deliveries (connector_key, source, key, body, state, received_at)"
        " SELECT :c, 'hull', n, '', 'processed', now() - interval '40 days' FROM generate_series(1, 35) n",
        c=system.connector_key,
    )

    assert upkeep.STEPS["deliveries"]() == 35
    assert system.rows("SELECT 1 FROM deliveries") == []


def test_failures_and_jobs_that_ended_long_ago_are_deleted_and_open_ones_are_kept(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "AT_ONCE", 2)
    system.change_rows(
        "INSERT INTO failures (connector_key, kind, subject, direction, entity, stage, reason, detail, fingerprint, state,"
        " updated_at) SELECT :c, 'record', n, 'incoming', 'person', 'load', 'x', '', '',"
        " CASE WHEN n % 2 = 0 THEN 'open' ELSE 'discarded' END,"
        " now() - make_interval(days => CASE WHEN n = 1 THEN 80 ELSE 100 END) FROM generate_series(1, 10) n",
        c=system.connector_key,
    )
    system.change_rows(
        "INSERT INTO jobs (connector_key, kind, dedupe_key, state, ended_at)"
        " SELECT :c, 'status', n, CASE WHEN n = 1 THEN 'due' ELSE 'done' END,"
        " CASE WHEN n > 1 THEN now() - interval '31 days' END FROM generate_series(1, 6) n",
        c=system.connector_key,
    )

    upkeep.tidy()

    assert [row.id for row in system.rows("SELECT id FROM failures ORDER BY id")] == [1, 2, 4, 6, 8, 10]
    assert [row.state for row in system.rows("SELECT state FROM jobs")] == ["due"]


def test_a_discarded_batch_is_deleted_with_its_failure_and_one_that_failed_again_is_kept(system: SyncSystem) -> None:
    """Batches 1 and 2 have a failure that was discarded long ago. Batch 2 was revived before, and its second failure is open.
    The failure of batch 3 was discarded yesterday. Batch 4 is of Organizations, which no full fetch has read since.
    """
    system.change_rows(
        "INSERT INTO batches (connector_key, direction, entity, queue, state, extracted, created_at)"
        " SELECT :c, 'incoming', CASE WHEN n = 4 THEN 'organization' ELSE 'person' END, 'bulk', 'failed', 'page',"
        " now() - interval '200 days' FROM generate_series(1, 4) n",
        c=system.connector_key,
    )
    system.change_rows(
        "INSERT INTO failures (connector_key, kind, subject, batch_id, direction, entity, stage, reason, detail, fingerprint,"
        " state, updated_at)"
        " SELECT :c, 'batch', 'batch:' || batch, batch, 'incoming', CASE WHEN batch = 4 THEN 'organization' ELSE 'person' END,"
        " 'load', 'x', '', '', state, now() - make_interval(days => age)"
        " FROM (VALUES (1, 'discarded', 100), (2, 'discarded', 100), (2, 'open', 95), (3, 'discarded', 1),"
        " (4, 'discarded', 100)) f(batch, state, age)",
        c=system.connector_key,
    )
    system.change_rows(
        "INSERT INTO watermarks (connector_key, entity, fully_read_at) VALUES (:c, 'person', now() - interval '1 day')",
        c=system.connector_key,
    )
    system.change_rows(
        "INSERT INTO changes (connector_key, direction, entity, record_id, cause, batch_id)"
        " SELECT :c, 'incoming', 'person', n, 'webhook', n FROM generate_series(1, 4) n",
        c=system.connector_key,
    )

    upkeep.STEPS["failures"]()

    rows = system.rows("SELECT state, extracted IS NOT NULL AS is_staged FROM batches ORDER BY id")
    assert [tuple(row) for row in rows] == [("cancelled", False), *[("failed", True)] * 3]
    assert [row.batch_id for row in system.rows("SELECT batch_id FROM changes ORDER BY id")] == [2, 3, 4]
    assert system.rows("SELECT 1 FROM failures WHERE batch_id = 4") != []
    assert upkeep.STEPS["batches"]() == 1


def test_an_old_partition_in_use_is_kept_and_writers_wait_a_second_at_most(
    system: SyncSystem,
) -> None:
    long_ago = datetime.now(UTC).date() - timedelta(days=200)
    with transaction() as session:
        sync_event.make_partitions(session, long_ago, 0)
    with transaction() as reader:
        reader.execute(text("SELECT 1 FROM sync_events LIMIT 1"))
        began = time.monotonic()
        with pytest.raises(OperationalError):
            upkeep.STEPS["dropped"]()
        assert time.monotonic() - began < 10

    assert upkeep.STEPS["dropped"]() == [f"sync_events_{long_ago:%Y%m%d}"]
    assert upkeep.STEPS["dropped"]() == []
