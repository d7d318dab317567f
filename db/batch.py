"""Batches: units of work that pass extract, transform and load, under a lease with a fencing token.

A stage claims its batch, works, and writes its result and the next stage in one transaction, which checks the token first. A
worker that finds the batch in another stage stops immediately, so any stage may be started twice. All times are those of the
database.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, Row, SmallInteger, Uuid, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Count, Created, RowId, changed_rows
from db.connector import Marks
from db.statement import Statement
from pipeline.domain.kinds import Direction, Entity
from pipeline.errors import LostLease

RETENTION_DAYS = 30

LATE_S = 60
"""How long an outgoing stage uses staged data; records may have changed in Hull or Pipedrive after that."""


LISTED = "look_up"
"""Cause of a batch with records that a look-up has listed and treats as known."""
UNLOADED = (
    "direction = 'incoming' AND extracted IS NOT NULL"
    " AND (state = 'failed' OR cause = 'look_up' AND state IN ('ready', 'running'))"
)
"""Batches with records that look-ups treat as known although they are not loaded yet."""


class Batch(Base):
    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_moving", "due_at", postgresql_where=text("state IN ('ready', 'running')")),
        Index("ix_batches_run", "run_id", "state"),
        Index("ix_batches_unloaded", "connector_key", "entity", postgresql_where=text(UNLOADED)),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    direction: Mapped[str]
    entity: Mapped[str]
    queue: Mapped[str]
    run_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("runs.id", ondelete="CASCADE"))
    slice_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("slices.id", ondelete="CASCADE"))
    read_back_id: Mapped[int | None] = mapped_column(BigInteger)
    """The batch that carries Pipedrive's answers of an outgoing batch back to Hull."""
    cause: Mapped[str | None]
    """The cause, for a batch without run and changes; None for a read-back."""
    stage: Mapped[str] = mapped_column(server_default="extract")
    state: Mapped[str] = mapped_column(server_default="waiting")
    """`waiting` (not handed over yet), `ready`, `running`, `done`, `failed`, `cancelled`."""
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    waits_for: Mapped[str | None]
    """Why it was postponed, until it is claimed: a remote system by its name in `db.outage`, or a limit."""
    enqueued_at: Mapped[datetime | None]
    lease_token: Mapped[UUID | None] = mapped_column(Uuid)
    lease_until: Mapped[datetime | None]
    slot: Mapped[str | None]
    """The remote system that a live batch calls, while it runs: `pipedrive` or `hull`. See `db.slot`."""
    slot_at: Mapped[datetime | None]
    task_id: Mapped[str | None]
    extracted: Mapped[bytes | None] = mapped_column(LargeBinary)
    transformed: Mapped[bytes | None] = mapped_column(LargeBinary)
    records: Mapped[Count]
    extract_call: Mapped[dict[str, Any] | None]
    """The call with which extract read its records: method, path, status, tokens, duration_ms."""
    load_call: Mapped[dict[str, Any] | None]
    """The last call with which load sent them to Hull."""
    created_at: Mapped[Created]


@dataclass(frozen=True, slots=True)
class ClaimedBatch:
    """A batch claimed by this worker.

    marks       the settings and field definitions in force when it was claimed
    token       every later write must have it
    resends     unchanged records are sent too: in a walk of a run that is not limited to changes
    is_stored   its records come from the snapshots of a backfill, which resends only to link Users again
    revisits    it is a page of the catch-up of a full fetch: most of its records were read and counted before
    has_outage  a remote system does not answer its connector
    is_late     it has waited longer than `LATE_S` since it became due
    """

    marks: Marks
    id: int
    connector_key: int
    connector_id: str
    direction: Direction
    entity: Entity
    queue: str
    run_id: int | None
    slice_id: int | None
    read_back_id: int | None
    stage: str
    attempts: int
    token: UUID
    resends: bool
    is_stored: bool
    revisits: bool
    has_outage: bool
    is_late: bool
    extracted: memoryview | None = field(repr=False)
    transformed: memoryview | None = field(repr=False)

    @property
    def is_outdated(self) -> bool:
        """Whether staged data may be old: the batch was postponed, its worker was lost, or it waited in a queue."""
        return self.is_late or self.attempts > 1


_NOT_DURABLE = "SET LOCAL synchronous_commit = off;"
"""For transactions that can be repeated: after a crash of PostgreSQL a batch is claimed, read or transformed once more. It saves
five of the seven times that a batch waits for the disk.
"""

