"""Jobs: work that takes longer than a request, or needs a remote system. The row is stored before the request is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, ForeignKey, Index, Integer, LargeBinary, SmallInteger, and_, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import job_item as job_items
from db.base import Base, Created, RowId, changed_rows
from pipeline.errors import LostLease

RETENTION_DAYS = 30
OPEN: Final = ("due", "paused")
"""States of a job that has not ended."""


class Job(Base):
    """One job.

    kind         `settings_sync`: read the settings from Hull; `export`: download a file of Users or Accounts;
                 `connector_creation`: create a connector; `status`: write our status to Hull; `send`: Users or Accounts to
                 Pipedrive; `verify`: compare Pipedrive, Hull and the id map; `plan`: compute what new settings would do;
                 `replay`: send the items of a replay; `log_export`: write the log to a file
    dedupe_key   a request with the same kind and key joins the job that is due or paused
    title        text for users; never a secret
    secret       input of the job, encrypted: credentials or an address; deleted when the job is done
    requested    number of requests since it began; if it is higher than one at the end, the job begins once more
    lease_token  grows with every claim; every later write must carry it
    due_at       when it may start; while it runs, when its lease ends
    progress     in a unit of its kind: lines of an export, pages of a send
    checkpoint   what else the next worker needs to continue
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("uq_jobs_due", "kind", "dedupe_key", unique=True, postgresql_where=text("state IN ('due', 'paused')")),
        Index("ix_jobs_connector", "connector_key", "id"),
        Index("ix_jobs_due", "due_at", postgresql_where=text("state = 'due'")),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int | None] = mapped_column(Integer, ForeignKey("connectors.key"))
    kind: Mapped[str]
    dedupe_key: Mapped[str]
    title: Mapped[str] = mapped_column(server_default="")
    secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(server_default="due")
    """`due`, `paused` by an operator (no worker claims it), `done`, `failed` (a Failure is open), `refused`, `aborted` by an
    operator."""
    reason: Mapped[str | None]
    requested: Mapped[int] = mapped_column(Integer, server_default="1")
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    lease_token: Mapped[int] = mapped_column(Integer, server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    waits_for: Mapped[str | None]
    """As of a batch."""
    dispatched_at: Mapped[datetime | None]
    progress: Mapped[int] = mapped_column(server_default="0")
    checkpoint: Mapped[str | None]
    created_at: Mapped[Created]
    ended_at: Mapped[datetime | None]


@dataclass(slots=True, kw_only=True)
class ClaimedJob:
    """A job claimed by this worker; see `Job`."""

    id: int
    connector_key: int | None
    connector_id: str | None
    has_outage: bool
    kind: str
    dedupe_key: str
    secret: bytes | None
    attempts: int
    lease_token: int
    progress: int
    checkpoint: str | None
    created_at: datetime


_ENQUEUE = text("""
    INSERT INTO jobs AS j (connector_key, kind, dedupe_key, title, secret)
    VALUES (:connector_key, :kind, :key, :title, :secret)
        ON CONFLICT (kind, dedupe_key) WHERE state IN ('due', 'paused') DO UPDATE SET requested = j.requested + 1""")


def enqueue(
    session: Session,
    kind: str,
    key: str,
    *,
    title: str = "",
    connector_key: int | None = None,
    secret: bytes | None = None,
) -> None:
    """Store a job; if one of its kind and key is due or paused, that one runs once more instead."""
    scope = {"connector_key": connector_key, "kind": kind, "key": key, "title": title, "secret": secret}
    session.execute(_ENQUEUE, scope)


_TAKE_DUE = text("""
    WITH due AS MATERIALIZED (
        SELECT id FROM jobs
         WHERE state = 'due' AND due_at <= now()
           AND (dispatched_at IS NULL OR dispatched_at < due_at OR dispatched_at < now() - make_interval(secs => :patience_s))
         ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE jobs SET dispatched_at = now() WHERE id = ANY(ARRAY(SELECT id FROM due))
 RETURNING id, kind""")


def take_due(session: Session, *, patience_s: float, limit: int = 100) -> list[tuple[int, str]]:
    """Return (id, kind) of due jobs to dispatch; a job is dispatched again after `patience_s` without a claim."""
    return [(row.id, row.kind) for row in session.execute(_TAKE_DUE, {"patience_s": patience_s, "limit": limit})]


_CLAIM = text("""
    UPDATE jobs SET lease_token = lease_token + 1, attempts = attempts + 1, waits_for = NULL,
           requested = CASE WHEN progress = 0 AND checkpoint IS NULL THEN 1 ELSE requested END,
           dispatched_at = coalesce(dispatched_at, now()), due_at = now() + make_interval(secs => :lease_s)
     WHERE id = :id AND state = 'due' AND due_at <= now()
 RETURNING id, connector_key, (SELECT c.id FROM connectors c WHERE c.key = connector_key) AS connector_id,
           EXISTS (SELECT FROM outages o WHERE o.connector_key = jobs.connector_key) AS has_outage, kind, dedupe_key,
           secret, attempts, lease_token, progress, checkpoint, created_at""")


def claim(session: Session, job_id: int, *, lease_s: float) -> ClaimedJob | None:
    """Claim a job; return None if it is not due or another worker has it."""
    row = session.execute(_CLAIM, {"id": job_id, "lease_s": lease_s}).one_or_none()
    if row is None:
        return None
    return ClaimedJob(**{**row._asdict(), "secret": None if row.secret is None else bytes(row.secret)})


def hold(session: Session, job: ClaimedJob) -> Job:
    """Check the lease and return the row, locked until the transaction ends. Raises: LostLease."""
    mine = select(Job).filter_by(id=job.id, state="due", lease_token=job.lease_token).with_for_update()
    row = session.scalar(mine.execution_options(populate_existing=True))
    if row is None:
        raise LostLease("lease_lost", f"job {job.id}")
    return row


def checkpoint(session: Session, job: ClaimedJob, progress: int | None = None, checkpoint: str | None = None) -> None:
    """Store the progress of a job, if it is given, and set its attempts to zero. Raises: LostLease."""
    row = hold(session, job)
    if progress is not None:
        job.progress, job.checkpoint = progress, checkpoint
        row.progress, row.checkpoint = progress, checkpoint
    row.attempts = job.attempts = 0


_EXTEND = text("""
    UPDATE jobs SET due_at = now() + make_interval(secs => :lease_s)
     WHERE id = :id AND lease_token = :lease_token AND state = 'due' RETURNING id""")


def extend_lease(session: Session, job: ClaimedJob, lease_s: float) -> bool:
    """Extend the lease; return False if it is lost."""
    found = session.execute(_EXTEND, {"lease_s": lease_s, "id": job.id, "lease_token": job.lease_token})
    return found.one_or_none() is not None


def postpone(
    session: Session, job: ClaimedJob, wait_s: float, *, counted: bool = True, waits_for: str | None = None
) -> None:
    """Continue the job in `wait_s` seconds; without `counted` this was not an attempt. Raises: LostLease."""
    row = hold(session, job)
    row.waits_for = waits_for
    row.due_at = func.now() + timedelta(seconds=wait_s)
    row.dispatched_at = None
    row.attempts = row.attempts if counted else 0


def end(session: Session, job: ClaimedJob, state: str = "done", reason: str | None = None) -> None:
    """End the job. If it was requested again since it began, it is due again, from the beginning. Raises: LostLease."""
    row = hold(session, job)
    if state == "done" and row.requested > 1:
        row.due_at, row.dispatched_at, row.attempts, row.progress, row.checkpoint = func.now(), None, 0, 0, None
        job_items.delete_items(session, job.id)
        return
    row.state, row.reason, row.ended_at = state, reason, func.now()
    if state != "failed":
        row.secret = None


def pause(session: Session, job_id: int) -> bool:
    """Pause a due job; return False if it is not due.

    A worker that runs it loses its lease and writes nothing more. The step is repeated later and does not count as an attempt.
    """
    return _take_from_workers(session, job_id, ("due",), "paused") is not None


def resume(session: Session, job_id: int) -> bool:
    """Make a paused job due; return False if it is not paused."""
    row = _take_from_workers(session, job_id, ("paused",), "due")
    if row is None:
        return False
    row.due_at, row.dispatched_at = func.now(), None
    return True


def abort(session: Session, job_id: int, state: str) -> bool:
    """Abort a due, paused or failed job; return False if it is not in `state` any more, or has ended otherwise."""
    has_ended = state not in (*OPEN, "failed")
    row = None if has_ended else _take_from_workers(session, job_id, (state,), "aborted")
    if row is None:
        return False
    row.ended_at, row.secret, row.reason = func.now(), None, None
    return True


def lock_open(session: Session, job_id: int, states: Sequence[str] = OPEN) -> Job | None:
    """Return a job in one of these states, locked until the transaction ends."""
    mine = select(Job).where(Job.id == job_id, Job.state.in_(states)).with_for_update()
    return session.scalar(mine.execution_options(populate_existing=True))


def _take_from_workers(session: Session, job_id: int, states: Sequence[str], state: str) -> Job | None:
    row = lock_open(session, job_id, states)
    if row is None:
        return None
    row.state, row.lease_token, row.attempts, row.waits_for = state, row.lease_token + 1, 0, None
    return row


def reopen(session: Session, job_id: int, key: str, *, title: str, secret: bytes) -> bool:
    """Make a job that is done due again, under another key and with its items; return False if it is not done."""
    row = lock_open(session, job_id, ("done",))
    if row is None:
        return False
    row.state, row.dedupe_key, row.title, row.secret = "due", key, title, secret
    row.due_at, row.dispatched_at, row.ended_at, row.attempts, row.requested = func.now(), None, None, 0, 1
    return True


def revive(session: Session, job_id: int) -> bool:
    """Make a failed job due again; return False if it was deleted, or requested again since."""
    row = session.scalar(select(Job).filter_by(id=job_id, state="failed").with_for_update())
    if row is None or not is_revivable(session, job_id):
        return False
    row.state, row.reason, row.attempts, row.due_at, row.dispatched_at = "due", None, 0, func.now(), None
    row.ended_at = None
    return True


def is_revivable(session: Session, job_id: int) -> bool:
    """Return whether a failed job exists and was not requested again since."""
    row = session.scalar(select(Job).filter_by(id=job_id, state="failed"))
    if row is None:
        return False
    return find_open(session, row.kind, row.dedupe_key) is None


def find_open(session: Session, kind: str, key: str) -> int | None:
    """Return the id of the job that has not ended."""
    return session.scalar(select(Job.id).filter_by(kind=kind, dedupe_key=key).where(Job.state.in_(OPEN)))


def newest_jobs(session: Session, connector_key: int, kind: str, keys: Sequence[str]) -> dict[str, Job]:
    """Return dedupe key → the newest job of a kind, in any state."""
    mine = select(Job).where(Job.connector_key == connector_key, Job.kind == kind, Job.dedupe_key.in_(keys))
    return {job.dedupe_key: job for job in session.scalars(mine.order_by(Job.id))}


def lock_with_secret(session: Session) -> list[Job]:
    """Return the jobs with an encrypted input, locked until the transaction ends."""
    mine = select(Job).where(Job.secret.is_not(None)).order_by(Job.id).with_for_update()
    return list(session.scalars(mine.execution_options(populate_existing=True)))


def get_job(session: Session, job_id: int) -> Job:
    """Return the current row of a job. Raises NoResultFound if it was deleted."""
    return session.get_one(Job, job_id, populate_existing=True)


def state_of(session: Session, job_id: int) -> str | None:
    """Return the state of a job; None if it was deleted."""
    return session.scalar(select(Job.state).filter_by(id=job_id))


def count_due(session: Session, kind: str) -> int:
    return session.scalar(select(func.count(Job.id)).filter_by(kind=kind, state="due")) or 0


def latest_jobs(session: Session, connector_key: int, kinds: Sequence[str], limit: int = 10) -> list[Job]:
    """Return jobs of some kinds in any state, newest first."""
    mine = select(Job).where(Job.connector_key == connector_key, Job.kind.in_(kinds))
    return list(session.scalars(mine.order_by(Job.id.desc()).limit(limit)))


IS_RUNNING: Final[ColumnElement[bool]] = and_(
    Job.state == "due", Job.due_at > func.now(), Job.dispatched_at.is_not(None)
)
"""A worker has the job's lease. A postponed job has none: it is dispatched again when it is due."""


def find_jobs(
    session: Session,
    connector_key: int,
    *,
    kind: str | None = None,
    state: str | None = None,
    routine: str | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> list[tuple[Job, bool]]:
    """Return (job, whether a worker runs it) of a connector, newest first.

    state    state of the row; `running` or `waiting` for due ones
    routine  kind of jobs that are left out when they are done, unless `kind` is this kind
    """
    query = select(Job, IS_RUNNING).where(Job.connector_key == connector_key).order_by(Job.id.desc()).limit(limit)
    if kind is not None:
        query = query.where(Job.kind == kind)
    elif routine is not None:
        query = query.where((Job.kind != routine) | (Job.state != "done"))
    if state is not None:
        due = {"running": IS_RUNNING, "waiting": and_(Job.state == "due", ~IS_RUNNING)}
        query = query.where(due.get(state, Job.state == state))
    if before_id is not None:
        query = query.where(Job.id < before_id)
    return [(row[0], bool(row[1])) for row in session.execute(query)]


def find_job(session: Session, connector_key: int, job_id: int) -> tuple[Job, bool] | None:
    """Return (job, whether a worker runs it) by the job's id; None if the connector has no such job."""
    row = session.execute(
        select(Job, IS_RUNNING).where(Job.connector_key == connector_key, Job.id == job_id)
    ).one_or_none()
    return None if row is None else (row[0], bool(row[1]))


def count_open(session: Session, connector_key: int) -> int:
    """Return how many jobs of a connector are due or running."""
    return session.scalar(select(func.count(Job.id)).filter_by(connector_key=connector_key, state="due")) or 0


def was_refused(session: Session, kind: str, key: str, *, within_s: float) -> bool:
    """Return whether the same job was refused in the last `within_s` seconds."""
    recently = func.now() - timedelta(seconds=within_s)
    found = select(Job.id).where(
        Job.kind == kind, Job.dedupe_key == key, Job.state == "refused", Job.ended_at > recently
    )
    return session.scalar(found.limit(1)) is not None


_DROP_OLD = text("""
    WITH old AS MATERIALIZED (
        SELECT id FROM jobs j
         WHERE ended_at < now() - make_interval(days => :keep_days)
           AND (state IN ('done', 'refused', 'aborted')
                OR state = 'failed' AND NOT EXISTS (
                    SELECT FROM failures f
                     WHERE f.connector_key = j.connector_key AND f.direction = 'outgoing' AND f.entity = ''
                       AND f.record_id = j.id::text AND f.stage = 'control.job' AND f.state = 'open')
                AND NOT EXISTS (
                    SELECT FROM replays r WHERE j.kind = 'replay' AND r.id::text = j.dedupe_key AND r.state = 'stopped'))
         ORDER BY id LIMIT :limit)
    DELETE FROM jobs j USING old
     WHERE j.id = old.id AND j.ended_at < now() - make_interval(days => :keep_days)""")
"""The age is checked again when the row is deleted: a job may be resumed in between."""


def drop_old_jobs(session: Session, limit: int) -> int:
    """Delete at most `limit` jobs past their retention; return how many. A failed one stays while its Failure is open or its replay
    can be resumed.
    """
    scope = {"keep_days": RETENTION_DAYS, "limit": limit}
    return changed_rows(session, _DROP_OLD, scope)
