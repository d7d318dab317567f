"""Batches to enqueue at the broker: due ones without a worker, and the next ones of a run."""

from __future__ import annotations

from sqlalchemy import func, text, update
from sqlalchemy.orm import Session

from db.batch import Batch, Wakeup, wakeup_of
from db.statement import Statement

STRANDED_S = 20
"""Seconds after which a batch that no worker has claimed is enqueued again."""


_SWEEP = text("""
    WITH due AS MATERIALIZED (
        SELECT b.id FROM batches b JOIN connectors c ON c.key = b.connector_key
         WHERE c.state = 'active'
           AND (b.state = 'ready' AND b.due_at <= now()
                AND (b.enqueued_at IS NULL OR b.enqueued_at < now() - make_interval(secs => :stranded_s))
             OR b.state = 'running' AND b.lease_until < now()
                AND (b.enqueued_at IS NULL OR b.enqueued_at < b.lease_until
                     OR b.enqueued_at < now() - make_interval(secs => :stranded_s)))
           AND NOT (b.state = 'ready' AND b.direction = 'outgoing' AND b.entity = 'person' AND b.stage = 'extract'
                    AND EXISTS (SELECT 1 FROM batches a
                                 WHERE a.connector_key = b.connector_key AND a.entity = 'organization'
                                   AND a.queue = 'live' AND a.run_id IS NULL AND a.id < b.id
                                   AND (a.state = 'running' OR a.state = 'ready' AND a.due_at <= now())))
         ORDER BY b.due_at LIMIT 200 FOR UPDATE OF b SKIP LOCKED)
    UPDATE batches b SET enqueued_at = now() WHERE b.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING b.id, b.direction, b.queue, b.stage, b.read_back_id,
           b.state = 'ready' AND (b.attempts > 0 OR b.waits_for <> '') AS has_waited""")


def sweep(session: Session, stranded_s: float = STRANDED_S) -> list[tuple[Wakeup, str]]:
    """Return due batches without a worker: (wake-up, `waited` or `lost`).

    `waited` is planned: a retry or a rate limit is due. `lost` means that a message or a worker was lost. Batches of Users that
    have not begun are left out while earlier ones of Accounts are in flight: their canvas starts them.
    """
    rows = session.execute(_SWEEP, {"stranded_s": stranded_s}).all()
    return [(wakeup_of(row), "waited" if row.has_waited else "lost") for row in rows]


_RELEASE = Statement("""
    WITH next AS MATERIALIZED (
        SELECT id FROM batches WHERE run_id = :run_id AND state = 'waiting' ORDER BY id
         LIMIT greatest(0, :in_flight - (SELECT count(*) FROM batches
                                          WHERE run_id = :run_id AND state IN ('ready', 'running'))))
    UPDATE batches SET state = 'ready', enqueued_at = now(), due_at = now() WHERE id = ANY(ARRAY(SELECT id FROM next))
    RETURNING id, direction, queue, stage, read_back_id""")


def try_now(session: Session, connector_key: int) -> None:
    """Make all batches of a connector due for the next sweep, because an operator may have fixed what they wait for."""
    put_off = (Batch.connector_key == connector_key, Batch.state == "ready", Batch.due_at > func.now())
    session.execute(update(Batch).where(*put_off).values(due_at=func.now(), enqueued_at=None))


def release_waiting(session: Session, run_id: int, in_flight: int) -> list[Wakeup]:
    """Make waiting batches of the run ready, as many as may be in flight; return their wake-ups. The run must be locked."""
    rows = _RELEASE.rows(session, {"run_id": run_id, "in_flight": in_flight})
    return [Wakeup(*row) for row in rows]


def mark_enqueued(session: Session, batch_id: int) -> None:
    """Note that this transaction enqueues the batch."""
    session.execute(update(Batch).where(Batch.id == batch_id).values(enqueued_at=func.now()))