_CLAIM = Statement(f"""{_NOT_DURABLE}
    UPDATE batches b SET state = 'running', lease_token = gen_random_uuid(), attempts = attempts + 1, task_id = :task_id,
           waits_for = NULL, slot = NULL, slot_at = NULL, lease_until = now() + make_interval(secs => :lease_s)
      FROM connectors c
      LEFT JOIN LATERAL (SELECT id, version FROM settings_versions WHERE connector_key = c.key
                          ORDER BY version DESC LIMIT 1) v ON true
     WHERE b.id = :id AND b.stage = :stage AND c.key = b.connector_key AND c.state = 'active'
       AND (b.state = 'ready' AND b.due_at <= now() OR b.state = 'running' AND b.lease_until < now())
    RETURNING b.id, b.connector_key, c.id, b.direction, b.entity, b.queue, b.run_id, b.slice_id, b.read_back_id, b.stage,
              b.attempts, b.lease_token,
              (SELECT ARRAY[NOT r.changed_only AND s.walk <> 'catch_up', s.walk = 'stored', r.kind = 'full' AND s.walk = 'catch_up']
                 FROM runs r JOIN slices s ON s.run_id = r.id WHERE r.id = b.run_id AND s.id = b.slice_id),
              EXISTS (SELECT FROM outages o WHERE o.connector_key = b.connector_key),
              b.due_at < now() - make_interval(secs => :late_s),
              b.extracted, b.transformed, v.id, v.version,
              (SELECT f.fetched_at FROM field_definitions f WHERE f.connector_key = b.connector_key AND f.entity = b.entity)""")  # noqa: S608 - a constant of ours

_EXTEND = Statement("""
    UPDATE batches SET lease_until = now() + make_interval(secs => :lease_s)
     WHERE id = :id AND lease_token = :token AND state = 'running' RETURNING id""")

_HOLD = Statement("SELECT id FROM batches WHERE id = :id AND lease_token = :token AND state = 'running' FOR UPDATE")

_READY = "state = 'ready', attempts = 0, lease_token = NULL, lease_until = NULL, due_at = now(), enqueued_at = now()"

_STAGE_PAGE = f"""
    UPDATE batches SET stage = 'transform', extracted = :staged, records = :records, extract_call = :extract_call,
           {_READY}
     WHERE id = :id"""  # noqa: S608 - put together from constants
_TO_TRANSFORM = Statement(_NOT_DURABLE + _STAGE_PAGE)
_FILL_READ_BACK = Statement(_STAGE_PAGE)

_TO_LOAD = Statement(
    f"{_NOT_DURABLE} UPDATE batches SET stage = 'load', transformed = :staged, {_READY} WHERE id = :id"  # noqa: S608
)

_TRANSFORM_AGAIN = Statement(f"UPDATE batches SET stage = 'transform', transformed = NULL, {_READY} WHERE id = :id")  # noqa: S608

_END = Statement("""
    UPDATE batches SET state = :state, lease_token = NULL, lease_until = NULL, extracted = NULL, transformed = NULL,
           load_call = :load_call
     WHERE id = :id""")

_FAIL = Statement("UPDATE batches SET state = 'failed', lease_token = NULL, lease_until = NULL WHERE id = :id")

_KEEPS_STAGED = """(direction <> 'outgoing'
                OR :before_any_call AND created_at > now() - make_interval(secs => :late_s - :wait_s))"""
_PUT_OFF = Statement(f"""
    UPDATE batches SET state = 'ready', lease_token = NULL, lease_until = NULL, enqueued_at = NULL,
           due_at = now() + make_interval(secs => :wait_s), attempts = attempts - :uncounted, waits_for = :waits_for,
           extracted = CASE WHEN {_KEEPS_STAGED} THEN extracted END,
           transformed = CASE WHEN {_KEEPS_STAGED} THEN transformed END
     WHERE id = :id""")  # noqa: S608 - put together from constants
"""Staged data of outgoing records is deleted, so that the next attempt decides again, by the newest report and record. A batch that
only waited for its turn keeps it until `LATE_S` after its creation."""


_ADD_PAGE = Statement("""
    INSERT INTO batches (connector_key, direction, entity, queue, run_id, slice_id)
    VALUES (:connector_key, 'incoming', :entity, 'bulk', :run_id, :slice_id)""")


