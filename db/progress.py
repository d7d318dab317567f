"""Work in flight, for the page of the workers. Only unfinished work is counted, whatever the number of finished rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

LOOK_BACK = 2_000
"""Of all connectors' newest batches: there is no index by connector, and it would not be worth its cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """state  `running`, `abandoned` (its lease ran out), `due`, `put_off` (tried again later), `held` (its connector is
    paused) or `waiting` (for its turn in its run)
    oldest  when the first of them was or will be due
    """

    queue: str
    state: str
    batches: int
    oldest: datetime | None


_MOVING = text("""
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


def moving(session: Session, connector_key: int | None = None) -> list[Moving]:
    """Batches that have not ended, by queue and state; of one connector, or of all."""
    rows = session.execute(_MOVING, {"key": connector_key})
    return [Moving(queue=row.queue, state=row.state, batches=row.batches, oldest=row.oldest) for row in rows]


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch as the list of batches shows it. task_id is of the stage that was begun last."""

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


_SEEN = """
    SELECT b.id, c.name AS connector, b.direction, b.entity, b.queue, b.stage, b.state, b.attempts, b.records, b.due_at,
           b.lease_until, b.created_at, b.run_id, b.task_id
      FROM {batches} b JOIN connectors c ON c.key = b.connector_key
     WHERE {chosen} AND (CAST(:key AS int) IS NULL OR b.connector_key = :key)
     ORDER BY b.id DESC LIMIT :limit"""
_AT_WORK = text(_SEEN.format(batches="batches", chosen="b.state IN ('ready', 'running')"))
_LATEST = text(
    _SEEN.format(
        batches="(SELECT * FROM batches ORDER BY id DESC LIMIT :look_back)",
        chosen="b.state NOT IN ('ready', 'running')",
    )
)


def at_work(session: Session, connector_key: int | None, limit: int) -> list[Seen]:
    """Batches that are due or at work, newest first."""
    rows = session.execute(_AT_WORK, {"key": connector_key, "limit": limit})
    return [Seen(*row) for row in rows]


def lately(session: Session, connector_key: int | None, limit: int) -> list[Seen]:
    """The newest of those that are not, as far as the last batches of all connectors reach."""
    rows = session.execute(_LATEST, {"key": connector_key, "limit": limit, "look_back": LOOK_BACK})
    return [Seen(*row) for row in rows]
