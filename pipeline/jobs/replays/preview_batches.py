"""Preview a failed batch or control task. Its records are only counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.orm import Session

from db import change as changes
from db import job as jobs
from db import missing as missing_rows
from db import replay as rows
from db import run as run_rows
from db.batch import Batch
from db.failure import OF_RECORDS, Failure
from db.run import Run
from pipeline.domain.kinds import Direction
from pipeline.jobs.replays.verdict import Kind, Verdict
from pipeline.sync.job_queue import TASK as JOB_TASK
from pipeline.sync.runs import missing_records

SAFE: Final = "Nothing older overwrites what is newer: each record is compared again."
READ_TOKENS: Final = 10.0
WRITE_TOKENS: Final = 5.0


def foresee_batch(session: Session, failure: Failure) -> Verdict:
    batch = session.get(Batch, failure.batch_id or 0)
    if batch is None or batch.state != "failed":
        return Verdict(kind=Kind.REFUSED, detail="Its batch is not waiting any more; fetch again.")
    run = session.get(Run, failure.run_id) if failure.run_id is not None else None
    if run is not None and failure.stage == "extract" and run.state == "stopped":
        under_way = run_rows.running_run(session, run.connector_key, run.entity, run.kind)
        if under_way is not None:
            return Verdict(kind=Kind.REFUSED, detail=f"Run {under_way.id} of the same kind is in flight: wait for it.")
        return Verdict(
            kind=Kind.RUNS, detail=f"Run {run.id} continues where it stopped.", note=SAFE, tokens=READ_TOKENS
        )
    if batch.direction == Direction.OUTGOING:
        return _decided_again(session, batch)
    records = f"{batch.records} records go" if batch.records != 1 else "1 record goes"
    detail = f"{records} on from stage {batch.stage}." if batch.records else f"It continues from stage {batch.stage}."
    tokens = READ_TOKENS if batch.stage == "extract" else 0.0
    return Verdict(kind=Kind.RUNS, detail=detail, note=SAFE, tokens=tokens)


def _decided_again(session: Session, batch: Batch) -> Verdict:
    """What an outgoing batch comes to: its changes are decided again; those with a newer report have left it."""
    waiting = changes.count_in_batch(session, batch.id)
    if not waiting:
        detail = "Newer reports of all its records were sent since; the batch ends."
        return Verdict(kind=Kind.RUNS, detail=detail)
    records = f"{waiting} records are" if waiting != 1 else "1 record is"
    detail = f"{records} decided again, from the newest report of each."
    return Verdict(kind=Kind.RUNS, detail=detail, note=SAFE, tokens=WRITE_TOKENS * waiting)


def foresee_control(session: Session, failure: Failure) -> Verdict:
    if failure.stage == missing_records.STAGE:
        if failure.run_id is None or not missing_rows.has_page_ids(session, failure.run_id):
            return Verdict(kind=Kind.REFUSED, detail="What its run listed is not kept any more; fetch again.")
        return Verdict(
            kind=Kind.RUNS,
            detail="The missing records are looked for by their ids, and those that are not there are marked as deleted.",
            note="Discard it instead if they were only out of sight.",
            tokens=READ_TOKENS,
        )
    if failure.stage == JOB_TASK and not jobs.is_revivable(session, int(failure.record_id or 0)):
        return Verdict(kind=Kind.REFUSED, detail="It was asked for again, or too long ago; ask for it in Hull again.")
    return Verdict(kind=Kind.RUNS, detail=f"The control task {failure.stage} runs once more.")


def being_sent(session: Session, mine: Sequence[Failure]) -> Mapping[int, Verdict]:
    """Failure → that something newer of its record is on its way already."""
    waiting = rows.with_newer_change(session, [each.id for each in mine if each.kind in OF_RECORDS])
    detail = "A newer change of the record waits or is on its way already."
    return {failure_id: Verdict(kind=Kind.SUPERSEDED, detail=detail) for failure_id in waiting}
