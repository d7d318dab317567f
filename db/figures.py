"""Figures for probes and Prometheus, and lists of batches for pages.

A figure counts unfinished work only: it does not depend on the number of finished rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select, text
from sqlalchemy.orm import Session

from db.batch import Batch
from db.change import FIRST_DUE
from pipeline.domain.budget import DEFAULT_DAILY_TOKENS

STATEMENT_TIMEOUT_MS = 5_000

_OLDEST_DUE = f"""
    SELECT coalesce(extract(epoch FROM now() - min(due.at)), 0)::float8
      FROM ((SELECT b.due_at AS at FROM batches b
              WHERE b.state = 'ready' AND b.due_at <= now()
                AND b.connector_key = ANY(ARRAY(SELECT c.key FROM connectors c WHERE c.state = 'active' {{of_one}}))
              ORDER BY b.due_at LIMIT 1)
            UNION ALL
            SELECT first_due.due_at FROM {FIRST_DUE} WHERE c.state = 'active' {{of_one}}
            UNION ALL
            (SELECT d.received_at FROM deliveries d
              WHERE d.state = 'new'
                AND d.connector_key = ANY(ARRAY(SELECT c.key FROM connectors c WHERE c.state = 'active' {{of_one}}))
              ORDER BY d.id LIMIT 1)
            UNION ALL
            (SELECT j.due_at FROM jobs j WHERE j.state = 'due' AND j.due_at <= now() {{of_job}} ORDER BY j.due_at LIMIT 1)
           ) due"""  # noqa: S608 - put together from constants
"""The first row of each table by an index, however many are due."""
_OLDEST_OF_ALL = _OLDEST_DUE.format(of_one="", of_job="")
_OLDEST_OF_ONE = _OLDEST_DUE.format(of_one="AND c.key = :key", of_job="AND j.connector_key = :key")

_FIGURES = text(f"""
    SELECT 'oldest_due' AS subject, NULL::int AS connector_key, NULL AS kind, NULL AS state, ({_OLDEST_OF_ALL}) AS amount
    UNION ALL SELECT 'deliveries', connector_key, source, state, count(*) FROM deliveries WHERE state = 'new' GROUP BY 2, 3, 4
    UNION ALL SELECT 'batches', connector_key, direction, state, count(*) FROM batches
               WHERE state IN ('ready', 'running') GROUP BY 2, 3, 4
    UNION ALL SELECT 'batches', r.connector_key, 'incoming', 'waiting', sum(w.n)
                FROM runs r CROSS JOIN LATERAL (SELECT count(*) AS n FROM batches b
                                                 WHERE b.run_id = r.id AND b.state = 'waiting' OFFSET 0) w
               WHERE r.state = 'running' GROUP BY 2 HAVING sum(w.n) > 0
    UNION ALL SELECT 'batches', connector_key, direction, 'failed', sum(n) FROM failure_counts
               WHERE kind = 'batch' GROUP BY 2, 3 HAVING sum(n) > 0
    UNION ALL SELECT 'runs', connector_key, entity, state, count(*) FROM runs
               WHERE state IN ('running', 'held', 'stopped') GROUP BY 2, 3, 4
    UNION ALL SELECT 'failures', connector_key, entity, reason, sum(n) FROM failure_counts
               GROUP BY 2, 3, 4 HAVING sum(n) > 0
    UNION ALL SELECT 'tokens', c.key, NULL, t.lane, t.tokens
                FROM connectors c CROSS JOIN LATERAL (
                     SELECT lane, sum(tokens) AS tokens FROM token_ledger
                      WHERE connector_key = c.key AND day = (now() AT TIME ZONE 'UTC')::date GROUP BY lane) t
    UNION ALL SELECT 'daily_tokens', c.key, NULL, NULL, coalesce((v.document ->> 'daily_tokens')::bigint, {DEFAULT_DAILY_TOKENS})
                FROM connectors c CROSS JOIN LATERAL (
                     SELECT document FROM settings_versions WHERE connector_key = c.key ORDER BY version DESC LIMIT 1) v
    UNION ALL SELECT 'watermark_age_seconds', connector_key, NULL, entity, extract(epoch FROM now() - reached_at)::float8
                FROM watermarks WHERE complete_since IS NOT NULL
    UNION ALL SELECT 'watermark_excepted', connector_key, NULL, entity, excepted FROM watermarks
               WHERE complete_since IS NOT NULL
    UNION ALL SELECT 'run_records', connector_key, entity, kind, "read" FROM runs WHERE state = 'running'
    UNION ALL SELECT 'run_tokens', connector_key, entity, kind, tokens FROM runs WHERE state = 'running'
    UNION ALL SELECT 'run_age_seconds', connector_key, entity, kind, extract(epoch FROM now() - started_at)::float8
                FROM runs WHERE state = 'running'
    UNION ALL SELECT 'shells', connector_key, NULL, entity, count(*) FROM id_mappings WHERE state = 'shell' GROUP BY 2, 4
    UNION ALL SELECT 'alerts', connector_key, NULL, rule, count(*) FROM alerts WHERE state = 'open' GROUP BY 2, 4
    UNION ALL SELECT 'connectors', key, NULL, state, 1 FROM connectors""")  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class Figure:
    """One number for Prometheus."""

    subject: str
    connector_key: int | None
    kind: str
    state: str
    amount: float


def oldest_due_s(session: Session, connector_key: int | None = None) -> float:
    """Return for how many seconds the oldest delivery, change, batch or job has been due."""
    _limit(session)
    if connector_key is None:
        return float(session.execute(text(_OLDEST_OF_ALL)).scalar_one())
    return float(session.execute(text(_OLDEST_OF_ONE), {"key": connector_key}).scalar_one())


def all_figures(session: Session) -> list[Figure]:
    """Return all figures for Prometheus, in one statement.

    Deliveries, batches and runs that have ended are left out: they are most of each table.
    """
    _limit(session)
    return [
        Figure(subject, connector_key, kind or "", state or "", float(amount))
        for subject, connector_key, kind, state, amount in session.execute(_FIGURES)
    ]


def _limit(session: Session) -> None:
    session.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"))


LOOK_BACK = 2_000
"""Number of the newest batches of all connectors that a list searches. An index by connector would cost more than it saves."""


@dataclass(frozen=True, slots=True)
class UnfinishedBatches:
    """Batches of one queue in one state.

    state   `running`, `abandoned` (the lease has expired), `due`, `put_off` (retried later), `held` (the connector is
            paused) or `waiting` (for its turn in its run)
    oldest  when the first of them was or will be due
    """

    queue: str
    state: str
    batches: int
    oldest: datetime | None


_UNFINISHED = text("""
    SELECT b.queue, CASE WHEN c.state <> 'active' THEN 'held'
                         WHEN b.state = 'running' AND b.lease_until < now() THEN 'abandoned'
                         WHEN b.state = 'running' THEN 'running'
                         WHEN b.due_at > now() THEN 'put_off' ELSE 'due' END AS state, count(*) AS batches, min(b.due_at) AS oldest
      FROM batches b JOIN connectors c ON c.key = b.connector_key
     WHERE b.state IN ('ready', 'running') AND (CAST(:key AS int) IS NULL OR b.connector_key = :key)
     GROUP BY 1, 2
    UNION ALL
    SELECT b.queue, 'waiting', count(*), NULL FROM batches b JOIN runs r ON r.id = b.run_id AND r.state = 'running'
     WHERE b.state = 'waiting' AND (CAST(:key AS int) IS NULL OR b.connector_key = :key)
     GROUP BY 1""")


def count_unfinished(session: Session, connector_key: int | None = None) -> list[UnfinishedBatches]:
    """Return the number of batches that have not ended, by queue and state: of one connector, or of all."""
    return [UnfinishedBatches(*row) for row in session.execute(_UNFINISHED, {"key": connector_key})]


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch in a list. `task_id` is that of the stage that began last."""

    id: int
    connector: str
    direction: str
    entity: str
    queue: str
    stage: str
    state: str
    attempts: int
    records: int
    due_at: datetime
    lease_until: datetime | None
    created_at: datetime
    run_id: int | None
    task_id: str | None


