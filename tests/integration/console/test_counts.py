"""Events are counted once each, whenever they commit; charts and metrics live of these counts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from db import event_count, failure, failure_closing, failure_filter
from db.connector import remove_rows_of
from db.session import engine, transaction
from pipeline.domain.kinds import Entity
from pipeline.sync import upkeep
from tests.integration.console.conftest import ConsoleClient
from tests.system import CONNECTOR_ID, SyncSystem

SUCCESS, SKIP = "incoming.user.success", "outgoing.user.skip"
NOW = datetime.now(UTC)
_ADD = """
    INSERT INTO sync_events (at, connector_key, event, entity, reason, cause)
    SELECT CAST(:at AS timestamptz), :c, :event, 'person', :reason, 'test' FROM generate_series(1, :n)"""


def add(system: SyncSystem, event: str, at: datetime, n: int = 1, reason: str | None = None) -> None:
    system.change_rows(_ADD, at=at, c=system.connector_key, event=event, reason=reason, n=n)


def counted(system: SyncSystem, unit: str = "hour", since: datetime = NOW - timedelta(days=200)) -> dict[str, int]:
    with transaction() as session:
        found = event_count.counts_since(session, system.connector_key, since, unit)
    totals: dict[str, int] = {}
    for each in found:
        totals[each.event] = totals.get(each.event, 0) + each.n
    return totals


def stored(system: SyncSystem) -> int:
    return int(system.rows("SELECT coalesce(sum(n), 0) AS n FROM event_counts")[0].n)


def test_every_event_is_counted_once_however_often_the_tick_comes(system: SyncSystem) -> None:
    add(system, SUCCESS, NOW - timedelta(hours=30), 3)
    add(system, SUCCESS, NOW - timedelta(minutes=5), 4)
    add(system, SKIP, NOW - timedelta(minutes=5), 2, reason="not_in_segment")

    for _ in range(3):
        upkeep.count_events()

    assert counted(system) == {SUCCESS: 7, SKIP: 2}
    assert stored(system) == 9


def test_events_after_the_last_tick_are_counted_directly(system: SyncSystem) -> None:
    upkeep.count_events()
    before = counted(system)
    add(system, SUCCESS, datetime.now(UTC), 5)

    assert counted(system).get(SUCCESS, 0) - before.get(SUCCESS, 0) == 5
    assert stored(system) == 0


def test_a_transaction_that_commits_late_is_counted_all_the_same(system: SyncSystem) -> None:
    upkeep.count_events()
    late = engine().connect()
    late.execute(text("SELECT 1"))  # its events will bear this moment
    late.execute(text(_ADD.replace("CAST(:at AS timestamptz)", "now()")), {
        "c": system.connector_key, "event": SUCCESS, "reason": None, "n": 2,
    })  # fmt: skip
    add(system, SKIP, datetime.now(UTC))
    upkeep.count_events()
    mark_while_open = _mark()
    late.commit()
    started = late.execute(text("SELECT max(at) FROM sync_events WHERE event = :e"), {"e": SUCCESS}).scalar_one()
    late.close()

    assert mark_while_open <= started
    assert counted(system) == {SUCCESS: 2, SKIP: 1}


def _mark() -> datetime:
    with transaction() as session:
        found = event_count.counted_to(session)
    assert found is not None
    return found


def test_where_reading_begins_follows_the_mark_and_never_passes_it(system: SyncSystem) -> None:
    for _ in range(3):
        add(system, SUCCESS, datetime.now(UTC))
        upkeep.count_events()
    system.change_rows("UPDATE event_count_mark SET counted_to = counted_to - interval '3 s'")
    (row,) = system.rows("""
        SELECT m.above_id, (SELECT min(id) FROM sync_events WHERE at >= m.counted_to + interval '3 s') AS first
          FROM event_count_mark m""")

    assert row.first is None or row.above_id < row.first


def test_minutes_become_hours_and_hours_a_sum_and_no_total_shrinks(system: SyncSystem) -> None:
    for age in (timedelta(minutes=10), timedelta(hours=8), timedelta(hours=8, minutes=7), timedelta(days=100)):
        system.change_rows(
            "INSERT INTO event_counts VALUES (:c, date_trunc('minute', CAST(:at AS timestamptz)), :e, '', 5)",
            c=system.connector_key, at=NOW - age, e=SUCCESS,
        )  # fmt: skip

    for _ in range(2):
        upkeep.tidy()

    ages = [row.at for row in system.rows("SELECT at FROM event_counts ORDER BY at")]
    assert ages[0] == datetime(1970, 1, 1, tzinfo=UTC)
    assert all(at.minute == 0 for at in ages[:-1])
    assert stored(system) == 20


def test_outdated_counts_do_not_cause_a_count_of_all_events(system: SyncSystem) -> None:
    """Without workers the page shows the age of its figures, and does not count hours of events."""
    system.change_rows(
        "INSERT INTO event_count_mark VALUES (1, now() - interval '10 minutes', 0, now() - interval '10 minutes', 0)"
    )
    add(system, SUCCESS, NOW - timedelta(minutes=5))

    assert counted(system) == {}


@pytest.mark.parametrize("unit", ["minute", "hour"])
def test_counts_come_by_the_minute_or_the_hour(system: SyncSystem, unit: str) -> None:
    at = (NOW - timedelta(minutes=30)).replace(second=30, microsecond=0)
    add(system, SUCCESS, at, 2)
    upkeep.count_events()
    with transaction() as session:
        (found,) = event_count.counts_since(session, system.connector_key, NOW - timedelta(hours=2), unit)

    assert found.n == 2
    assert found.at == (at.replace(second=0) if unit == "minute" else at.replace(minute=0, second=0))


def test_metrics_contain_all_events_and_running_fetches(system: SyncSystem, viewer: ConsoleClient) -> None:
    add(system, SUCCESS, NOW - timedelta(days=2), 4)
    upkeep.count_events()
    run_id = system.start(Entity.PERSON)
    system.change_rows("UPDATE runs SET read = 12 WHERE id = :id", id=run_id)

    metrics = viewer.text("/metrics")

    labels = f'connector="{CONNECTOR_ID}",direction="incoming",event="{SUCCESS}",outcome="success"'
    assert f"pipeline_events_total{{{labels}}} 4.0" in metrics
    assert f'pipeline_run_records{{connector="{CONNECTOR_ID}",entity="person",kind="full"}} 12.0' in metrics


KINDS = "connector_key, kind, direction, entity, reason"


def recounted(system: SyncSystem) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Open failures by kind, as they are kept and as they are counted."""
    kept = "SELECT KINDS, sum(n) FROM failure_counts GROUP BY KINDS HAVING sum(n) <> 0 ORDER BY KINDS"
    counted = "SELECT KINDS, count(*) FROM failures WHERE state = 'open' GROUP BY KINDS ORDER BY KINDS"
    found = [system.rows(query.replace("KINDS", KINDS)) for query in (kept, counted)]
    return [tuple(row) for row in found[0]], [tuple(row) for row in found[1]]