_HAS_WORK = Statement("""
    SELECT EXISTS (SELECT 1 FROM batches WHERE run_id = :run_id AND state IN ('waiting', 'ready', 'running'))
        OR EXISTS (SELECT 1 FROM slices WHERE run_id = :run_id AND state = 'open')""")


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A wake-up for the broker: run this batch from this stage on, on this queue."""

    batch_id: int
    direction: str
    queue: str
    stage: str
    read_back_id: int | None = None
    then: Wakeup | None = None
    """The batch to run after it, once it has ended."""


def claim(session: Session, batch_id: int, stage: str, *, lease_s: float, task_id: str | None) -> ClaimedBatch | None:
    """Claim a batch for one stage. Return None if it is in another stage, has another worker, or its connector is paused."""
    scope = {"id": batch_id, "stage": stage, "lease_s": lease_s, "task_id": task_id, "late_s": LATE_S}
    row = _CLAIM.row(session, scope)
    if row is None:
        return None
    *columns, of_run, has_outage, is_late, extracted, transformed, settings_id, settings_version, fields_read_at = row
    key, connector_key, connector_id, direction, entity, *rest = columns
    rest += [*(of_run or (False, False, False)), has_outage, is_late, extracted, transformed]
    marks = Marks(settings_id, settings_version, fields_read_at)
    return ClaimedBatch(marks, key, connector_key, connector_id, Direction(direction), Entity(entity), *rest)


def extend_lease(session: Session, batch: ClaimedBatch, lease_s: float) -> bool:
    """Extend the lease while a stage works; return False if it is lost."""
    return _EXTEND.row(session, {"id": batch.id, "token": batch.token, "lease_s": lease_s}) is not None


def hold(session: Session, batch: ClaimedBatch) -> None:
    """Check the lease and lock the batch, before this transaction writes anything. Raises: LostLease."""
    if _HOLD.row(session, {"id": batch.id, "token": batch.token}) is None:
        raise LostLease("lease_lost", f"batch {batch.id}")


def pass_to_transform(
    session: Session, batch_id: int, staged: bytes, records: int, *, extract_call: str | None = None
) -> None:
    """Complete extract: store its records and its call (JSON). The next message of the chain finds the batch ready."""
    _TO_TRANSFORM.run(session, {"id": batch_id, "staged": staged, "records": records, "extract_call": extract_call})


def pass_to_load(session: Session, batch_id: int, staged: bytes) -> None:
    """Complete transform: store its result."""
    _TO_LOAD.run(session, {"id": batch_id, "staged": staged})


def transform_again(session: Session, batch: ClaimedBatch) -> Wakeup:
    """Return a batch to transform, because its transformed data is outdated. Return the wake-up to send."""
    _TRANSFORM_AGAIN.run(session, {"id": batch.id})
    return Wakeup(batch.id, batch.direction, batch.queue, "transform", batch.read_back_id)


def fill_read_back(session: Session, batch_id: int, staged: bytes, records: int) -> None:
    """Store Pipedrive's answers to writes in the read-back batch, which begins with transform."""
    _FILL_READ_BACK.run(session, {"id": batch_id, "staged": staged, "records": records, "extract_call": None})


def end(session: Session, batch_id: int, state: str = "done", *, load_call: str | None = None) -> None:
    """Complete the batch and clear its staged data. `load_call` is the last call that sent its records, as JSON."""
    _END.run(session, {"id": batch_id, "state": state, "load_call": load_call})


def fail(session: Session, batch: ClaimedBatch) -> None:
    """Mark a batch as failed. It keeps its staged data, so that a replay starts from this stage."""
    _FAIL.run(session, {"id": batch.id})


def put_off(
    session: Session,
    batch: ClaimedBatch,
    wait_s: float,
    *,
    counted: bool,
    waits_for: str | None = None,
    before_any_call: bool = False,
) -> None:
    """Retry this stage in `wait_s` seconds; this counts as an attempt only with `counted`.

    before_any_call  the stage has called no remote system: staged data stays usable for `LATE_S`
    """
    scope = {"id": batch.id, "wait_s": wait_s, "uncounted": 0 if counted else 1, "waits_for": waits_for}
    _PUT_OFF.run(session, scope | {"before_any_call": before_any_call, "late_s": LATE_S})


