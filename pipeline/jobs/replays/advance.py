"""The job of a replay: record the outcomes of sent items, send as many as the pace allows, and continue later.

A step is one transaction that closes failures, coalesces their changes and marks the items, so that a killed worker has
either done a slice or not begun it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func
from sqlalchemy.orm import Session

from db import failure as failures
from db import job as jobs
from db import replay as rows
from db.failure import Failure
from db.job import ClaimedJob
from db.replay import Replay, ReplayItem
from db.session import after_commit, transaction
from pipeline.domain.kinds import Direction
from pipeline.errors import PipelineError
from pipeline.jobs.handler import DONE, REFUSED, JobStep, wait
from pipeline.jobs.replays.outcomes import settle
from pipeline.jobs.replays.preview import foresee
from pipeline.jobs.replays.requeue import NotReplayable, replay
from pipeline.jobs.replays.verdict import Kind, Verdict
from pipeline.telemetry import logger

SLICE: Final = 100
"""Items to a transaction."""
LOOK_S: Final = 1.0
LONGEST_LOOK_S: Final = 10.0
"""How often it looks for outcomes while nothing is left to send: less often the longer they take, as of a paused connector."""
SETTLED: Final = {Kind.NOTHING: "already_applied", Kind.SUPERSEDED: "superseded", Kind.SKIPPED: "skipped"}


def step(job: ClaimedJob) -> JobStep:
    """Learn outcomes, and send what the pace allows now. Raises: LostLease, and nothing was done."""
    with transaction() as session:
        row = rows.lock_replay(session, int(job.dedupe_key))
        if row is None:
            return REFUSED
        jobs.hold(session, job)
        _go_on(row)
        settle(session, row)
        wait_s = _send(session, row) if row.state == "running" else None
        session.flush()
        if wait_s is None:
            wait_s = _look_again_s(session, row)
        if wait_s is None:
            _end(session, row)
            return DONE
        return wait(wait_s)


def stop(session: Session, job: ClaimedJob, cause: PipelineError) -> None:
    """Write into the replay why its job failed. What waits keeps waiting; one that a person paused only rests."""
    row = rows.lock_replay(session, int(job.dedupe_key))
    if row is None or row.state == "paused" or row.ended_at is not None:
        return
    row.state = "stopped" if row.state == "running" else row.state
    row.reason, row.detail, row.ended_at = cause.reason, cause.detail, func.now()


def _go_on(row: Replay) -> None:
    """The failed job was started again."""
    if row.state != "stopped" and row.reason is None:
        return
    row.state = "running" if row.state == "stopped" else row.state
    row.reason = row.detail = row.ended_at = row.sent_until = None


def _send(session: Session, row: Replay) -> float | None:
    """Send what the pace allows now; None when nothing waits any more."""
    now = rows.moment(session)
    begun, allowed = _allowance(row, now)
    items = rows.take_waiting(session, row.id, allowed) if allowed else []
    _send_items(session, row, items)
    row.sent_until = begun + timedelta(seconds=len(items) / row.per_second)
    if len(items) < allowed:
        return None
    if allowed == SLICE:
        return 0.0
    return max(LOOK_S, 1 / row.per_second)


def _allowance(row: Replay, now: datetime) -> tuple[datetime, int]:
    """(from when on the pace is counted, how many items it allows by now): a second's worth at most is made up for."""
    earliest = now - timedelta(seconds=max(1.0, 1 / row.per_second))
    begun = earliest if row.sent_until is None else max(earliest, row.sent_until)
    return begun, min(SLICE, round((now - begun).total_seconds() * row.per_second + 0.001))


def _send_items(session: Session, row: Replay, items: list[ReplayItem]) -> None:
    ids = [item.failure_id for item in items]
    found = {each.id: each for each in failures.find_failures(session, ids=ids, state=None, limit=None)} if ids else {}
    corrected = {item.failure_id: item.payload for item in items if item.payload is not None}
    verdicts = foresee(session, list(found.values()), corrected)
    after_event = rows.last_event_id(session) if items else 0
    for item in items:
        failure = found.get(item.failure_id)
        if failure is None:
            _settled(item, "refused", "The failure is not kept any more.")
        else:
            item.after_event = after_event
            _send_one(session, row, item, failure, verdicts[failure.id])


def _send_one(session: Session, row: Replay, item: ReplayItem, failure: Failure, verdict: Verdict) -> None:
    if verdict.kind is Kind.CLOSED:
        _settled(item, "skipped", verdict.detail)
    elif _needs_nothing(failure, verdict):
        failures.close_failure(
            session, failure.id, "replayed", by=row.asked_by, why=f"replay {row.id}: {verdict.detail}"
        )
        _settled(item, SETTLED[verdict.kind], verdict.detail)
    else:
        _set_going(session, row, item, failure)


def _needs_nothing(failure: Failure, verdict: Verdict) -> bool:
    """Return whether its content, or a newer one, is already there, so that sending is useless. Only Pipedrive itself
    can say that a record is
    left out of Hull.
    """
    if failure.direction == Direction.INCOMING and verdict.kind is Kind.SKIPPED:
        return False
    return verdict.kind.is_harmless


def _set_going(session: Session, row: Replay, item: ReplayItem, failure: Failure) -> None:
    try:
        with session.begin_nested():
            replay(session, failure, by=row.asked_by, why=f"{row.why} (replay {row.id})", payload=item.payload)
    except NotReplayable as refused:
        _settled(item, "refused", str(refused))
        return
    item.state, item.sent_at, item.payload = rows.SENT, func.now(), None


def _settled(item: ReplayItem, state: str, detail: str) -> None:
    item.state, item.detail, item.settled_at, item.payload = state, detail, func.now(), None


def _look_again_s(session: Session, row: Replay) -> float | None:
    """Return the seconds until the next check of outcomes; None if no items are in flight."""
    if not rows.items_sent(session, row.id, 1):
        return None
    since = row.sent_until or row.created_at
    waited_s = (rows.moment(session) - since).total_seconds()
    return min(LONGEST_LOOK_S, max(LOOK_S, waited_s / 10))


def _end(session: Session, row: Replay) -> None:
    """Nothing is in flight; a paused one stays paused."""
    if row.state == "paused" or row.ended_at is not None:
        return
    row.state = "done" if row.state == "running" else row.state
    row.ended_at = func.now()
    counts = rows.item_counts(session, [row.id])[row.id]
    after_commit(session, lambda: logger().info("failures.replayed", replay_id=row.id, state=row.state, **counts))