def failed(system: SyncSystem, number: int, reason: str = "option_unknown") -> failure.NewFailure:
    return failure.NewFailure(
        connector_key=system.connector_key,
        kind="record",
        subject=f"incoming:person:{number}",
        direction="incoming",
        entity="person",
        record_id=str(number),
        stage="load",
        reason=reason,
        detail="",
    )


def test_the_number_of_open_failures_is_that_of_a_recount(system: SyncSystem) -> None:
    """Whether they are opened, renewed under another reason, closed, discarded, deleted or rolled back; merged or not."""
    with transaction() as session:
        failure.keep_failures(session, [failed(system, number) for number in range(40)])
    with transaction() as session:
        failure.keep_failures(session, [failed(system, number, "wrong_type") for number in range(10, 50)])
    upkeep.count_events()
    with transaction() as session:
        failure_closing.close_recovered(
            session, system.connector_key, "incoming", "person", [str(number) for number in range(5)]
        )
        failure_closing.close_subject(session, system.connector_key, "incoming:person:20")
        (open_one,) = failure_filter.find_failures(session, limit=1)
        failure_closing.close_failure(session, open_one.id, "discarded", by="a", why="b")
    system.change_rows("DELETE FROM failures WHERE record_id = '30'")
    with transaction() as session, session.begin_nested() as undone:
        failure.keep_failures(session, [failed(system, 99)])
        undone.rollback()

    kept, counted = recounted(system)
    upkeep.count_events()

    assert [row[-1] for row in kept] == [5, 37]
    assert kept == counted == recounted(system)[0]
    with transaction() as session:
        assert failure.count_open(session, system.connector_key) == {
            ("person", "option_unknown"): 5,
            ("person", "wrong_type"): 37,
        }


def test_writers_side_by_side_and_a_tick_between_lose_no_failure(system: SyncSystem) -> None:
    def write(worker: int) -> None:
        for step in range(15):
            with transaction() as session:
                failure.keep_failures(session, [failed(system, 1_000 * worker + step), failed(system, step)])
            with transaction() as session:
                failure_closing.close_subject(
                    session, system.connector_key, f"incoming:person:{1_000 * worker + step - 1}"
                )
            upkeep.count_events()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(1, 5)))

    kept, counted = recounted(system)
    assert kept == counted
    assert [row[-1] for row in kept] == [15 + 4]


def test_totals_are_those_of_a_recount(system: SyncSystem) -> None:
    add(system, SUCCESS, NOW - timedelta(days=2), 4)
    add(system, SKIP, NOW - timedelta(minutes=9), 3, reason="not_in_segment")
    for _ in range(2):
        upkeep.count_events()
        upkeep.tidy()

    kept = system.rows("SELECT event, n FROM event_totals ORDER BY event")
    counted = system.rows("SELECT event, count(*) AS n FROM sync_events GROUP BY event ORDER BY event")
    assert [tuple(row) for row in kept] == [tuple(row) for row in counted] == [(SUCCESS, 4), (SKIP, 3)]


def test_a_connector_that_is_removed_leaves_no_number(system: SyncSystem) -> None:
    with transaction() as session:
        failure.keep_failures(session, [failed(system, 1)])
    with transaction() as session:
        remove_rows_of(session, system.connector_key)

    assert system.rows("SELECT 1 FROM failure_counts") == []
