"""Runs and their slices: how far a full or incremental fetch has come.

A full fetch walks the ids from both ends at once (`ascending`, `descending`) until the two meet, then catches up with
everything that changed meanwhile (`catch_up`). A backfill walks what is `stored`. The run row is locked whenever its slices,
batches or counters move.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ARRAY, BigInteger, ForeignKey, Index, Integer, case, func, select, text, update
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from db.arrays import bigints
from db.base import Base, Count, Created, RowId


class Run(Base):
    __tablename__ = "runs"
    __table_args__ = (
        Index(
            "uq_runs_one_at_a_time",
            "connector_key",
            "entity",
            "kind",
            unique=True,
            postgresql_where=text("state = 'running'"),
        ),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    entity: Mapped[str]
    kind: Mapped[str]
    """`full`, `incremental`, or `backfill`: what is stored is carried over once more, under new settings."""
    state: Mapped[str] = mapped_column(server_default="running")
    """`running`, `done`, `cancelled`, or `stopped` (a page could not be read; replay its failure to go on)."""
    phase: Mapped[str] = mapped_column(server_default="walk")
    """`walk`, then `catch_up`."""
    changed_only: Mapped[bool] = mapped_column(server_default="false")
    since: Mapped[datetime | None]
    cause: Mapped[str]
    reason: Mapped[str | None]
    settings_version: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[Created]
    finished_at: Mapped[datetime | None]
    pages: Mapped[Count]
    read: Mapped[Count]
    new: Mapped[Count]
    changed: Mapped[Count]
    same: Mapped[Count]
    skipped: Mapped[Count]
    failed: Mapped[Count]
    shells: Mapped[Count]
    links: Mapped[Count]
    messages: Mapped[Count]
    requests: Mapped[Count]
    tokens: Mapped[Count]


class PageIds(Base):
    """The ids that one page of a run listed: what the id map holds and no page listed may have been deleted."""

    __tablename__ = "page_ids"

    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    batch_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))


COUNTERS = (
    "pages",
    "read",
    "new",
    "changed",
    "same",
    "skipped",
    "failed",
    "shells",
    "links",
    "messages",
    "requests",
    "tokens",
)


class Slice(Base):
    """One cursor of a run.

    cursor    Pipedrive's opaque marker of the next page; None before the first
    frontier  the id this walk has come to; two walks have met when their frontiers cross
    """

    __tablename__ = "slices"

    id: Mapped[RowId]
    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    walk: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="open")
    cursor: Mapped[str | None]
    frontier: Mapped[int | None]
    pages: Mapped[Count]


def lock_run(session: Session, run_id: int) -> Run:
    """The run, held until the transaction ends: its counters and batches move one transaction at a time."""
    return session.scalars(
        select(Run).where(Run.id == run_id).with_for_update().execution_options(populate_existing=True)
    ).one()


def lock_walk(session: Session, run_id: int, slice_id: int) -> tuple[Run, Slice, int | None]:
    """(the run, held until the transaction ends; its slice; how far the walk from the other end has come)."""
    other = aliased(Slice)
    opposite = case({"ascending": "descending", "descending": "ascending"}, value=Slice.walk)
    frontier = select(other.frontier).where(other.run_id == run_id, other.walk == opposite).scalar_subquery()
    query = (
        select(Run, Slice, frontier).join(Slice, Slice.run_id == Run.id).where(Run.id == run_id, Slice.id == slice_id)
    )
    row = session.execute(query.with_for_update(of=Run).execution_options(populate_existing=True)).one()
    return row[0], row[1], row[2]


def running_run(session: Session, connector_key: int, entity: str, kind: str) -> Run | None:
    """The run that is under way, if one is."""
    return session.scalar(
        select(Run).filter_by(connector_key=connector_key, entity=entity, kind=kind, state="running").limit(1)
    )


def latest_runs(session: Session, connector_key: int | None, limit: int = 20) -> list[Run]:
    """Newest first."""
    newest = select(Run).order_by(Run.id.desc()).limit(limit)
    return list(session.scalars(newest if connector_key is None else newest.filter_by(connector_key=connector_key)))


def runs_of_settings(session: Session, connector_key: int, version: int, cause: str) -> list[Run]:
    """The runs that this version of the settings called for."""
    mine = select(Run).filter_by(connector_key=connector_key, settings_version=version, cause=cause)
    return list(session.scalars(mine.order_by(Run.id)))


def slices_of(session: Session, run_id: int) -> list[Slice]:
    return list(session.scalars(select(Slice).filter_by(run_id=run_id).order_by(Slice.id)))


_RESENDS = text("""
    SELECT NOT r.changed_only AND s.walk <> 'catch_up' FROM runs r JOIN slices s ON s.run_id = r.id
     WHERE r.id = :run_id AND s.id = :slice_id""")


def resends(session: Session, run_id: int, slice_id: int) -> bool:
    """Whether a page of this slice is sent whole: in the walk of a full fetch that was not asked for changes alone."""
    return bool(session.execute(_RESENDS, {"run_id": run_id, "slice_id": slice_id}).scalar_one())


_KEEP_PAGE_IDS = text(
    "INSERT INTO page_ids (run_id, batch_id, ids) VALUES (:run_id, :batch_id, CAST(:ids AS bigint[]))"
)


def keep_page_ids(session: Session, run_id: int, batch_id: int, ids: Sequence[int]) -> None:
    """Note which ids a page of a run listed."""
    session.execute(_KEEP_PAGE_IDS, {"run_id": run_id, "batch_id": batch_id, "ids": bigints(ids)})


def count(run: Run, **deltas: int) -> None:
    """Count what a batch did; the run must be locked."""
    for name, delta in deltas.items():
        setattr(run, name, getattr(run, name) + delta)


def close_run(session: Session, run: Run, state: str, reason: str | None = None) -> None:
    """End the run, well or not."""
    run.state, run.reason = state, reason
    session.execute(update(Run).where(Run.id == run.id).values(finished_at=func.now(), state=state, reason=reason))
