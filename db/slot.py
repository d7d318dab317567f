"""Slots: how many live batches may call one remote system at a time, out of the processes that carry out live batches now.

A remote system that stalls holds every process that waits for its answer. So a stage takes a slot before its first call, and finds
none when the others would be left without a process. A slot belongs to a Pipedrive company or a Hull organization, whichever of the
connectors that are joined to it calls. It ends with the stage, or when its worker stops extending the lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from db.batch import ClaimedBatch, Wakeup, wakeup_from
from db.schedule import ALIVE_S, LIVE_PROCESS
from db.statement import Statement
from db.token_ledger import COMPANY
from pipeline.errors import LostLease

SYSTEMS: Final = {"pipedrive": "pipedrive", "pipedrive search": "pipedrive", "hull": "hull", "firehose": "hull"}
"""Remote, as outages name it → the system with the slots of its calls. Renewing tokens takes none, because it holds a lock."""
STALLED_S: Final = 1.0
"""A slot that is held for longer is not worth waiting for."""
HELD_SHARE: Final = 0.5
"""Of a lease, what is left at least while its worker lives: it extends after a third."""

_REMOTE = f"CASE :system WHEN 'hull' THEN c.hull_organization ELSE {COMPANY} END"
_LOCK = 1_220_225
"""Class of the advisory locks under which slots are counted and taken, one after the other for each remote system."""

_WAIT_TURN = Statement(f"""SET LOCAL synchronous_commit = off;
    SELECT pg_advisory_xact_lock(:lock, hashtext({_REMOTE})) FROM connectors c WHERE c.key = :connector_key""")  # noqa: S608 - put together from constants

_COUNT = Statement(f"""
    WITH mine AS MATERIALIZED (SELECT {_REMOTE} AS remote FROM connectors c WHERE c.key = :connector_key),
         busy AS MATERIALIZED (
             SELECT b.connector_key, b.slot = :system AND {_REMOTE} = (SELECT remote FROM mine) AS is_same, b.slot_at
               FROM batches b JOIN connectors c ON c.key = b.connector_key
              WHERE b.state = 'running' AND b.queue = 'live' AND b.slot IS NOT NULL AND b.id <> :id
                AND b.lease_until > now() + make_interval(secs => :held_s))
    SELECT (SELECT count(*) FROM heartbeats
             WHERE starts_with(name, :live_process) AND at > now() - make_interval(secs => :alive_s)),
           count(*) FILTER (WHERE is_same), count(*) FILTER (WHERE connector_key = :connector_key),
           count(*) FILTER (WHERE (is_same OR connector_key = :connector_key)
                                  AND slot_at > clock_timestamp() - make_interval(secs => :stalled_s)),
           (SELECT count(*) FROM batches WHERE state = 'ready' AND queue = 'live' AND waits_for = 'turn')
      FROM busy""")  # noqa: S608 - as above
"""A separate statement, so that it sees what was committed while the previous one waited for the lock."""

_TAKE = Statement("""
    UPDATE batches SET slot = :system, slot_at = clock_timestamp()
     WHERE id = :id AND lease_token = :token AND state = 'running' RETURNING id""")


@dataclass(frozen=True, slots=True)
class SlotState:
    """is_ours    the batch holds the slot now
    is_stalled  all slots are taken, and none by a stage that began to call a moment ago
    waiting     live batches that wait for their turn
    """

    is_ours: bool
    is_stalled: bool
    waiting: int


def slots_of_remote(processes: int, at_once: int) -> int:
    """Return how many live batches may call one remote system: one process is left to the others, where there are two.

    processes  that carry out live batches; 0 where none is registered, and `at_once` alone decides
    """
    return max(1, min(at_once, processes - 1)) if processes else at_once


def slots_of_connector(processes: int, at_once: int) -> int:
    """Return how many live batches of one connector may call any system: both of its systems may stall."""
    return max(2, processes - 1) if processes else 2 * at_once


def take(session: Session, batch: ClaimedBatch, system: str, *, at_once: int, lease_s: float) -> SlotState:
    """Take a slot of the remote system that the batch's connector is joined to, instead of one that the batch may hold.

    at_once  most live batches that may call one system, however many processes there are
    Raises: LostLease.
    """
    scope = {"id": batch.id, "connector_key": batch.connector_key, "system": system}
    _WAIT_TURN.run(session, scope | {"lock": _LOCK})
    known = {"held_s": lease_s * HELD_SHARE, "live_process": LIVE_PROCESS, "alive_s": ALIVE_S, "stalled_s": STALLED_S}
    row = _COUNT.row(session, scope | known)
    assert row is not None  # noqa: S101 - for the type checker: a query of counts has a row
    processes, of_remote, of_connector, young, waiting = row
    if of_remote >= slots_of_remote(processes, at_once) or of_connector >= slots_of_connector(processes, at_once):
        return SlotState(is_ours=False, is_stalled=young == 0, waiting=waiting)
    if _TAKE.row(session, scope | {"token": batch.token}) is None:
        raise LostLease("lease_lost", f"batch {batch.id}")
    return SlotState(is_ours=True, is_stalled=False, waiting=waiting)


_NEXT = Statement(f"""
    WITH next AS MATERIALIZED (
        SELECT b.id FROM batches b JOIN connectors c ON c.key = b.connector_key
         WHERE b.state = 'ready' AND b.queue = 'live' AND b.waits_for = 'turn' AND b.due_at > now() AND c.state = 'active'
           AND {_REMOTE} = (SELECT {_REMOTE} FROM connectors c WHERE c.key = :connector_key)
         ORDER BY b.id LIMIT 1 FOR UPDATE OF b SKIP LOCKED)
    UPDATE batches SET due_at = now(), enqueued_at = now() WHERE id = ANY(ARRAY(SELECT id FROM next))
    RETURNING id, direction, queue, stage, read_back_id""")  # noqa: S608 - put together from constants


def next_in_turn(session: Session, connector_key: int, system: str) -> list[Wakeup]:
    """A slot is free again: make the first batch due that waits for one. Returns what is to be woken."""
    rows = _NEXT.rows(session, {"connector_key": connector_key, "system": system})
    return [wakeup_from(*row) for row in rows]