_ROWS = """
    SELECT b.id, c.name AS connector, b.direction, b.entity, b.queue, b.stage, b.state, b.attempts, b.records, b.due_at,
           b.lease_until, b.created_at, b.run_id, b.task_id
      FROM {batches} b JOIN connectors c ON c.key = b.connector_key
     WHERE {chosen} AND (CAST(:key AS int) IS NULL OR b.connector_key = :key)
     ORDER BY b.id DESC LIMIT :limit"""
_ACTIVE = text(_ROWS.format(batches="batches", chosen="b.state IN ('ready', 'running')"))
_RECENT = text(
    _ROWS.format(
        batches="(SELECT * FROM batches ORDER BY id DESC LIMIT :look_back)",
        chosen="b.state NOT IN ('ready', 'running')",
    )
)


def list_active(session: Session, connector_key: int | None, limit: int) -> list[BatchRow]:
    """Return batches that are due or running, newest first."""
    return [BatchRow(*row) for row in session.execute(_ACTIVE, {"key": connector_key, "limit": limit})]


def list_recent(session: Session, connector_key: int | None, limit: int) -> list[BatchRow]:
    """Return other batches, newest first, among the last `LOOK_BACK` of all connectors."""
    rows = session.execute(_RECENT, {"key": connector_key, "limit": limit, "look_back": LOOK_BACK})
    return [BatchRow(*row) for row in rows]


_LINE = """
    SELECT id, direction, entity, queue, stage, state, attempts, records, created_at, due_at, task_id FROM batches"""


_OF_RUN = text(f"""{_LINE}
     WHERE run_id = :run_id AND (CAST(:state AS text) IS NULL OR state = :state)
       AND (CAST(:before AS bigint) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit""")


def batches_of_run(
    session: Session, run_id: int, *, state: str | None = None, before: int | None = None, limit: int = 50
) -> list[Row[Any]]:
    """Return the batches of a run, newest first, without their staged data."""
    scope = {"run_id": run_id, "state": state, "before": before, "limit": limit}
    return list(session.execute(_OF_RUN, scope))


def count_of_run(session: Session, run_id: int) -> dict[str, int]:
    """Return state → the number of batches of a run."""
    query = select(Batch.state, func.count()).where(Batch.run_id == run_id).group_by(Batch.state)
    return {row.state: row[1] for row in session.execute(query)}


_WHOLE = text("""
    SELECT id, direction, entity, queue, stage, state, attempts, records, created_at, due_at, task_id, enqueued_at,
           lease_until, run_id, slice_id, read_back_id, cause, octet_length(extracted) AS extracted_bytes,
           octet_length(transformed) AS transformed_bytes, now() AS now
      FROM batches WHERE id = :id AND connector_key = :key""")


def describe_batch(session: Session, connector_key: int, batch_id: int) -> Row[Any] | None:
    """Return a batch without its staged data, but with the size of that; None if the connector has no such batch."""
    return session.execute(_WHOLE, {"id": batch_id, "key": connector_key}).one_or_none()
