"""The runs by which records of before get what new settings map."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import id_mapping
from db import run as run_rows
from db.run import Run
from pipeline.domain.kinds import Entity
from pipeline.sync.runs import backfill, spending


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowingRun:
    """A run that a version of the settings has begun; `tokens` of Pipedrive's day."""

    run_id: int
    entity: str
    kind: str
    state: str
    records: int
    tokens: int


def runs_following(session: Session, connector_key: int, version: int) -> list[FollowingRun]:
    """Return the runs that a version has begun."""
    counts = id_mapping.mapping_counts(session, connector_key)
    return [
        FollowingRun(
            run_id=run.id,
            entity=run.entity,
            kind=run.kind,
            state=run.state,
            records=sum(each.records for each in counts if (each.entity, each.state) == (run.entity, "full")),
            tokens=_tokens(session, run),
        )
        for run in run_rows.runs_of_settings(session, connector_key, version, backfill.CAUSE)
    ]


def _tokens(session: Session, run: Run) -> int:
    cost = spending.cost_of(session, run.connector_key, Entity(run.entity)) if run.kind == "full" else None
    return cost.tokens if cost else 0
