"""How the pipeline stands, in one question to the database: for the probes and for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from pipeline.domain.budget import DEFAULT_DAILY_TOKENS

STATEMENT_TIMEOUT_MS = 5_000

_OLDEST_DUE = """
    SELECT coalesce(extract(epoch FROM now() - min(due.at)), 0)::float8
      FROM (SELECT b.due_at AS at FROM batches b JOIN connectors c ON c.key = b.connector_key
             WHERE b.state = 'ready' AND b.due_at <= now() AND c.state = 'active' {of_one}
            UNION ALL
            SELECT ch.due_at FROM changes ch JOIN connectors c ON c.key = ch.connector_key
             WHERE ch.batch_id IS NULL AND ch.due_at <= now() AND c.state = 'active' {of_one}
            UNION ALL
            SELECT d.received_at FROM deliveries d JOIN connectors c ON c.key = d.connector_key
             WHERE d.state = 'new' AND c.state = 'active' {of_one}
            UNION ALL
            SELECT e.due_at FROM errands e WHERE e.state = 'due' AND e.due_at <= now() {of_errand}) due"""
_OLDEST_OF_ALL = _OLDEST_DUE.format(of_one="", of_errand="")
_OLDEST_OF_ONE = _OLDEST_DUE.format(of_one="AND c.key = :key", of_errand="AND e.connector_key = :key")

_FIGURES = text(f"""
    SELECT 'oldest_due' AS subject, NULL::int AS connector_key, NULL AS kind, NULL AS state, ({_OLDEST_OF_ALL}) AS amount
    UNION ALL SELECT 'deliveries', connector_key, source, state, count(*) FROM deliveries GROUP BY 2, 3, 4
    UNION ALL SELECT 'batches', connector_key, direction, state, count(*) FROM batches GROUP BY 2, 3, 4
    UNION ALL SELECT 'runs', connector_key, entity, state, count(*) FROM runs GROUP BY 2, 3, 4
    UNION ALL SELECT 'failures', connector_key, entity, reason, count(*) FROM failures
               WHERE state = 'open' GROUP BY 2, 3, 4
    UNION ALL SELECT 'tokens', connector_key, NULL, lane, sum(tokens) FROM token_ledger
               WHERE day = (now() AT TIME ZONE 'UTC')::date GROUP BY 2, 4
    UNION ALL SELECT 'daily_tokens', v.connector_key, NULL, NULL,
                     coalesce((v.document ->> 'daily_tokens')::bigint, {DEFAULT_DAILY_TOKENS})
                FROM settings_versions v
               WHERE v.version = (SELECT max(o.version) FROM settings_versions o WHERE o.connector_key = v.connector_key)
    UNION ALL SELECT 'watermark_age_seconds', connector_key, NULL, entity, extract(epoch FROM now() - reached_at)::float8
                FROM watermarks WHERE complete_since IS NOT NULL
    UNION ALL SELECT 'watermark_excepted', connector_key, NULL, entity, excepted FROM watermarks
               WHERE complete_since IS NOT NULL
    UNION ALL SELECT 'shells', connector_key, NULL, entity, count(*) FROM id_mappings WHERE state = 'shell' GROUP BY 2, 4
    UNION ALL SELECT 'alerts', connector_key, NULL, rule, count(*) FROM alerts WHERE state = 'open' GROUP BY 2, 4
    UNION ALL SELECT 'connectors', key, NULL, state, 1 FROM connectors""")  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number: what it counts, of which connector, and by which kind and state."""

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
    """Everything Prometheus is told, read at one moment."""
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
