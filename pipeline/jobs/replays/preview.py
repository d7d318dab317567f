"""Preview the replay of failures: from stored data, without tokens or changes.

The transforms are those of the stages, but Pipedrive is not called. So a preview is as current as the last reading.
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

Preview = Callable[..., dict[int, ReplayPreview]]
SAFE: Final = "Newer values are not overwritten: each record is compared again."


def preview_failures(
    session: Session, failed: Sequence[Failure], payloads: Mapping[int, bytes] | None = None
) -> dict[int, ReplayPreview]:
    """Return failure → its preview. `payloads`: failure → an edited payload to use instead of the received one."""
    previews: dict[int, ReplayPreview] = {}
    records: dict[tuple[int, str, Entity], list[Failure]] = defaultdict(list)
    newer = rows.with_newer_change(session, [each.id for each in failed if each.kind in OF_RECORDS])
    for each in failed:
        if each.state != "open":
            previews[each.id] = ReplayPreview(ReplayEffect.CLOSED, f"It is {each.state} already, by {each.closed_by}.")
        elif each.kind == "batch":
            previews[each.id] = _preview_batch(session, each)
        elif each.kind not in OF_RECORDS:
            previews[each.id] = _preview_task(session, each)
        elif each.id in newer:
            detail = "A newer change of the record is waiting or in flight."
            previews[each.id] = ReplayPreview(ReplayEffect.SUPERSEDED, detail)
        else:
            records[each.connector_key, each.direction, Entity(each.entity)].append(each)
    for (connector_key, direction, entity), some in records.items():
        preview: Preview = (
            partial(preview_outgoing, payloads=payloads) if direction == Direction.OUTGOING else preview_incoming
        )
        previews |= _each_by_itself(session, some, partial(preview, session, connector_key, entity))
    return previews


def _preview_batch(session: Session, failure: Failure) -> ReplayPreview:
    batch = session.get(Batch, failure.batch_id or 0)
    if batch is None or batch.state != "failed":
        return ReplayPreview(ReplayEffect.REFUSED, "Its batch is not waiting any more; fetch again.")
    run = session.get(Run, failure.run_id) if failure.run_id is not None else None
    if run is not None and failure.stage == "extract" and run.state == "stopped":
        in_flight = run_rows.running_run(session, run.connector_key, run.entity, run.kind)
        if in_flight is not None:
            detail = f"Run {in_flight.id} of the same kind is in flight: wait for it."
            return ReplayPreview(ReplayEffect.REFUSED, detail)
        detail = f"Run {run.id} continues where it stopped."
        return ReplayPreview(ReplayEffect.RUNS, detail, note=SAFE, tokens=LIST_TOKENS)
    if batch.direction == Direction.OUTGOING:
        return _preview_outgoing_batch(session, batch)
    records = "1 record continues" if batch.records == 1 else f"{batch.records or 'Its'} records continue"
    tokens = LIST_TOKENS if batch.stage == "extract" else 0.0
    return ReplayPreview(ReplayEffect.RUNS, f"{records} from stage {batch.stage}.", note=SAFE, tokens=tokens)


def _preview_outgoing_batch(session: Session, batch: Batch) -> ReplayPreview:
    """Return the preview: its changes are decided again; those with a newer report are not in it any more."""
    waiting = changes.count_in_batch(session, batch.id)
    if not waiting:
        detail = "Newer reports of all its records were sent since; the batch ends."
        return ReplayPreview(ReplayEffect.RUNS, detail)
    records = f"{waiting} records are" if waiting != 1 else "1 record is"
    detail = f"{records} decided again, from the newest report of each."
    return ReplayPreview(ReplayEffect.RUNS, detail, note=SAFE, tokens=WRITE_TOKENS * waiting)


def _preview_task(session: Session, failure: Failure) -> ReplayPreview:
    if failure.stage == missing_records.STAGE:
        if failure.run_id is None or not deletion_rows.has_page_ids(session, failure.run_id):
            detail = "The ids that its run listed are not kept any more; fetch again."
            return ReplayPreview(ReplayEffect.REFUSED, detail)
        return ReplayPreview(
            ReplayEffect.RUNS,
            "The missing records are read by their ids; those that Pipedrive does not return are marked as deleted.",
            note="Discard the failure instead if the records exist and the API user only has no access to them.",
            tokens=LIST_TOKENS,
        )
    if failure.stage == JOB_TASK and not jobs.is_revivable(session, int(failure.record_id or 0)):
        detail = "It was requested again, or too long ago; request it again in Hull."
        return ReplayPreview(ReplayEffect.REFUSED, detail)
    return ReplayPreview(ReplayEffect.RUNS, f"The control task {failure.stage} runs once more.")


def _each_by_itself(session: Session, failed: Sequence[Failure], preview: Preview) -> dict[int, ReplayPreview]:
    """Preview all together; if a record causes an error, one by one, so that the others still get a preview."""
    try:
        with session.begin_nested():
            return preview(failed)
    except Exception as error:
        if may_come_back(error):
            raise
        if len(failed) > 1:
            return {key: one for each in failed for key, one in _each_by_itself(session, [each], preview).items()}
        logger().error("failures.preview.error", failure_id=failed[0].id, error=type(error).__name__)
        detail = "The preview ends in an error; a replay shows the result."
        return {failed[0].id: ReplayPreview(ReplayEffect.UNKNOWN, detail)}
