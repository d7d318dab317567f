"""Schedules of fetches and checks, and heartbeats: when a periodic task last ran.

A due schedule is found and claimed by one statement, so that two beats do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ForeignKey, Integer, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, changed_rows
from db.statement import texts

FULL_FETCH: Final = "full_fetch"
INCREMENTAL: Final = "incremental"
REST_S: Final = 120.0
"""Seconds between two early starts of an incremental fetch that webhooks request."""


class Schedule(Base):
    __tablename__ = "schedules"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    """`full_fetch` by cron; `incremental` and `webhooks` by interval."""
    cron: Mapped[str | None]
    interval_s: Mapped[int | None] = mapped_column(Integer)
    next_run_at: Mapped[datetime]
    last_run_at: Mapped[datetime | None]


def set_schedule(
    session: Session,
    connector_key: int,
    kind: str,
    *,
    next_run_at: datetime,
    cron: str | None = None,
    interval_s: int | None = None,
) -> None:
    """Add or replace a schedule: by cron, or every `interval_s` seconds without delaying an earlier due time."""
    row = insert(Schedule).values(
        connector_key=connector_key, kind=kind, cron=cron, interval_s=interval_s, next_run_at=next_run_at
    )
    planned: dict[str, Any] = {"cron": row.excluded.cron, "interval_s": row.excluded.interval_s}
    if interval_s is None:
        planned["next_run_at"] = row.excluded.next_run_at
    else:
        within = func.now() + timedelta(seconds=interval_s)
        planned["next_run_at"] = func.least(Schedule.next_run_at, within)
    session.execute(row.on_conflict_do_update(index_elements=["connector_key", "kind"], set_=planned))


def request_catch_up(session: Session, connector_key: int, *, rested_s: float = 0.0) -> None:
    """Make the incremental fetch due now, because webhooks may have been missed.

    Change nothing if none is scheduled, or if the last one started less than `rested_s` seconds ago.
    """
    has_rested = func.coalesce(Schedule.last_run_at, Schedule.next_run_at - func.make_interval(1000))
    session.execute(
        update(Schedule)
        .where(
            Schedule.connector_key == connector_key,
            Schedule.kind == INCREMENTAL,
            Schedule.next_run_at > func.now(),
            has_rested <= func.now() - timedelta(seconds=rested_s),
        )
        .values(next_run_at=func.now())
    )


def catch_up_soon(session: Session, connector_key: int) -> None:
    """Make the incremental fetch due now, at most once in REST_S: webhooks may request it any number of times."""
    request_catch_up(session, connector_key, rested_s=REST_S)


def drop_schedule(session: Session, connector_key: int, kind: str) -> None:
    if schedule := session.get(Schedule, (connector_key, kind)):
        session.delete(schedule)


def connectors_with_due(session: Session) -> list[int]:
    """Return connectors with a due schedule, the longest due first."""
    due = select(Schedule.connector_key).where(Schedule.next_run_at <= func.now())
    return list(
        session.scalars(
            due.group_by(Schedule.connector_key).order_by(func.min(Schedule.next_run_at), Schedule.connector_key)
        )
    )


def take_due(session: Session, connector_key: int) -> list[Schedule]:
    """Return the due schedules of a connector, locked.

    The caller sets their next time before it commits; missed times count once.
    """
    mine = select(Schedule).filter_by(connector_key=connector_key).where(Schedule.next_run_at <= func.now())
    return list(session.scalars(mine.order_by(Schedule.next_run_at).with_for_update(skip_locked=True)))


def schedules_of(session: Session, connector_key: int) -> list[Schedule]:
    return list(session.scalars(select(Schedule).filter_by(connector_key=connector_key)))


LIVE_PROCESS = "live process "
"""Prefix of the heartbeats of processes that run live batches; the node and a number follow."""
ALIVE_S = 20
"""A process without a heartbeat for this time has ended; it sends one every `EVERY_S` seconds."""
EVERY_S = 5
"""A younger heartbeat is not written again, to save writes."""


class Heartbeat(Base):
    """When a periodic task last ran.

    name  `sweep`, `beat` (a tick of beat, not of a starting worker), `alerts`, `live process NODE NUMBER`, or
          `unknown ids of CONNECTOR_KEY`: until when its share is used, see `take_share`
    """

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


_NOTE = text("""
    INSERT INTO heartbeats (name, at) SELECT name, now() FROM unnest(CAST(:names AS text[])) AS name
        ON CONFLICT (name) DO UPDATE SET at = excluded.at
     WHERE heartbeats.at < now() - make_interval(secs => :every_s)""")


def note_heartbeats(session: Session, names: Iterable[str]) -> None:
    session.execute(_NOTE, {"names": texts(names), "every_s": EVERY_S})


_SPENT_UNTIL = text("""
    INSERT INTO heartbeats (name, at) VALUES (:name, now())
        ON CONFLICT (name) DO UPDATE SET at = greatest(heartbeats.at, now())
 RETURNING extract(epoch FROM at - now())""")
_SPEND = text("UPDATE heartbeats SET at = at + make_interval(secs => :spent_s) WHERE name = :name")


def take_share(session: Session, name: str, wanted: int, *, most: int, every_s: float) -> int:
    """Return how many of `wanted` actions may happen now, if `most` may in `every_s` seconds (a leaky bucket).

    The heartbeat has the time at which the bucket will be empty.
    """
    spent_s = float(session.execute(_SPENT_UNTIL, {"name": name}).scalar_one())
    taken = max(0, min(wanted, int((every_s - spent_s) * most / every_s)))
    session.execute(_SPEND, {"name": name, "spent_s": taken * every_s / most})
    return taken


_FORGET_ENDED = text("""
    DELETE FROM heartbeats WHERE starts_with(name, :live_process) AND at < now() - make_interval(secs => 10 * :alive_s)""")


def forget_ended_processes(session: Session) -> int:
    """Delete the heartbeats of processes that ended; return how many."""
    return changed_rows(session, _FORGET_ENDED, {"live_process": LIVE_PROCESS, "alive_s": ALIVE_S})


def heartbeats(session: Session) -> dict[str, datetime]:
    """Return name → time of the heartbeat, to within `EVERY_S` seconds."""
    return {row.name: row.at for row in session.execute(select(Heartbeat.name, Heartbeat.at))}
