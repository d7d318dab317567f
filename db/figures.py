"""The state of the pipeline, in one query: for the probes and for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

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
"""The first of each by an index, however much is due."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number: its subject, connector, kind and state."""

    subject: str
    connector_key: int | None
    kind: str
    state: str
    amount: float


def oldest_due_s(session: Session, connector_key: int | None = None) -> float:
    """How long, in seconds, the oldest delivery, change or batch has been due without a worker taking it."""
    _limit(session)
    if connector_key is None:
        return float(session.execute(text(_OLDEST_OF_ALL)).scalar_one())
    return float(session.execute(text(_OLDEST_OF_ONE), {"key": connector_key}).scalar_one())


def all_figures(session: Session) -> list[Figure]:
    """Return all figures for Prometheus, read at one moment.

    Of deliveries, batches and runs only those that have not ended: the ended ones are most of each table.
    """
    _limit(session)
    return [
        Figure(
            subject=row.subject,
            connector_key=row.connector_key,
            kind=row.kind or "",
            state=row.state or "",
            amount=float(row.amount),
        )
        for row in session.execute(_FIGURES)
    ]


def _limit(session: Session) -> None:
    session.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"))
