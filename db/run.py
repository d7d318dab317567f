"""Runs and their slices: the progress of fetches and backfills.

A full fetch reads the ids from both ends at the same time (`ascending`, `descending`) until the two walks meet, then what changed
since its start (`catch_up`). A backfill reads what is `stored`. The run's row is locked while its slices, batches or counters
change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Final

from sqlalchemy import ARRAY, BigInteger, ForeignKey, Index, Integer, func, select, text, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Count, Created, RowId
from db.statement import Statement, bigints

_OF_ENTITY = ("connector_key", "entity")


class Run(Base):
    __tablename__ = "runs"
    __table_args__ = (
        Index("uq_runs_one_at_a_time", *_OF_ENTITY, "kind", unique=True, postgresql_where=text("state = 'running'")),
        Index("ix_runs_latest", "connector_key", "id"),
        Index(
            "ix_runs_unended",
            *_OF_ENTITY,
            "state",
            postgresql_where=text("state IN ('running', 'held', 'stopped')"),
        ),
        Index("ix_runs_reindexes", *_OF_ENTITY, "id", postgresql_where=text("reindexes")),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    entity: Mapped[str]
    kind: Mapped[str]
    """`full`, `incremental`, or `backfill` (snapshots are synchronized again with new settings)."""
    state: Mapped[str] = mapped_column(server_default="running")
    """`running`, `done`, `cancelled`, `stopped` (a page could not be read; replay its failure to continue) or `held` (it would
    change so many records that it needs approval)."""
    phase: Mapped[str] = mapped_column(server_default="walk")
    """`walk`, then `catch_up`."""
    changed_only: Mapped[bool] = mapped_column(server_default="false")
    since: Mapped[datetime | None]
    cause: Mapped[str]
    reason: Mapped[str | None]
    settings_version: Mapped[int] = mapped_column(Integer)
    plan_id: Mapped[int | None] = mapped_column(BigInteger)
    """The plan that a backfill applies: other records are left out."""
    reindexes: Mapped[bool] = mapped_column(server_default="false")
    """Of a backfill: new settings change what identifies records, so look-ups cannot use the index before it is done."""
    started_at: Mapped[Created]
    finished_at: Mapped[datetime | None]
    pages: Mapped[Count]
    read: Mapped[Count]
    new: Mapped[Count]
    changed: Mapped[Count]
    same: Mapped[Count]
    skipped: Mapped[Count]
    failed: Mapped[Count]
    rejected_fields: Mapped[Count]
    """Rejected fields of synchronized records."""
    shells: Mapped[Count]
    links: Mapped[Count]
    messages: Mapped[Count]
    requests: Mapped[Count]
    tokens: Mapped[Count]


class PageIds(Base):
    """The ids that one page of a run listed: a known record that no page listed may have been deleted."""

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
    "rejected_fields",
    "shells",
    "links",
    "messages",
    "requests",
    "tokens",
)


class Slice(Base):
    """One cursor of a run.

    cursor    Pipedrive's cursor of the next page; None before the first page
    frontier  the last id of this walk; two walks have met when their frontiers cross
    """

    __tablename__ = "slices"

    id: Mapped[RowId]
    run_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    walk: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="open")
    cursor: Mapped[str | None]
    frontier: Mapped[int | None]
    anchor: Mapped[str | None]
    """An earlier cursor: if it is returned again, the walk is a circle. It is replaced when the number of pages has doubled."""
    empty_pages: Mapped[Count]
    """Consecutive pages without a record."""
    pages: Mapped[Count]


def lock_run(session: Session, run_id: int) -> Run:
    """Return a run, locked until the transaction ends."""
    return session.scalars(
        select(Run).where(Run.id == run_id).with_for_update(key_share=True).execution_options(populate_existing=True)
    ).one()


@dataclass(frozen=True, slots=True)
class LockedWalk:
    """A slice and its run, with the run's row locked.

    read       pages of the run that were read before
    other_end  the frontier of the opposite walk
    is_alone   a walk by id without an opposite walk
    """

    run_id: int
    connector_key: int
    entity: str
    run_state: str
    read: int
    slice_id: int
    walk: str
    state: str
    other_end: int | None
    is_alone: bool

    def passed(self, ids: Iterable[int]) -> int:
        """Return how many ids of a page the opposite walk has read already."""
        end = self.other_end  # None for a walk by time as well, which has no opposite walk
        if end is None:
            return 0
        return sum(each <= end if self.walk == "descending" else each >= end for each in ids)


_LOCK_RUN = Statement("SELECT id FROM runs WHERE id = :run_id FOR NO KEY UPDATE")
_READ_WALK = Statement("""
    SELECT r.id, r.connector_key, r.entity, r.state, r.pages, s.id, s.walk, s.state, o.frontier,
           s.walk = 'ascending' AND o.id IS NULL
      FROM runs r JOIN slices s ON s.run_id = r.id
      LEFT JOIN slices o ON o.run_id = r.id
           AND o.walk = CASE s.walk WHEN 'ascending' THEN 'descending' WHEN 'descending' THEN 'ascending' END
     WHERE r.id = :run_id AND s.id = :slice_id""")


def lock_walk(session: Session, run_id: int, slice_id: int) -> LockedWalk:
    """Return a slice, with its run locked until the transaction ends. Raises LookupError.

    The lock is a statement of its own. A statement that waits for a lock reads all other rows as they were before it waited,
    so it would miss the page that the opposite walk has saved since.
    """
    _LOCK_RUN.row(session, {"run_id": run_id})
    row = _READ_WALK.row(session, {"run_id": run_id, "slice_id": slice_id})
    if row is None:
        raise LookupError(f"slice {slice_id} of run {run_id}")
    return LockedWalk(*row)


_MOVE = Statement("""
    UPDATE slices SET cursor = :cursor, frontier = :frontier, pages = pages + 1,
           anchor = CASE WHEN (pages + 1) & pages = 0 THEN :cursor ELSE anchor END,
           empty_pages = CASE WHEN :records = 0 THEN empty_pages + 1 ELSE 0 END,
           state = CASE WHEN :done THEN 'done' ELSE state END
     WHERE id = :slice_id""")


def move_slice(
    session: Session, slice_id: int, cursor: str | None, frontier: int | None, *, records: int, done: bool
) -> None:
    """Store the position of a walk after a page with `records` records."""
    moved = {"slice_id": slice_id, "cursor": cursor, "frontier": frontier, "records": records, "done": done}
    _MOVE.run(session, moved)


_WHERE = Statement("""
    SELECT s.walk, s.state, s.cursor, s.frontier, coalesce(r.since, r.started_at - make_interval(secs => :overlap_s)), r.plan_id,
           r.started_at, s.anchor, s.empty_pages
      FROM slices s JOIN runs r ON r.id = s.run_id WHERE s.id = :slice_id""")


@dataclass(frozen=True, slots=True)
class SliceProgress:
    """Where a slice continues.

    since       from which update time a walk by time reads
    plan_id     the plan that a backfill applies
    started_at  when the run began
    """

    walk: str
    state: str
    cursor: str | None
    frontier: int | None
    since: datetime
    plan_id: int | None
    started_at: datetime
    anchor: str | None
    empty_pages: int


def get_slice_progress(session: Session, slice_id: int, overlap_s: float) -> SliceProgress:
    """Return where the next page of a slice begins; a walk by time begins `overlap_s` seconds before its run.

    Raises LookupError.
    """
    row = _WHERE.row(session, {"slice_id": slice_id, "overlap_s": overlap_s})
    if row is None:
        raise LookupError(f"slice {slice_id}")
    return SliceProgress(*row)


def running_run(session: Session, connector_key: int, entity: str, kind: str) -> Run | None:
    """Return the running run of an entity and kind."""
    return session.scalar(
        select(Run).filter_by(connector_key=connector_key, entity=entity, kind=kind, state="running").limit(1)
    )


def find_reindexing(session: Session, connector_key: int, entity: str) -> Run | None:
    """Return the backfill that rebuilds the index and is running or needs approval."""
    mine = select(Run).filter_by(connector_key=connector_key, entity=entity, reindexes=True)
    return session.scalar(mine.where(Run.state.in_(("running", "held"))).order_by(Run.id.desc()).limit(1))


def runs_in_state(session: Session, connector_key: int, state: str) -> list[Run]:
    """Return the runs of a connector in one state, oldest first."""
    return list(session.scalars(select(Run).filter_by(connector_key=connector_key, state=state).order_by(Run.id)))


def latest_full_run(session: Session, connector_key: int, entity: str, *, state: str | None = None) -> Run | None:
    """Return the newest full fetch of an entity."""
    query = select(Run).filter_by(connector_key=connector_key, entity=entity, kind="full")
    if state is not None:
        query = query.filter_by(state=state)
    return session.scalar(query.order_by(Run.id.desc()).limit(1))


def last_started(session: Session, connector_key: int, kind: str) -> datetime | None:
    """Return when the newest run of a kind began."""
    mine = select(Run.started_at).filter_by(connector_key=connector_key, kind=kind)
    return session.scalar(mine.order_by(Run.id.desc()).limit(1))


LOOKED_BACK: Final = 10
"""Maximum of full fetches that are read to count those that ended early in a row."""


@dataclass(frozen=True, slots=True)
class EndedEarly:
    """The newest full fetch of an entity, which was stopped or cancelled.

    in_a_row  number of consecutive full fetches that ended early, this one included
    ago_s     seconds since it ended
    """

    run: Run
    in_a_row: int
    ago_s: float


def ended_early(session: Session, connector_key: int, entity: str) -> EndedEarly | None:
    """Return the newest full fetch if it was stopped or cancelled."""
    query = select(Run).filter_by(connector_key=connector_key, entity=entity, kind="full")
    newest = list(session.scalars(query.order_by(Run.id.desc()).limit(LOOKED_BACK)))
    early = list(takewhile(lambda run: run.state in ("stopped", "cancelled"), newest))
    if not early or early[0].finished_at is None:
        return None
    now: datetime = session.scalars(select(func.now())).one()
    return EndedEarly(early[0], len(early), (now - early[0].finished_at).total_seconds())


def find_runs(
    session: Session, connector_key: int | None, *, before: int | None = None, limit: int = 50, **exact: str | None
) -> list[Run]:
    """Return runs, newest first, of one connector or of all; `exact` may have `entity`, `kind`, `state` and `cause`."""
    query = select(Run).filter_by(**{k: v for k, v in exact.items() if v})
    if connector_key is not None:
        query = query.filter_by(connector_key=connector_key)
    if before is not None:
        query = query.where(Run.id < before)
    return list(session.scalars(query.order_by(Run.id.desc()).limit(limit)))


def runs_of_settings(session: Session, connector_key: int, version: int, cause: str) -> list[Run]:
    """Return the runs with this cause that began under a version of the settings, oldest first."""
    mine = select(Run).filter_by(connector_key=connector_key, settings_version=version, cause=cause)
    return list(session.scalars(mine.order_by(Run.id)))


def slices_of(session: Session, run_id: int) -> list[Slice]:
    return list(session.scalars(select(Slice).filter_by(run_id=run_id).order_by(Slice.id)))


_KEEP_PAGE_IDS = Statement(
    "INSERT INTO page_ids (run_id, batch_id, ids) VALUES (:run_id, :batch_id, CAST(:ids AS bigint[]))"
)


def keep_page_ids(session: Session, run_id: int, batch_id: int, ids: Sequence[int]) -> None:
    """Store which ids a page of a run listed."""
    _KEEP_PAGE_IDS.run(session, {"run_id": run_id, "batch_id": batch_id, "ids": bigints(ids)})


_ONE_MORE = ", ".join(f'"{name}" = "{name}" + :{name}' for name in COUNTERS)
_COUNT = Statement(
    f"UPDATE runs SET {_ONE_MORE} WHERE id = :run_id RETURNING state"  # noqa: S608
)
_NOTHING = dict.fromkeys(COUNTERS, 0)


def count(session: Session, run_id: int, **deltas: int) -> str:
    """Add to the counters of a run, which is locked until the transaction ends; return its state. Raises LookupError."""
    row = _COUNT.row(session, {**_NOTHING, **deltas, "run_id": run_id})
    if row is None:
        raise LookupError(f"run {run_id}")
    return str(row[0])


def note_finished(session: Session, run: Run) -> None:
    """Set the end of a run to the current time, because its last transaction took time too."""
    session.execute(update(Run).where(Run.id == run.id).values(finished_at=func.clock_timestamp()))


def close_run(session: Session, run: Run, state: str, reason: str | None = None) -> None:
    """End a run in this state."""
    run.state, run.reason = state, reason
    session.execute(update(Run).where(Run.id == run.id).values(finished_at=func.now(), state=state, reason=reason))
