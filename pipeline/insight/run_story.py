"""One run, and one batch, whole: what it did, where it stands, what became of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.orm import Session

from db import batch as batches
from db import connector as connectors
from db import failure as failures
from db import run as rows
from db.failure import Failure
from db.run import Run
from pipeline.domain.reasons import REASONS, describe
from pipeline.insight import fetches
from pipeline.insight.fetches import Fetch
from pipeline.sync.runs import spending

PAGE: Final = 50
WALKS: Final = {
    "ascending": "from the lowest id up",
    "descending": "from the highest id down",
    "catch_up": "by time: what changed meanwhile",
    "stored": "through what is stored",
}
STAGES: Final = ("extract", "transform", "load")


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """One cursor of the run, in words; `frontier` is the id it has come to."""

    words: str
    state: str
    frontier: int | None
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    id: int
    direction: str
    entity: str
    queue: str
    stage: str
    state: str
    attempts: int
    records: int
    created_at: datetime
    due_at: datetime
    task_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLine:
    """`record_id` is a Pipedrive id of incoming failures, a Hull id of outgoing ones; `field` the one that stayed behind alone."""

    id: int
    direction: str
    entity: str
    record_id: str | None
    stage: str
    reason: str
    meaning: str
    field: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStory:
    """more  where the next page of batches begins"""

    run: Fetch
    walks: tuple[Walk, ...]
    settings_author: str | None
    batch_states: dict[str, int]
    batches: tuple[BatchLine, ...]
    more: int | None
    failures: tuple[FailureLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStory:
    """extracted_bytes, transformed_bytes  of what is staged between two stages; None when nothing is"""

    line: BatchLine
    cause: str | None
    enqueued_at: datetime | None
    lease_until: datetime | None
    run_id: int | None
    walk: str | None
    read_back_id: int | None
    extracted_bytes: int | None
    transformed_bytes: int | None
    failures: tuple[FailureLine, ...]
    now: datetime

    @property
    def stages(self) -> tuple[tuple[str, str], ...]:
        """(stage, its state)."""
        at = STAGES.index(self.line.stage)
        return tuple(
            (name, "done" if n < at else self.line.state if n == at else "none") for n, name in enumerate(STAGES)
        )

    @property
    def is_abandoned(self) -> bool:
        """Whoever worked on it has not been heard of for longer than its lease."""
        return self.line.state == "running" and self.lease_until is not None and self.lease_until < self.now


def find_run(session: Session, connector_key: int, run_id: int) -> Run | None:
    """The connector's run of that id."""
    run = session.get(Run, run_id)
    return run if run is not None and run.connector_key == connector_key else None


def run_story(session: Session, run: Run, *, state: str | None = None, before: int | None = None) -> RunStory:
    """Everything of one run; of its batches the newest, or those before an id."""
    day = spending.standing(session, run.connector_key)
    ends = {each.run_id: each.ends_at for each in spending.runs_under_way(session, run.connector_key, day)}
    slices = rows.slices_of(session, run.id)
    found = batches.batches_of_run(session, run.id, state=state, before=before, limit=PAGE + 1)
    return RunStory(
        run=fetches.described(run, day.now, slices, ends.get(run.id)),
        walks=tuple(
            Walk(words=WALKS.get(part.walk, part.walk), state=part.state, frontier=part.frontier, pages=part.pages)
            for part in slices
        ),
        settings_author=connectors.author_of(session, run.connector_key, run.settings_version),
        batch_states=batches.count_of_run(session, run.id),
        batches=tuple(_line(row) for row in found[:PAGE]),
        more=found[PAGE - 1].id if len(found) > PAGE else None,
        failures=tuple(_failure(each) for each in failures.failures_of(session, run.connector_key, run_id=run.id)),
    )


def batch_story(session: Session, connector_key: int, batch_id: int) -> BatchStory | None:
    """Everything of one batch; None where this connector has none of that id."""
    row = batches.describe_batch(session, connector_key, batch_id)
    if row is None:
        return None
    part = session.get(rows.Slice, row.slice_id) if row.slice_id is not None else None
    return BatchStory(
        line=_line(row),
        cause=row.cause,
        enqueued_at=row.enqueued_at,
        lease_until=row.lease_until,
        run_id=row.run_id,
        walk=WALKS.get(part.walk, part.walk) if part else None,
        read_back_id=row.read_back_id,
        extracted_bytes=row.extracted_bytes,
        transformed_bytes=row.transformed_bytes,
        failures=tuple(_failure(each) for each in failures.failures_of(session, connector_key, batch_id=batch_id)),
        now=row.now,
    )


def _line(row: Row[Any]) -> BatchLine:
    return BatchLine(**{name: getattr(row, name) for name in BatchLine.__slots__})


def _failure(row: Failure) -> FailureLine:
    return FailureLine(
        id=row.id,
        direction=row.direction,
        entity=row.entity,
        record_id=row.record_id,
        stage=row.stage,
        reason=row.reason,
        meaning=describe(row.reason) if row.reason in REASONS else "",
        field=row.field if row.kind == "field" else None,
        updated_at=row.updated_at,
    )