_REVIVE = Statement("""
    UPDATE batches b SET state = 'ready', attempts = 0, due_at = now(), enqueued_at = now(),
           stage = CASE WHEN direction = 'outgoing' THEN 'extract' ELSE stage END,
           extracted = CASE WHEN direction <> 'outgoing' THEN extracted END,
           transformed = CASE WHEN direction <> 'outgoing' THEN transformed END,
           cause = CASE WHEN direction = 'outgoing' THEN cause
                        WHEN run_id IS NULL AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.batch_id = b.id) THEN cause
                        ELSE :listed END
     WHERE id = :id AND state = 'failed'
    RETURNING id, direction, queue, stage, read_back_id""")


def revive(session: Session, batch_id: int) -> Wakeup | None:
    """Make a failed batch ready again: an incoming one at the stage that failed, an outgoing one at extract.

    An outgoing batch is decided again from the newest report: since it failed, Hull may have reported newer values, and users may
    have edited the record in Pipedrive. Look-ups treat the records of a failed page as known (`UNLOADED`), so they must find the
    page until it is loaded.
    """
    row = _REVIVE.row(session, {"id": batch_id, "listed": LISTED})
    return Wakeup(*row) if row else None


def wakeup_of(row: Batch | ClaimedBatch | Row[Any]) -> Wakeup:
    """Return the wake-up of this batch."""
    return Wakeup(row.id, row.direction, row.queue, row.stage, row.read_back_id)


def add_page(session: Session, connector_key: int, entity: str, run_id: int, slice_id: int) -> None:
    """Add a batch for the next page of a slice; it waits for its turn."""
    _ADD_PAGE.run(session, {"connector_key": connector_key, "entity": entity, "run_id": run_id, "slice_id": slice_id})


def run_has_work(session: Session, run_id: int) -> bool:
    """Return whether a batch of the run has not ended, or a slice has pages left."""
    found = _HAS_WORK.row(session, {"run_id": run_id})
    return bool(found and found[0])


_UNLOADED = text(f"""
    SELECT id FROM batches
     WHERE connector_key = :c AND entity = :e AND {UNLOADED}
       AND (state <> 'failed' OR created_at >= coalesce(
            (SELECT fully_read_at FROM watermarks WHERE connector_key = :c AND entity = :e), '-infinity'))
     ORDER BY id""")  # noqa: S608 - a constant of ours
_STAGED = text("SELECT extracted FROM batches WHERE id = :id AND extracted IS NOT NULL")


def unloaded(session: Session, connector_key: int, entity: str) -> list[int]:
    """Return the ids of batches with listed records that are not in the id map yet, oldest first.

    A look-up has listed them, or they failed since the last full fetch ended.
    """
    return list(session.scalars(_UNLOADED, {"c": connector_key, "e": entity}))


def staged_page(session: Session, batch_id: int) -> bytes | None:
    """Return the data that extract staged; None if the batch has ended."""
    found = session.scalar(_STAGED, {"id": batch_id})
    return None if found is None else bytes(found)


def drop_waiting(session: Session, slice_id: int) -> None:
    """End the waiting page of a slice that has nothing left to read."""
    waiting = update(Batch).where(Batch.slice_id == slice_id, Batch.state == "waiting").values(state="done")
    session.execute(waiting.execution_options(synchronize_session=False))


def cancel_open(session: Session, run_id: int) -> int:
    """Cancel the batches of a run that have not ended; return how many.

    A running stage loses its lease and stops at its next write.
    """
    return changed_rows(
        session,
        update(Batch)
        .where(Batch.run_id == run_id, Batch.state.in_(("waiting", "ready", "running")))
        .values(state="cancelled", lease_token=None, lease_until=None, extracted=None, transformed=None),
    )


_DROP_OLD = text("""
    DELETE FROM batches
     WHERE id = ANY(ARRAY(SELECT id FROM batches
                           WHERE created_at < now() - make_interval(days => :days) AND state IN ('done', 'cancelled')
                           LIMIT :limit))""")


def drop_old_batches(session: Session, limit: int) -> int:
    """Delete at most `limit` batches past their retention; return how many.

    Failed ones stay until they are replayed, or until their discarded failure is deleted (`db.failure_closing`).
    """
    return changed_rows(session, _DROP_OLD, {"days": RETENTION_DAYS, "limit": limit})
