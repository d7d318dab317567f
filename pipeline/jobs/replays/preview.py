"""Preview the replay of failures: from stored data, without tokens or changes.

The transforms are those of the stages, but Pipedrive is not called. So a preview is as current as the last reading, and
says so if there was none. An incoming record is always read again when it is replayed, whatever the preview.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from sqlalchemy.orm import Session

from db import change as changes
from db import deletion as deletion_rows
from db import job as jobs
from db import replay as rows
from db import run as run_rows
from db.batch import Batch
from db.failure import OF_RECORDS, Failure
from db.run import Run
from pipeline.domain.budget import LIST_TOKENS, WRITE_TOKENS
from pipeline.domain.kinds import Direction, Entity
from pipeline.error_kinds import may_come_back
from pipeline.jobs.replays.preview_records import ReplayEffect, ReplayPreview, preview_incoming, preview_outgoing
from pipeline.sync.job_queue import TASK as JOB_TASK
from pipeline.sync.runs import missing_records
from pipeline.telemetry import logger

SAFE: Final = "Nothing older overwrites what is newer: each record is compared again."


Look = Callable[[Sequence[Failure]], dict[int, ReplayPreview]]


def preview_failures(
    session: Session, mine: Sequence[Failure], payloads: Mapping[int, bytes] | None = None
) -> dict[int, ReplayPreview]:
    """Return failure → its preview. `payloads`: failure → an edited payload to use instead of the received one."""
    previews: dict[int, ReplayPreview] = {
        each.id: ReplayPreview(kind=ReplayEffect.CLOSED, detail=f"It is {each.state} already, by {each.closed_by}.")
        for each in mine
        if each.state != "open"
    }
    records: dict[tuple[int, str, Entity], list[Failure]] = defaultdict(list)
    for each in mine:
        if each.id in previews:
            continue
        if each.kind in OF_RECORDS:
            records[each.connector_key, each.direction, Entity(each.entity)].append(each)
        else:
            previews[each.id] = (_preview_batch if each.kind == "batch" else _preview_task)(session, each)
    previews |= _superseded(session, [each for each in mine if each.id not in previews])
    for (connector_key, direction, entity), some in records.items():
        asked = [each for each in some if each.id not in previews]
        if direction == Direction.OUTGOING:
            look: Look = partial(preview_outgoing, session, connector_key, entity, payloads=payloads)
        else:
            look = partial(preview_incoming, session, connector_key, entity)
        previews |= _each_by_itself(session, asked, look)
    return previews


def _preview_batch(session: Session, failure: Failure) -> ReplayPreview:
    batch = session.get(Batch, failure.batch_id or 0)
    if batch is None or batch.state != "failed":
        return ReplayPreview(kind=ReplayEffect.REFUSED, detail="Its batch is not waiting any more; fetch again.")
    run = session.get(Run, failure.run_id) if failure.run_id is not None else None
    if run is not None and failure.stage == "extract" and run.state == "stopped":
        under_way = run_rows.running_run(session, run.connector_key, run.entity, run.kind)
        if under_way is not None:
            return ReplayPreview(
                kind=ReplayEffect.REFUSED, detail=f"Run {under_way.id} of the same kind is in flight: wait for it."
            )
        return ReplayPreview(
            kind=ReplayEffect.RUNS, detail=f"Run {run.id} continues where it stopped.", note=SAFE, tokens=LIST_TOKENS
        )
    if batch.direction == Direction.OUTGOING:
        return _decided_again(session, batch)
    records = f"{batch.records} records go" if batch.records != 1 else "1 record goes"
    detail = f"{records} on from stage {batch.stage}." if batch.records else f"It continues from stage {batch.stage}."
    tokens = LIST_TOKENS if batch.stage == "extract" else 0.0
    return ReplayPreview(kind=ReplayEffect.RUNS, detail=detail, note=SAFE, tokens=tokens)


def _decided_again(session: Session, batch: Batch) -> ReplayPreview:
    """Return the preview of an outgoing batch: its changes are decided again; those with a newer report have left it."""
    waiting = changes.count_in_batch(session, batch.id)
    if not waiting:
        detail = "Newer reports of all its records were sent since; the batch ends."
        return ReplayPreview(kind=ReplayEffect.RUNS, detail=detail)
    records = f"{waiting} records are" if waiting != 1 else "1 record is"
    detail = f"{records} decided again, from the newest report of each."
    return ReplayPreview(kind=ReplayEffect.RUNS, detail=detail, note=SAFE, tokens=WRITE_TOKENS * waiting)


def _preview_task(session: Session, failure: Failure) -> ReplayPreview:
    if failure.stage == missing_records.STAGE:
        if failure.run_id is None or not deletion_rows.has_page_ids(session, failure.run_id):
            return ReplayPreview(
                kind=ReplayEffect.REFUSED, detail="What its run listed is not kept any more; fetch again."
            )
        return ReplayPreview(
            kind=ReplayEffect.RUNS,
            detail="The missing records are looked for by their ids, and those that are not there are marked as deleted.",
            note="Discard it instead if they were only out of sight.",
            tokens=LIST_TOKENS,
        )
    if failure.stage == JOB_TASK and not jobs.is_revivable(session, int(failure.record_id or 0)):
        return ReplayPreview(
            kind=ReplayEffect.REFUSED, detail="It was asked for again, or too long ago; ask for it in Hull again."
        )
    return ReplayPreview(kind=ReplayEffect.RUNS, detail=f"The control task {failure.stage} runs once more.")


def _superseded(session: Session, mine: Sequence[Failure]) -> dict[int, ReplayPreview]:
    """Return failure → preview, for records with a newer change that waits or is in flight."""
    waiting = rows.with_newer_change(session, [each.id for each in mine if each.kind in OF_RECORDS])
    detail = "A newer change of the record waits or is on its way already."
    return {failure_id: ReplayPreview(kind=ReplayEffect.SUPERSEDED, detail=detail) for failure_id in waiting}


def _each_by_itself(session: Session, asked: Sequence[Failure], look: Look) -> dict[int, ReplayPreview]:
    """Preview all together; if a record causes an error, one by one, so that the others still get a preview."""
    try:
        with session.begin_nested():
            return look(asked)
    except Exception as error:
        if may_come_back(error):
            raise
        if len(asked) > 1:
            return {id_: preview for each in asked for id_, preview in _each_by_itself(session, [each], look).items()}
        logger().error("failures.verdict.error", failure_id=asked[0].id, error=type(error).__name__)
        return {
            asked[0].id: ReplayPreview(
                kind=ReplayEffect.UNKNOWN, detail="Looking at it ends in an error; a replay tells what it comes to."
            )
        }
