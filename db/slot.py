"""Slots: how many live batches may call one remote system at the same time.

A remote system that stalls blocks each process that waits for its answer. So a stage takes a slot before its first call, and
gets none if no process would be left for other work. Slots belong to a Pipedrive company or a Hull organization, for all its
connectors. A slot ends with the stage, or when its worker stops extending the lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from db.batch import ClaimedBatch, Wakeup
from db.schedule import ALIVE_S, LIVE_PROCESS
from db.statement import Statement
from db.token_ledger import COMPANY
from pipeline.errors import LostLease

SYSTEMS: Final = {"pipedrive": "pipedrive", "pipedrive search": "pipedrive", "hull": "hull", "firehose": "hull"}
"""Remote by its name in `db.outage` → the system with its slots. Renewing tokens takes no slot, because it holds a lock."""
STALLED_S: Final = 1.0
"""If all slots are held for longer than this, a batch does not wait for one."""
HELD_SHARE: Final = 0.5
"""Share of a lease that is left at least while its worker is alive: it extends the lease after a third."""

_REMOTE = f"CASE :system WHEN 'hull' THEN c.hull_organization ELSE {COMPANY} END"
_LOCK = 1_220_225
"""Class of the advisory locks with which slots of one remote system are taken one after the other."""

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
    """The result of a request for a slot.

    is_ours     the batch has the slot now
    is_stalled  all slots are taken, and none by a stage that began its calls a moment ago
    waiting     number of live batches that wait for a slot
    """

    is_ours: bool
    is_stalled: bool
    waiting: int


def slots_of_remote(processes: int, at_once: int) -> int:
    """Return how many live batches may call one remote system: one process is left for other work if there are several.

    processes  number of processes that run live batches; if it is 0, none is registered, and `at_once` is the limit
    """
    return max(1, min(at_once, processes - 1)) if processes else at_once


def slots_of_connector(processes: int, at_once: int) -> int:
    """Return how many live batches of one connector may call its two systems: both may stall."""
    return max(2, processes - 1) if processes else 2 * at_once


def take(session: Session, batch: ClaimedBatch, system: str, *, at_once: int, lease_s: float) -> SlotState:
    """Take a slot of a remote system for a batch; it replaces another slot of the batch. Raises: LostLease.

    at_once  maximum of live batches that may call one system, for any number of processes
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
    """Make the first batch that waits for a slot of this system due; return its wake-up."""
    rows = _NEXT.rows(session, {"connector_key": connector_key, "system": system})
    return [Wakeup(*row) for row in rows]
