"""How an errand runs: claim, carry out, and one place where an error becomes an outcome; `pipeline.sync.stage` is its model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from db import errand as errands
from db import failure as failures
from db import sync_event as events
from db.errand import ClaimedErrand
from db.session import transaction
from pipeline.domain.kinds import Direction
from pipeline.domain.reasons import describe
from pipeline.error_kinds import classify
from pipeline.errors import ConfigurationError, LostLease, PipelineError, Retryable
from pipeline.jobs import connector_creation, exports, log_exports, sends, settings_sync, status_report
from pipeline.jobs.plans import compute
from pipeline.jobs.replays import advance
from pipeline.jobs.verify import sample
from pipeline.outages import Work, working
from pipeline.settings import settings
from pipeline.sync.job_queue import ADOPTION, EXPORT, LOG, PLAN, REPLAY, SEND, SETTINGS, STATUS, TASK, VERIFY
from pipeline.sync.lease import lease_kept
from pipeline.sync.retries import MAX_ATTEMPTS, check_alone, patience
from pipeline.sync.stage import StageFailed, pause_connector
from pipeline.telemetry import logger

HANDLERS: Final[Mapping[str, Callable[[ClaimedErrand], None]]] = {
    SETTINGS: settings_sync.take_over,
    EXPORT: exports.carry_out,
    ADOPTION: connector_creation.adopt,
    STATUS: status_report.write,
    SEND: sends.carry_out,
    VERIFY: sample.carry_out,
    PLAN: compute.carry_out,
    REPLAY: advance.advance,
    LOG: log_exports.carry_out,
}
EVENTS: Final = {
    SETTINGS: "connector.settings.error",
    EXPORT: "outgoing.job.error",
    ADOPTION: "connector.adoption.error",
    STATUS: "connector.status.error",
    SEND: "outgoing.job.error",
    VERIFY: "connector.verify.error",
    PLAN: "connector.plan.error",
    REPLAY: "connector.replay.error",
    LOG: "connector.log_export.error",
}


def run_errand(errand_id: int, task_id: str | None) -> None:
    """Carry out one errand; one that is done, or at work elsewhere, is left alone.

    Raises: StageFailed, so that Flower shows why.
    """
    began = time.monotonic()
    with transaction() as session:
        errand = errands.claim(session, errand_id, lease_s=settings().lease_s)
    if errand is None:
        return
    bind_contextvars(connector_id=errand.connector_id, errand_id=errand.id, attempt=errand.attempts)
    with working(errand.connector_key or 0, f"{errand.kind} {errand.id}", has_outage=errand.has_outage) as work:
        try:
            if errand.attempts > MAX_ATTEMPTS:
                raise PipelineError("worker_lost", f"started {errand.attempts - 1} times and never ended")
            with lease_kept(lambda session, lease_s: errands.extend_lease(session, errand, lease_s), began=began):
                HANDLERS[errand.kind](errand)
        except LostLease:
            logger().warning("errand.lease_lost", kind=errand.kind)
        except Exception as error:  # noqa: BLE001 - this is where errors become outcomes
            raise StageFailed(f"{_settle(errand, error, task_id, work)}: errand {errand_id}, {errand.kind}") from None


def _settle(errand: ClaimedErrand, error: Exception, task_id: str | None, work: Work) -> str:
    """Decide what becomes of the errand, and write it down; returns the reason code."""
    cause = classify(error)
    try:
        check_alone(cause, work)
        wait = patience(cause, work, errand.attempts) if isinstance(cause, Retryable) else None
        with transaction() as session:
            if wait is not None and (errand.attempts < MAX_ATTEMPTS or not wait.counted):
                errands.put_off(session, errand, wait.wait_s, counted=wait.counted, waits_for=wait.waits_for)
                logger().warning("errand.retry", kind=errand.kind, reason=cause.reason, wait_s=round(wait.wait_s, 1))
            else:
                _give_up(session, errand, cause, error, task_id)
    except LostLease as lost:
        return lost.reason
    except Exception as worse:  # noqa: BLE001 - the lease runs out, and the sweep finds the errand again
        logger().error("errand.not_settled", kind=errand.kind, reason=classify(worse).reason)
    return cause.reason


def _give_up(
    session: Session, errand: ClaimedErrand, cause: PipelineError, error: Exception, task_id: str | None
) -> None:
    """Kept as a Failure whose replay begins anew; of a connector that never came to be there is nothing to keep."""
    name = EVENTS[errand.kind]
    logger().error(name, reason=cause.reason, detail=cause.detail, advice=describe(cause.reason))
    if errand.connector_key is None:
        errands.end(session, errand, "refused", cause.reason)
        return
    if errand.kind == REPLAY:  # before its errand is locked: whoever resumes it comes that way too
        advance.stop(session, int(errand.key), cause)
    errands.end(session, errand, "failed", cause.reason)
    if errand.kind == PLAN:
        compute.stop(session, int(errand.key), cause)
    if errand.kind == LOG:
        log_exports.stop(session, int(errand.key))
    failures.keep_failures(session, [_failure(errand, errand.connector_key, cause, error, task_id)])
    event = events.NewEvent(
        connector_key=errand.connector_key,
        event=name,
        entity="",
        cause=errand.kind,
        reason=cause.reason,
        detail=cause.detail,
    )
    events.log_events(session, [event])
    if isinstance(cause, ConfigurationError):
        pause_connector(session, errand.connector_key, Direction.OUTGOING, cause)


def _failure(
    errand: ClaimedErrand, connector_key: int, cause: PipelineError, error: Exception, task_id: str | None
) -> failures.NewFailure:
    ours = cause.reason == "internal_error"
    return failures.NewFailure(
        connector_key=connector_key,
        kind="control",
        subject=subject_of(errand),
        direction=Direction.OUTGOING,
        entity="",
        record_id=str(errand.id),
        stage=TASK,
        reason=cause.reason,
        detail=cause.detail,
        traceback="".join(traceback.format_exception(error)) if ours else None,
        attempts=errand.attempts,
        task_id=task_id,
    )


def subject_of(errand: ClaimedErrand) -> str:
    """Settings and status fail as one thing, however often they were asked for; each file is one of its own."""
    return failures.control_subject(errand.kind if errand.kind in (SETTINGS, STATUS) else f"{errand.kind}:{errand.id}")
