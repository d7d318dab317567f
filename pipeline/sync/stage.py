"""Run any stage of any batch: claim it, do the work, and turn an error into an outcome.

A stage's own code raises the errors of `pipeline.errors` and knows nothing of attempts, backoff or Celery. Here an error becomes
a later attempt, a Failure, or a paused connector. Celery and Flower get a short text with the reason code and the batch id.

Jobs use `lease_kept` and `patience` too. Waiting for a slot, for our own services or for the end of an outage is not an attempt.
Only an error while other work gets answers counts, up to a limit. If no other work calls the remote system, a cheap call checks
it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from structlog.contextvars import bind_contextvars

from db import batch as batches
from db import connector as connectors
from db import failure as failures
from db import slot as slots
from db.batch import ClaimedBatch, wakeup_of
from db.outage import REMOTES, alone_of
from db.session import after_commit, transaction
from db.slot import STALLED_S
from pipeline import wiring
from pipeline.domain.kinds import Entity
from pipeline.error_kinds import classify
from pipeline.errors import ConfigurationError, LostLease, PipelineError, Retryable
from pipeline.fencing import Lease, holding
from pipeline.outages import OutageWork, working
from pipeline.settings import settings
from pipeline.sync.event_recorder import batch_failure, log_line, record_failure, traceback_of
from pipeline.sync.runs import runs
from pipeline.tasks import canvases
from pipeline.telemetry import logger
from pipeline.wiring import Wired

AGAIN_SHARE = 1 / 30
"""Share of a lease after which a failed extension is tried again."""
MAX_ATTEMPTS = 8
ASK_AGAIN_S: Final = 120.0
"""Longest wait of other work during an outage; the answer to a probe wakes it."""
HERE_PAUSE_S: Final = (5.0, 15.0)
"""Pause between two attempts while PostgreSQL, Redis or the broker is unavailable, random each time."""
OUR_SYSTEMS: Final = {
    "database_unavailable": "database",
    "redis_unavailable": "redis",
    "broker_unavailable": "broker",
    "lease_uncertain": "database",
}
"""Reason → the system of ours that the work waits for."""
OUT: Final = frozenset({"remote_unavailable", "remote_unreachable", "html_answer"})
"""Reasons that may mean an outage of the whole remote system, not only of this call."""
INSTALLATION: Final = frozenset({"app_refused"})
"""Reasons in the configuration of this installation: every connector waits until it is corrected."""
TURNS: Final = {
    "rate_limited": "rate limit",
    "daily_budget_spent": "daily budget",
    "time_limit_reached": "turn",
    "slots_taken": "turn",
}
"""Reason → what the work waits for."""
CHECKS: Final[Mapping[str, Callable[[Wired], object]]] = {
    "pipedrive": lambda wired: wired.pipedrive.me(),
    "pipedrive search": lambda wired: wired.pipedrive.search(Entity.PERSON, "nobody@example.com", limit=1),
    "hull": lambda wired: wired.hull.app(),
}
"""Remote system → a cheap call that shows whether it answers. The firehose has none."""
BACKOFF_BASE_S = 1.0
BACKOFF_CAP_S = 300.0
WAKE_WITHIN_S = 60.0
"""A retry that is due sooner gets its own wake-up; the sweep finds a later one."""
Do = Callable[[ClaimedBatch], None]
TRIES: Final = 10
POLL_S: Final = 0.1
"""Wait a second for a slot in place, because it takes longer to put the batch off."""
PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 15.0
"""Waiting batches try again about one a second, because each try occupies a process."""


class StageFailed(Exception):
    """The error for Celery and Flower: a reason code and a batch id. It ends the chain."""

    is_logged = True
    """A log line with connector and batch was written before it was raised."""


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
            raise StageFailed(f"{_handle_or_log(batch, error, work)}: batch {batch_id}, {stage}") from None
        finally:
            if work.slot and time.monotonic() - began > STALLED_S:
                free_slot(batch, work.slot)


def _handle_or_log(batch: ClaimedBatch, error: Exception, work: OutageWork) -> str:
    """Store the outcome of an error; return its reason code."""
    try:
        return _handle_error(batch, error, work)
    except LostLease as lost:
        logger().warning("batch.lease_lost", stage=batch.stage)
        return lost.reason
    except Exception as worse:  # noqa: BLE001 - the lease runs out, and the sweep recovers the batch
        cause = classify(worse)
        logger().error("batch.not_settled", stage=batch.stage, reason=cause.reason, detail=cause.detail)
        return cause.reason


def _handle_error(batch: ClaimedBatch, error: Exception, work: OutageWork) -> str:
    """Decide what becomes of the batch, and store it."""
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
            _fail(session, batch, cause, error)
    return cause.reason


def _put_off(
    session: Session, batch: ClaimedBatch, cause: PipelineError, wait: Pause, *, before_any_call: bool
) -> None:
    wait_s = wait.wait_s
    terms = {"counted": wait.counted, "before_any_call": before_any_call}
    batches.put_off(session, batch, wait_s, waits_for=wait.waits_for, **terms)
    log = logger().debug if cause.reason == "slots_taken" else logger().warning  # many batches wait for one slot
    log(f"{batch.direction}.job.retry", reason=cause.reason, detail=cause.detail, wait_s=round(wait_s, 1))
    if wait_s <= WAKE_WITHIN_S and wait.waits_for not in REMOTES:  # the end of the outage wakes the waiting work
        wakeup = wakeup_of(batch)
        after_commit(session, lambda: canvases.wake([wakeup], countdown_s=wait_s))


def _fail(session: Session, batch: ClaimedBatch, cause: PipelineError, error: Exception) -> None:
    batches.fail(session, batch)
    failure = batch_failure(
        batch,
        "batch",
        failures.batch_subject(batch.id),
        stage=batch.stage,
        reason=cause.reason,
        detail=cause.detail,
        field=cause.field,
        traceback=traceback_of(cause, error),
        attempts=batch.attempts,
        task_id=session.get_one(batches.Batch, batch.id).task_id,
        settings_version=batch.marks.settings_version,
    )
    record_failure(session, f"{batch.direction}.job.error", failure, stage=batch.stage, detail=cause.detail)
    if batch.run_id is not None:
        runs.after_failed_stage(session, batch, cause.reason)


@contextmanager
def lease_kept(extend: Callable[[Session, float], bool], *, began: float) -> Iterator[Lease]:
    """Extend the lease every third of its length until the block ends; the writes of the block depend on it.

    extend  extends by this many seconds, in a transaction; returns False if another worker has the lease
    began   `time.monotonic()` from before the claim was sent
    """
    lease_s = settings().lease_s
    lease, ended = Lease(lease_s, began), Event()

    def keep() -> None:
        wait_s = lease_s / 3
        while not ended.wait(wait_s):
            wait_s = lease_s / 3
            requested = time.monotonic()
            try:
                with transaction() as session:
                    is_ours = extend(session, lease_s)
            except Exception as error:  # noqa: BLE001 - the next extension may succeed
                logger().warning("lease.not_extended", error=type(error).__name__)
                wait_s = lease_s * AGAIN_SHARE
                continue
            if not is_ours:
                lease.lost()
                return
            lease.extended(requested)

    Thread(target=keep, name="lease", daemon=True).start()
    try:
        with holding(lease):
            yield lease
    finally:
        ended.set()


def check_alone(cause: PipelineError, work: OutageWork | None) -> None:
    """After a failure, find out whether the remote system answers other calls. Costs two tokens, or 20."""
    if work is None or cause.reason not in OUT or work.is_first or work.remote not in CHECKS:
        return
    work.only_checks = True
    try:
        CHECKS[work.remote](wiring.connect(work.connector_key))
    except PipelineError:
        return
    finally:
        work.only_checks = False
    work.is_first = True


def patience(cause: Retryable, work: OutageWork | None, attempts: int) -> Pause:  # noqa: PLR0911 - one for each kind of wait
    """Return how long work waits after an error. Only an error while other work gets answers counts as an attempt."""
    if cause.reason in TURNS:
        wait_s = cause.retry_after_s if cause.retry_after_s is not None else backoff_s(attempts)
        return Pause(wait_s=wait_s, counted=False, waits_for=TURNS[cause.reason])
    if cause.reason == "remote_outage":
        wait_s = min(ASK_AGAIN_S, cause.retry_after_s or ASK_AGAIN_S) + random.uniform(0.0, 5.0)
        return Pause(wait_s=wait_s, counted=False, waits_for=work.remote if work else None)
    if cause.reason in OUR_SYSTEMS:
        wait_s = random.uniform(*HERE_PAUSE_S)
        return Pause(wait_s=wait_s, counted=False, waits_for=OUR_SYSTEMS[cause.reason])
    if cause.reason in INSTALLATION:
        wait_s = max(ASK_AGAIN_S, work.wait_s if work else 0.0)
        return Pause(wait_s=wait_s, counted=False, waits_for=work.remote if work else None)
    if cause.reason in OUT and work is not None and work.remote:
        if not work.is_first:
            return Pause(wait_s=max(work.wait_s, cause.retry_after_s or 0.0), counted=False, waits_for=work.remote)
        wait_s = max(alone_s(attempts), cause.retry_after_s or 0.0)
        return Pause(wait_s=wait_s, counted=True, waits_for=alone_of(work.remote))
    return Pause(wait_s=cause.retry_after_s if cause.retry_after_s is not None else backoff_s(attempts), counted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """How long to wait, for what, and whether it was an attempt."""

    wait_s: float
    counted: bool
    waits_for: str | None = None


def backoff_s(attempt: int, *, draw: Callable[[float, float], float] = random.uniform) -> float:
    """Return a random pause between half a second and base·2ⁿ, at most the cap, so that workers do not retry in sync."""
    return max(0.5, draw(0.0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0**attempt)))


def alone_s(attempt: int) -> float:
    """Return a longer pause, for work that fails while the remote system answers others: eight attempts take ten minutes."""
    return random.uniform(0.5, 1.0) * min(BACKOFF_CAP_S, 4.0 ** (attempt - 1))


def pause_connector(session: Session, connector_key: int, direction: str, cause: ConfigurationError) -> None:
    """Pause a connector: a person must act before any of its work can succeed."""
    connectors.pause(session, connector_key, cause.reason)
    word = "Unauthorized" if cause.reason == "unauthorized" else cause.reason
    log_line(f"{direction}.job.error", cause.reason, level="error", error=word)


def take_slot(batch: ClaimedBatch, system: str) -> None:
    """Take a slot of the remote system for this stage. If PostgreSQL does not answer, the call is made without one.

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
    """After a stage that held its slot for long, wake the first batch that waits for one."""
    try:
        with transaction() as session:
            woken = slots.next_in_turn(session, batch.connector_key, system)
            after_commit(session, lambda: canvases.wake(woken))
    except SQLAlchemyError:
        return
