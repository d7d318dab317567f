"""Fields of incoming records that stayed behind while their record was carried over: a failure each, a page's in one statement."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from sqlalchemy.orm import Session

from db import change as changes
from db import failure as failures
from db.batch import ClaimedBatch
from pipeline.domain.incoming import UNIDENTIFYING
from pipeline.domain.kinds import Direction, Entity
from pipeline.load.incoming import PagePlan
from pipeline.sync import definitions
from pipeline.sync.staging import Transformed


def outdated(session: Session, batch: ClaimedBatch, staged: Transformed) -> list[int]:
    """Records of which a field stayed behind for want of definitions that somebody else has read since."""
    unknown = [
        record["pipedrive_id"]
        for record in staged.records
        if record["problems"] and any(problem["reason"] in definitions.OUTDATED for problem in record["problems"])
    ]
    entity = Entity(batch.entity)
    if unknown and definitions.moved_on(session, batch.connector_key, entity, staged.fields_read_at):
        return unknown
    return []


def keep(
    session: Session,
    batch: ClaimedBatch,
    plan: PagePlan,
    staged: Transformed,
    left_out: Container[int],
    outdated: Iterable[int],
) -> None:
    """Keep every field that stayed behind as a failure of its own, and close those that came through by now.

    left_out  records of which this page holds an older state
    outdated  records that newer definitions may carry over whole: they are read again
    """
    mine = [each for each in staged.records if each["pipedrive_id"] not in left_out]
    rejected = [
        (str(record["pipedrive_id"]), problem)
        for record in mine
        for problem in record["problems"]
        if problem["reason"] not in UNIDENTIFYING
    ]
    kept = [_rejected(batch, record_id, problem, staged.settings_version) for record_id, problem in rejected]
    subjects = {(each.subject, each.reason) for each in kept}
    counted = failures.told_in_run(session, batch.connector_key, batch.run_id, [subject for subject, _ in subjects])
    failures.keep_failures(session, kept)
    failures.close_fields(
        session,
        batch.connector_key,
        Direction.INCOMING,
        batch.entity,
        [str(record["pipedrive_id"]) for record in mine],
        refused=[(record_id, problem["field"]) for record_id, problem in rejected],
    )
    plan.counters["rejected_fields"] += len({subject for subject, _ in subjects - counted})
    again = [str(pipedrive_id) for pipedrive_id in outdated]
    changes.fold_all(session, batch.connector_key, Direction.INCOMING, batch.entity, again, cause=definitions.CAUSE)


def _rejected(
    batch: ClaimedBatch, record_id: str, problem: Mapping[str, str], settings_version: int
) -> failures.NewFailure:
    return failures.NewFailure(
        connector_key=batch.connector_key,
        kind="field",
        subject=failures.field_subject(Direction.INCOMING, batch.entity, record_id, problem["field"]),
        direction=Direction.INCOMING,
        entity=batch.entity,
        record_id=record_id,
        batch_id=batch.id,
        run_id=batch.run_id,
        stage="transform",
        reason=problem["reason"],
        detail=problem["detail"],
        field=problem["field"],
        settings_version=settings_version,
    )
