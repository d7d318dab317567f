"""Runs as people look at them: how far one is, how fast, when it will be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from db import run as rows
from db.run import COUNTERS, Run, Slice
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS, describe
from pipeline.sync.runs import spending
from pipeline.sync.runs.spending import BudgetStatus

WORDS = {"full": "Full fetch", "incremental": "Fetch of changes", "backfill": "Backfill"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A run, with its counters.

    expected     records it will have read in the end, as far as the ids between its walks tell; None where nothing tells
    ends_at      when it will be done, at its pace and within the day's tokens
    reason_text  what its reason means and what to do
    """

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
    expected: int | None
    ends_at: datetime | None

    @property
    def rate(self) -> float:
        """Records a second, on average."""
        return self.counts["read"] / self.took_s if self.took_s > 0 else 0.0

    @property
    def share(self) -> float | None:
        """How much of it is done, from 0 to 1."""
        if self.state != "running":
            return 1.0 if self.state == "done" else None
        if self.phase == "catch_up" and self.kind == "full":
            return 1.0
        return self.counts["read"] / self.expected if self.expected else None


def described(run: Run, now: datetime, slices: Sequence[Slice] = (), ends_at: datetime | None = None) -> Fetch:
    """A row as people see it. `slices` and `ends_at` matter while it is running."""
    title = f"{WORDS.get(run.kind, run.kind.capitalize())} of {Entity(run.entity).plural.capitalize()}"
    return Fetch(
        id=run.id,
        entity=run.entity,
        kind=run.kind,
        title=title,
        state=run.state,
        phase=run.phase,
        cause=run.cause,
        changed_only=run.changed_only,
        since=run.since,
        settings_version=run.settings_version,
        reason=run.reason,
        reason_text=describe(run.reason) if run.reason in REASONS else "",
        started_at=run.started_at,
        finished_at=run.finished_at,
        took_s=max(0.0, ((run.finished_at or now) - run.started_at).total_seconds()),
        counts={name: getattr(run, name) for name in COUNTERS},
        expected=expected_records(run, slices),
        ends_at=ends_at,
    )


def expected_records(run: Run, slices: Sequence[Slice]) -> int | None:
    """Records read and those that may lie between the two walks: a little too many where ids have gaps."""
    frontiers = {part.walk: part.frontier for part in slices}
    low, high = frontiers.get("ascending"), frontiers.get("descending")
    if run.state != "running" or not run.read or low is None or high is None:
        return None
    return int(run.read + max(0, high - low))


def running(session: Session, connector_key: int, day: BudgetStatus) -> tuple[Fetch, ...]:
    """Every run that is under way, the oldest first."""
    ends = {each.run_id: each.ends_at for each in spending.runs_under_way(session, connector_key, day)}
    found = rows.running_runs(session, connector_key)
    return tuple(described(run, day.now, rows.slices_of(session, run.id), ends.get(run.id)) for run in found)


def latest(session: Session, connector_key: int, now: datetime, limit: int = 10) -> tuple[Fetch, ...]:
    """The newest runs, as a list shows them."""
    return tuple(described(run, now) for run in rows.latest_runs(session, connector_key, limit))
