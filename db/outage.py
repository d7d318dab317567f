"""Outages: remote systems that do not answer a connector, since when, and when a call may probe them.

A row exists from the first failed call until the first answered one. If calls of several pieces of work have failed, only one
call at a time may be made, the probe. All other work waits, and is due when a probe is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Boolean, ForeignKey, Integer, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import change_writer
from db.base import Base

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 120.0
"""The pause between two probes is half of the time that the outage has lasted, and at most this long."""


class Outage(Base):
    """One outage.

    remote     a name of `REMOTES`; with ` limit` if it answers 429 only
    subject    the work with the last failed call
    is_shared  calls of several pieces of work have failed
    failures   failed calls since its last answer
    probe_at   when a call may probe it
    """

    __tablename__ = "outages"

    connector_key: Mapped[int] = mapped_column(
        Integer, ForeignKey("connectors.key", ondelete="CASCADE"), primary_key=True
    )
    remote: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    failed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failures: Mapped[int] = mapped_column(Integer, server_default="1")
    subject: Mapped[str]
    is_shared: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    probe_at: Mapped[datetime]
    reason: Mapped[str]
    detail: Mapped[str] = mapped_column(server_default="")


REMOTES: Final = {
    "pipedrive": "Pipedrive",
    "pipedrive search": "Pipedrive's search",
    "pipedrive sign-in": "Pipedrive's sign-in",
    "hull": "Hull",
    "firehose": "Hull's firehose",
    "files": "Hull's file storage",
}
"""Remote → its name in texts."""


@dataclass(frozen=True, slots=True)
class RecordedFailure:
    """A failed call: whether it is the first of the outage, whether other work has failed too, and when to probe."""

    is_first: bool
    is_shared: bool
    wait_s: float


@dataclass(frozen=True, slots=True)
class OutageAnswer:
    """Whether a call may be made.

    is_open  there is an outage
    wait_s   how long the call must wait; 0 if it may be made now
    """

    is_open: bool
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForRemote:
    """How much work waits for one remote system, by kind."""

    batches: int = 0
    changes: int = 0
    jobs: int = 0


_NOTE_FAILURE = text("""
    INSERT INTO outages AS o (connector_key, remote, subject, reason, detail, probe_at)
    VALUES (:key, :remote, :subject, :reason, :detail, now() + make_interval(secs => :first_s))
    ON CONFLICT (connector_key, remote) DO UPDATE
       SET failures = o.failures + 1, failed_at = now(), reason = excluded.reason, detail = excluded.detail,
           is_shared = o.is_shared OR o.subject <> excluded.subject AND excluded.reason <> 'rate_limited',
           subject = excluded.subject,
           probe_at = now() + greatest(make_interval(secs => :first_s),
                                       least(make_interval(secs => :longest_s), (now() - o.since) / 2))
    RETURNING failures = 1 AS is_first, is_shared, extract(epoch FROM probe_at - now())::float8 AS wait_s""")


def note_failure(
    session: Session, connector_key: int, remote: str, *, subject: str, reason: str, detail: str
) -> RecordedFailure:
    """Store that a call was not answered."""
    scope = {"key": connector_key, "remote": remote, "subject": subject, "reason": reason, "detail": detail}
    row = session.execute(_NOTE_FAILURE, scope | {"first_s": FIRST_PAUSE_S, "longest_s": LONGEST_PAUSE_S}).one()
    return RecordedFailure(row.is_first, row.is_shared, row.wait_s)


_ASK = text("""
    WITH mine AS (UPDATE outages SET probe_at = now() + make_interval(secs => :probe_s)
                   WHERE connector_key = :key AND remote = :remote AND is_shared AND probe_at <= now() RETURNING 1)
    SELECT CASE WHEN is_shared AND NOT EXISTS (SELECT FROM mine)
                THEN greatest(0, extract(epoch FROM probe_at - now()))::float8 ELSE 0 END AS wait_s
      FROM outages WHERE connector_key = :key AND remote IN (:remote, :limited) ORDER BY remote LIMIT 1""")


def ask(session: Session, connector_key: int, remote: str, *, probe_s: float) -> OutageAnswer:
    """Return whether a call may be made now. While the outage is shared, one call may in `probe_s` seconds."""
    scope = {"key": connector_key, "remote": remote, "limited": limit_of(remote), "probe_s": probe_s}
    wait_s = session.execute(_ASK, scope).scalar_one_or_none()
    return OutageAnswer(is_open=wait_s is not None, wait_s=wait_s or 0.0)


_END = text(
    "DELETE FROM outages WHERE connector_key = :key AND remote = ANY(CAST(:remotes AS text[])) RETURNING remote, since"
)
_BATCHES = text("""
    UPDATE batches SET due_at = now(), enqueued_at = NULL
     WHERE connector_key = :key AND state = 'ready' AND waits_for = ANY(CAST(:remotes AS text[])) AND due_at > now()""")
_JOBS = text("""
    UPDATE jobs SET due_at = now(), dispatched_at = NULL
     WHERE connector_key = :key AND state = 'due' AND waits_for = ANY(CAST(:remotes AS text[])) AND due_at > now()""")


def end(session: Session, connector_key: int, remote: str, *, wake: bool = True) -> datetime | None:
    """End the outage of a remote system that has answered; with `wake` make the work that waits for it due.

    Return since when it had not answered; None if there was no outage.
    """
    remotes = [remote, limit_of(remote)]
    scope = {"key": connector_key, "remotes": remotes}
    rows = session.execute(_END, scope).all()
    if not rows:
        return None
    if wake:
        session.execute(_BATCHES, scope)
        change_writer.make_all_due(session, connector_key, remotes)
        session.execute(_JOBS, scope)
    since: datetime = min(row.since for row in rows)
    return since


def limit_of(remote: str) -> str:
    """Return the name for an outage of a remote system that answers 429 only."""
    return f"{remote} limit"


def alone_of(remote: str) -> str:
    """Return the name for which work waits if only this work fails at a remote system: an answer to other work does not wake it."""
    return f"{remote} alone"


def outages_of(session: Session, connector_key: int) -> list[Outage]:
    """Return the outages of a connector, the longest one first."""
    return list(session.scalars(select(Outage).filter_by(connector_key=connector_key).order_by(Outage.since)))


_WAITING = text("""
    SELECT 'batches' AS kind, waits_for, count(*) AS amount FROM batches
     WHERE connector_key = :key AND state = 'ready' AND waits_for IS NOT NULL AND due_at > now() GROUP BY 2
    UNION ALL SELECT 'changes', waits_for, count(*) FROM changes
     WHERE connector_key = :key AND batch_id IS NULL AND waits_for IS NOT NULL AND due_at > now() GROUP BY 2
    UNION ALL SELECT 'jobs', waits_for, count(*) FROM jobs
     WHERE connector_key = :key AND state = 'due' AND waits_for IS NOT NULL AND due_at > now() GROUP BY 2""")


def waiting_of(session: Session, connector_key: int) -> dict[str, WaitingForRemote]:
    """Return remote or other reason → how much work waits for it."""
    found: dict[str, dict[str, int]] = {}
    for row in session.execute(_WAITING, {"key": connector_key}):
        kinds = found.setdefault(row.waits_for.removesuffix(alone_of("")), {})
        kinds[row.kind] = kinds.get(row.kind, 0) + row.amount
    return {name: WaitingForRemote(**amounts) for name, amounts in found.items()}
