"""How any stage of any batch runs: claim, work, and one place where an error becomes an outcome.

A stage's own code raises the errors of `pipeline.errors` and knows nothing of attempts, backoff or Celery. Here they turn
into: put off and tried again, kept as a Failure, or a paused connector. What Celery and Flower see is a short text with the
reason code and the batch id; everything else stays in PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from db import batch as batches
from db import connector as connectors
from db import failure as failures
from db import slot as slots
from db.batch import ClaimedBatch, Wakeup
from db.outage import REMOTES
from db.session import after_commit, transaction
from db.slot import STALLED_S
from pipeline.error_kinds import classify
from pipeline.errors import ConfigurationError, LostLease, PipelineError, Retryable
from pipeline.outages import OutageWork, working
from pipeline.settings import settings
from pipeline.sync.attempts import MAX_ATTEMPTS, Pause, check_alone, lease_kept, patience
from pipeline.sync.event_recorder import record_failure, say, traceback_of
from pipeline.sync.runs import runs
from pipeline.tasks import canvases
from pipeline.telemetry import logger

WAKE_WITHIN_S = 60.0
"""A retry that is due sooner gets its own wake-up; the sweep finds a later one."""
Do = Callable[[ClaimedBatch], None]


class StageFailed(Exception):
    """The error for Celery and Flower: a reason code and a batch id. It ends the chain."""

    is_logged = True
    """Our own line, with connector and batch, was written where it was raised."""


def run_stage(stage: str, batch_id: int, task_id: str | None, do: Do) -> None:
    """Run one stage of one batch; ignore a batch in another stage, or of a paused connector.

    Raises: StageFailed, so that the chain stops and Flower shows the reason.
    """
    began = time.monotonic()
    with transaction() as session:
        batch = batches.claim(session, batch_id, stage, lease_s=settings().lease_s, task_id=task_id)
    if batch is None:
        return
    bind_contextvars(connector_id=batch.connector_id, batch_id=batch.id, run_id=batch.run_id, attempt=batch.attempts)
    take = partial(take_slot, batch) if batch.queue == "live" else None
    with working(batch.connector_key, f"batch {batch.id}", has_outage=batch.has_outage, take_slot=take) as work:
        try:
            if batch.attempts > MAX_ATTEMPTS:
                raise PipelineError("worker_lost", f"started {batch.attempts - 1} times and never ended")
            with lease_kept(lambda session, lease_s: batches.extend_lease(session, batch, lease_s), began=began):
                do(batch)
        except Exception as error:  # noqa: BLE001 - this is where errors become outcomes
            raise StageFailed(f"{_end_of(batch, error, work)}: batch {batch_id}, {stage}") from None
        finally:
            if work.slot and time.monotonic() - began > STALLED_S:
                free_slot(batch, work.slot)


def _end_of(batch: ClaimedBatch, error: Exception, work: OutageWork) -> str:
    """The reason code under which the stage ends, once that is written down."""
    try:
        return _settle(batch, error, work)
    except LostLease as lost:
        logger().warning("batch.lease_lost", stage=batch.stage)
        return lost.reason
    except Exception as worse:  # noqa: BLE001 - the lease runs out, and the sweeper brings the batch back
        cause = classify(worse)
        logger().error("batch.not_settled", stage=batch.stage, reason=cause.reason, detail=cause.detail)
        return cause.reason


def _settle(batch: ClaimedBatch, error: Exception, work: OutageWork) -> str:
    """Decide what becomes of the batch, and write it down."""
    cause = classify(error)
    check_alone(cause, work)
    wait = patience(cause, work, batch.attempts) if isinstance(cause, Retryable) else None
    with transaction() as session:
        batches.hold(session, batch)
        if isinstance(cause, ConfigurationError):
            batches.put_off(session, batch, 0, counted=False)
            pause_connector(session, batch.connector_key, batch.direction, cause)
        elif wait is not None and (batch.attempts < MAX_ATTEMPTS or not wait.counted):
            _put_off(session, batch, cause, wait, before_any_call=cause.reason == "slots_taken" and not work.slot)
        else:
            _give_up(session, batch, cause, error)
    return cause.reason


def _put_off(
    session: Session, batch: ClaimedBatch, cause: PipelineError, wait: Pause, *, before_any_call: bool
) -> None:
    wait_s = wait.wait_s
    terms = {"counted": wait.counted, "before_any_call": before_any_call}
    batches.put_off(session, batch, wait_s, waits_for=wait.waits_for, **terms)
    log = logger().debug if cause.reason == "slots_taken" else logger().warning  # many wait for the same one
    log(f"{batch.direction}.job.retry", reason=cause.reason, detail=cause.detail, wait_s=round(wait_s, 1))
    if wait_s <= WAKE_WITHIN_S and wait.waits_for not in REMOTES:  # the end of the outage wakes the waiting work
        wakeup = Wakeup(
            batch_id=batch.id,
            direction=batch.direction,
            queue=batch.queue,
            stage=batch.stage,
            read_back_id=batch.read_back_id,
        )
        after_commit(session, lambda: canvases.wake([wakeup], countdown_s=wait_s))


def pause_connector(session: Session, connector_key: int, direction: str, cause: ConfigurationError) -> None:
    """Nothing of this connector can succeed before a person acts: its work waits, whole."""
    connectors.pause(session, connector_key, cause.reason)
    word = "Unauthorized" if cause.reason == "unauthorized" else cause.reason
    say(f"{direction}.job.error", cause.reason, level="error", error=word)


def _give_up(session: Session, batch: ClaimedBatch, cause: PipelineError, error: Exception) -> None:
    batches.fail(session, batch)
    failure = failures.NewFailure(
        connector_key=batch.connector_key,
        kind="batch",
        subject=failures.batch_subject(batch.id),
        direction=batch.direction,
        entity=batch.entity,
        batch_id=batch.id,
        run_id=batch.run_id,
        stage=batch.stage,
        reason=cause.reason,
        detail=cause.detail,
        field=cause.field,
        traceback=traceback_of(cause, error),
        attempts=batch.attempts,
        task_id=_task_id(session, batch),
        settings_version=batch.marks.settings_version,
    )
    record_failure(session, f"{batch.direction}.job.error", failure, stage=batch.stage, detail=cause.detail)
    if batch.run_id is not None:
        runs.after_failed_stage(session, batch, cause.reason)


def _task_id(session: Session, batch: ClaimedBatch) -> str | None:
    return session.get_one(batches.Batch, batch.id).task_id


TRIES: Final = 10
POLL_S: Final = 0.1
"""A slot that was taken a moment ago is waited for in place, for a second: putting the batch off takes longer."""
PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 15.0
"""Those that wait try again one after the other, about one a second: each try takes a process for a moment."""


def take_slot(batch: ClaimedBatch, system: str) -> None:
    """Take a slot of the remote system for this stage. While PostgreSQL does not answer, the call is made without one.

    Raises: Retryable("slots_taken"), LostLease.
    """
    for _ in range(TRIES):
        try:
            with transaction() as session:
                found = slots.take(session, batch, system, at_once=settings().live_at_once, lease_s=settings().lease_s)
        except SQLAlchemyError:
            return
        if found.is_ours:
            return
        if found.is_stalled:
            break
        time.sleep(POLL_S)
    raise Retryable("slots_taken", REMOTES[system], retry_after_s=min(LONGEST_PAUSE_S, PAUSE_S * (1 + found.waiting)))


def free_slot(batch: ClaimedBatch, system: str) -> None:
    """A stage that held its slot for long has ended: notify the first batch that waits for one, or leave it to its pause."""
    try:
        with transaction() as session:
            woken = slots.next_in_turn(session, batch.connector_key, system)
            after_commit(session, lambda: canvases.wake(woken))
    except SQLAlchemyError:
        return
