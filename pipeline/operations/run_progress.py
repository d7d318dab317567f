"""The progress of runs: how far each is, how fast, and when it will end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import run as rows
from db.run import COUNTERS, Run, Slice
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS, describe
from pipeline.operations.models import shape_of
from pipeline.sync.runs import spending
from pipeline.sync.runs.spending import BudgetStatus

WORDS = {"full": "Full fetch", "incremental": "Fetch of changes", "backfill": "Backfill"}


class FetchShape(BaseModel):
    """A run with its progress. `share` is the completed share, from 0 to 1; `rate` is records a second."""

    id: int
    entity: str
    kind: str
    title: str
    state: str
    phase: str
    cause: str
    changed_only: bool
    since: datetime | None
    settings_version: int
    reason: str | None
    reason_text: str
    started_at: datetime
    finished_at: datetime | None
    took_s: float
    counts: dict[str, int]
    rate: float
    expected: int | None
    share: float | None
    ends_at: datetime | None


def describe_run(run: Run, now: datetime, slices: Sequence[Slice] = (), ends_at: datetime | None = None) -> FetchShape:
    """Return a run with its progress. `slices` and `ends_at` are needed only while it is running."""
    took_s = max(0.0, ((run.finished_at or now) - run.started_at).total_seconds())
    expected = expected_records(run, slices)
    return shape_of(
        FetchShape,
        run,
        title=f"{WORDS.get(run.kind, run.kind.capitalize())} of {Entity(run.entity).plural.capitalize()}",
        reason_text=describe(run.reason) if run.reason in REASONS else "",
        took_s=took_s,
        counts={name: getattr(run, name) for name in COUNTERS},
        rate=run.read / took_s if took_s > 0 else 0.0,
        expected=expected,
        share=_share(run, expected),
        ends_at=ends_at,
    )


def _share(run: Run, expected: int | None) -> float | None:
    """Return the completed share, from 0 to 1; None if it is not known."""
    if run.state != "running":
        return 1.0 if run.state == "done" else None
    if run.phase == "catch_up" and run.kind == "full":
        return 1.0
    return run.read / expected if expected else None


def expected_records(run: Run, slices: Sequence[Slice]) -> int | None:
    """Return the number of records read and of ids between the two walks; too high if ids have gaps."""
    frontiers = {part.walk: part.frontier for part in slices}
    low, high = frontiers.get("ascending"), frontiers.get("descending")
    if run.state != "running" or not run.read or low is None or high is None:
        return None
    return int(run.read + max(0, high - low))


def runs_in_flight(session: Session, connector_key: int, day: BudgetStatus) -> list[FetchShape]:
    """Return every run in flight, the oldest first."""
    ends = {each.run_id: each.ends_at for each in spending.forecast_runs(session, connector_key, day)}
    found = rows.runs_in_state(session, connector_key, "running")
    return [describe_run(run, day.now, rows.slices_of(session, run.id), ends.get(run.id)) for run in found]


def latest_runs(session: Session, connector_key: int, now: datetime, limit: int = 10) -> list[FetchShape]:
    """Return the newest runs, without their expected end."""
    return [describe_run(run, now) for run in rows.find_runs(session, connector_key, limit=limit)]
