"""Upkeep of our own tables. Every ten seconds: count new events, so that charts and metrics need not count them again.
Hourly: create the partitions of the coming days, delete expired rows, release claims.

Each hourly step has its own transactions: a failed step does not prevent the others, and is repeated an hour later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Final

from sqlalchemy.orm import Session

from db import alert as alerts
from db import (
    authorisation,
    event_count,
    export_file,
    failure_closing,
    login_attempt,
    operator,
    schedule,
    verification,
    webhook,
)
from db import batch as batches
from db import delivery as deliveries
from db import failure as failures
from db import job as jobs
from db import job_item as job_items
from db import log_export as log_exports
from db import plan as plans
from db import replay as replays
from db import sync_event as events
from db.session import transaction
from pipeline.error_kinds import classify
from pipeline.sync.incoming import deletions
from pipeline.sync.stage import StageFailed
from pipeline.telemetry import logger

AT_ONCE: Final = 5_000
"""Rows per transaction: a large backlog would otherwise exceed the statement time-out."""
Found = int | list[str] | None
SLICE_S: Final = 5.0
"""Time limit of one tick: after a downtime, the rest is left to the next ticks."""


def tidy() -> None:
    """Do every step. Raises: StageFailed, after all steps, if one failed."""
    done: dict[str, Found] = {}
    failed: list[str] = []
    for name, step in STEPS.items():
        try:
            done[name] = step()
        except Exception as error:  # noqa: BLE001 - the other steps continue
            cause = classify(error)
            failed.append(name)
            logger().error("tidy.step_failed", step=name, reason=cause.reason, detail=cause.detail)
    if any(done.values()):
        logger().info("tidy", **{name: found for name, found in done.items() if found})
    if failed:
        raise StageFailed(f"tidy: {', '.join(failed)}")


def count_events() -> None:
    """Count what has happened since the last tick. A second tick at the same time does nothing."""
    with transaction() as session:
        failures.merge_counts(session)
    ends_at = time.monotonic() + SLICE_S
    while time.monotonic() < ends_at:
        with transaction() as session:
            if not event_count.count_new_events(session):
                return


def _make_partitions() -> list[str]:
    with transaction() as session:
        events.limit_lock_wait(session)
        return events.make_partitions(session, _today())


def _today() -> date:
    return datetime.now(UTC).date()


def _drop_partitions() -> list[str]:
    with transaction() as session:
        old = events.old_partitions(session, _today())
    for name, is_attached in old.items():
        if is_attached:
            with transaction() as session:
                events.detach_partition(session, name)
        with transaction() as session:
            events.drop_partition(session, name)
    return list(old)


def _in_slices(drop: Callable[[Session, int], int]) -> Callable[[], int]:
    def all_of_it() -> int:
        total = 0
        while True:
            with transaction() as session:
                gone = drop(session, AT_ONCE)
            total += gone
            if gone < AT_ONCE:
                return total

    return all_of_it


def _at_once(drop: Callable[[Session], Found]) -> Callable[[], Found]:
    def in_one_transaction() -> Found:
        with transaction() as session:
            return drop(session)

    return in_one_transaction


STEPS: Final[Mapping[str, Callable[[], Found]]] = {
    "made": _make_partitions,
    "dropped": _drop_partitions,
    "deliveries": _in_slices(deliveries.drop_old_deliveries),
    "batches": _in_slices(batches.drop_old_batches),
    "jobs": _in_slices(jobs.drop_old_jobs),
    "job_items": _at_once(job_items.drop_old_items),
    "export_files": _at_once(export_file.drop_old_files),
    "plan_items": _at_once(plans.drop_old_items),
    "log_exports": _at_once(log_exports.drop_old_exports),
    "alerts": _at_once(alerts.drop_old_alerts),
    "hours": _at_once(event_count.drop_old_hours),
    "event_counts": _at_once(event_count.merge_old_counts),
    "verifications": _at_once(verification.drop_old_verifications),
    "newest_webhooks": _in_slices(webhook.drop_old),
    "failures": _in_slices(failure_closing.drop_old_failures),
    "replays": _at_once(replays.drop_old_replays),
    "login_attempts": _in_slices(login_attempt.delete_old_attempts),
    "sessions": _at_once(operator.delete_ended_sessions),
    "keys": _at_once(operator.delete_expired_keys),
    "oauth_states": _at_once(authorisation.drop_old_states),
    "processes": _at_once(schedule.forget_ended_processes),
    "released": deletions.release_overdue,
}
"""Name in the log → the step; what it returns is what it made or deleted."""
