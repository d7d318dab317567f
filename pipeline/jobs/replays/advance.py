"""The job of a replay: record the outcomes of sent items, send as many as the pace allows, and continue later.

A step is one transaction that closes failures, coalesces their changes and marks the items: a killed worker has done a whole
slice or nothing. Outcomes are derived from changes, failures and events, never from the broker. If the subject of an item has a
newer failure, it failed again. If its change is gone, the record's events show whether something was sent. Otherwise it is in
flight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func
from sqlalchemy.orm import Session

from db import failure as failures
from db import failure_closing, failure_filter
from db import job as jobs
from db import replay as rows
from db.failure import Failure
from db.job import ClaimedJob, Job
from db.replay import Replay, ReplayEvent, ReplayItem, Trace
from db.session import after_commit, transaction
from pipeline.domain.kinds import Direction
from pipeline.domain.reasons import meaning_of
from pipeline.errors import PipelineError
from pipeline.jobs.replays.preview import preview_failures
from pipeline.jobs.replays.preview_records import UNCHANGED, ReplayEffect, ReplayPreview
from pipeline.jobs.replays.start import NotReplayable, replay_failure
from pipeline.sync.job_queue import DONE, REFUSED, JobStep, wait
from pipeline.sync.job_queue import TASK as JOB_TASK
from pipeline.sync.runs import missing_records
from pipeline.telemetry import logger

AT_ONCE: Final = 500
QUIET: Final = timedelta(seconds=30)
"""A control task that succeeds stores nothing: after so long without a failure it counts as successful."""
Pair = tuple[ReplayItem, Failure]
SLICE: Final = 100
"""Items to a transaction."""
LOOK_S: Final = 1.0
LONGEST_LOOK_S: Final = 10.0
"""Pause between checks of outcomes while nothing is left to send; it grows while outcomes take long, as of a paused connector."""
HARMLESS_STATES: Final = {
    ReplayEffect.NOTHING: "already_applied",
    ReplayEffect.SUPERSEDED: "superseded",
    ReplayEffect.SKIPPED: "skipped",
}


def step(job: ClaimedJob) -> JobStep:
    """Record outcomes, and send what the pace allows now. Raises: LostLease, and nothing was done."""
    with transaction() as session:
        row = rows.lock_replay(session, int(job.dedupe_key))
        if row is None:
            return REFUSED
        jobs.hold(session, job)
        _clear_stop(row)
        record_outcomes(session, row)
        wait_s = _send(session, row) if row.state == "running" else None
        session.flush()
        if wait_s is None:
            wait_s = _next_check_s(session, row)
        if wait_s is None:
            _end(session, row)
            return DONE
        return wait(wait_s)


def resume(session: Session, key: str) -> None:
    """Continue a replay after its job had failed; another replay stays as it is."""
    row = rows.lock_replay(session, int(key))
    if row is not None:
        _clear_stop(row)


def _clear_stop(row: Replay) -> None:
    """Continue a replay after its failed job was resumed."""
    if row.state == "stopped":
        row.state = "running"
        row.reason = row.detail = row.ended_at = row.sent_until = None


def _send(session: Session, row: Replay) -> float | None:
    """Send what the pace allows now. Return the seconds until the next item; None if none is waiting."""
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
    """Return (the moment from which the pace is counted, the number of items it allows by now). At most one second is caught up."""
    earliest = now - timedelta(seconds=max(1.0, 1 / row.per_second))
    begun = earliest if row.sent_until is None else max(earliest, row.sent_until)
    return begun, min(SLICE, round((now - begun).total_seconds() * row.per_second + 0.001))


def _send_items(session: Session, row: Replay, items: list[ReplayItem]) -> None:
    found = failure_filter.failures_by_id(session, [item.failure_id for item in items])
    corrected = {item.failure_id: item.payload for item in items if item.payload is not None}
    previews = preview_failures(session, list(found.values()), corrected)
    after_event = rows.last_event_id(session) if items else 0
    for item in items:
        failure = found.get(item.failure_id)
        if failure is None:
            _end_item(item, "refused", "The failure is not kept any more.")
        else:
            item.after_event = after_event
            _send_one(session, row, item, failure, previews[failure.id])


def _end_item(item: ReplayItem, state: str, detail: str | None) -> None:
    item.state, item.detail, item.finished_at, item.payload = state, detail, func.now(), None


def _send_one(session: Session, row: Replay, item: ReplayItem, failure: Failure, preview: ReplayPreview) -> None:
    if preview.kind is ReplayEffect.CLOSED:
        _end_item(item, "skipped", preview.detail)
    elif _is_useless(failure, preview):
        failure_closing.close_failure(
            session, failure.id, "replayed", by=row.requested_by, why=f"replay {row.id}: {preview.detail}"
        )
        _end_item(item, HARMLESS_STATES[preview.kind], preview.detail)
    else:
        try:
            with session.begin_nested():
                why = f"{row.why} (replay {row.id})"
                replay_failure(session, failure, by=row.requested_by, why=why, payload=item.payload)
        except NotReplayable as refused:
            _end_item(item, "refused", str(refused))
        else:
            item.state, item.sent_at, item.payload = rows.SENT, func.now(), None


def _is_useless(failure: Failure, preview: ReplayPreview) -> bool:
    """Return whether sending would change nothing.

    An incoming record that the settings exclude is sent all the same: only a fresh read from Pipedrive shows its values.
    """
    if failure.direction == Direction.INCOMING and preview.kind is ReplayEffect.SKIPPED:
        return False
    return preview.kind.is_harmless


def _next_check_s(session: Session, row: Replay) -> float | None:
    """Return the seconds until the next check of outcomes; None if no items are in flight."""
    if not rows.items_sent(session, row.id, 1):
        return None
    since = row.sent_until or row.created_at
    waited_s = (rows.moment(session) - since).total_seconds()
    return min(LONGEST_LOOK_S, max(LOOK_S, waited_s / 10))


def _end(session: Session, row: Replay) -> None:
    """End a replay without an item in flight."""
    row.state = "done" if row.state == "running" else row.state
    row.ended_at = func.now()
    counts = rows.item_counts(session, [row.id])[row.id]
    after_commit(session, lambda: logger().info("failures.replayed", replay_id=row.id, state=row.state, **counts))


def stop(session: Session, job: ClaimedJob, cause: PipelineError) -> None:
    """Write into the replay why its job failed. Waiting items keep waiting."""
    row = rows.lock_replay(session, int(job.dedupe_key))
    if row is not None and row.state == "running":
        row.state, row.reason, row.detail, row.ended_at = "stopped", cause.reason, cause.detail, func.now()


def abort(session: Session, job: Job, _by: str) -> None:
    """Stop sending; failures that were not sent stay open. `record_left_outcomes` then ends the replay."""
    row = rows.lock_replay(session, int(job.dedupe_key))
    if row is not None and row.state in ("running", "stopped"):
        row.state = "aborted"
        row.reason = row.detail = row.ended_at = None
        rows.abort_waiting(session, row.id)


def record_left_outcomes() -> None:
    """Record the outcomes of replays that were paused or aborted after items were sent: no job does so."""
    with transaction() as session:
        found = rows.find_unwatched(session)
    for replay_id in found:
        try:
            _record_left(replay_id)
        except Exception as error:  # noqa: BLE001 - the other replays continue, and the next tick tries again
            logger().warning("replay.outcomes_not_recorded", replay_id=replay_id, error=type(error).__name__)


def _record_left(replay_id: int) -> None:
    with transaction() as session:
        row = rows.lock_replay(session, replay_id)
        if row is None or row.ended_at is not None:
            return
        record_outcomes(session, row)
        session.flush()
        if row.state == "aborted" and not rows.items_sent(session, row.id, 1):
            _end(session, row)


def record_outcomes(session: Session, row: Replay) -> None:
    """Store the outcomes of sent items, as far as they are known now. The replay must be locked."""
    items = rows.items_sent(session, row.id, AT_ONCE)
    if not items:
        return
    found = failure_filter.failures_by_id(session, [item.failure_id for item in items])
    traces = rows.traces(session, [item.id for item in items])
    processed: list[Pair] = []
    for item in items:
        failure, trace = found.get(item.failure_id), traces.get(item.id)
        if failure is None or trace is None:
            _end_item(item, "came_through", None)
        elif trace.new_failure_id is not None:
            item.new_failure_id = trace.new_failure_id
            _end_item(item, "failed_again", None)
        elif failure.kind not in failures.OF_RECORDS:
            _record_task(session, item, failure, trace)
        elif trace.change_id is None:
            processed.append((item, failure))
        else:
            item.batch_id = trace.batch_id
    _record_records(session, row.connector_key, processed)


def _record_task(session: Session, item: ReplayItem, failure: Failure, trace: Trace) -> None:
    if failure.kind == "batch":
        item.batch_id = failure.batch_id
        if trace.batch_state in (None, "done"):
            _end_item(item, "came_through", None)
        elif trace.batch_state == "cancelled":
            _end_item(item, "skipped", "Its run was cancelled.")
    elif failure.stage == JOB_TASK:
        if jobs.state_of(session, int(failure.record_id or 0)) not in jobs.OPEN:
            _end_item(item, "came_through", None)
    elif failure.stage == missing_records.STAGE:
        _end_item(item, "came_through", "The missing records are read by their ids.")
    elif item.sent_at is not None and rows.moment(session) - item.sent_at > QUIET:
        _end_item(item, "came_through", "It has not failed since.")


def _record_records(session: Session, connector_key: int, pairs: Iterable[Pair]) -> None:
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for item, failure in pairs:
        groups[failure.direction, failure.entity].append((item, failure))
    for (direction, entity), group in groups.items():
        events = _events_since(session, connector_key, direction, entity, group)
        for item, failure in group:
            since = [
                each for each in events.get(failure.record_id or "", ()) if item.sent_at and each.at >= item.sent_at
            ]
            _record_by_events(item, since)


def _events_since(
    session: Session, connector_key: int, direction: str, entity: str, pairs: Sequence[Pair]
) -> Mapping[str, list[ReplayEvent]]:
    """Return record → its events since the first of the items was sent."""
    ids = [failure.record_id for _, failure in pairs if failure.record_id]
    since = min(item.sent_at for item, _ in pairs if item.sent_at is not None)
    after = min(item.after_event or 0 for item, _ in pairs)
    if direction == Direction.OUTGOING:
        found = rows.outgoing_events(session, connector_key, entity, ids, since=since, after=after)
    else:
        numbers = [int(each) for each in ids if each.isdigit()]
        found = rows.incoming_events(session, connector_key, entity, numbers, since=since, after=after)
    events: dict[str, list[ReplayEvent]] = defaultdict(list)
    for each in found:
        name = each.hull_id if direction == Direction.OUTGOING else str(each.pipedrive_id)
        if name is not None:
            events[name].append(each)
    return events


def _record_by_events(item: ReplayItem, events: Sequence[ReplayEvent]) -> None:
    """Set the outcome of one item. A success counts more than omitted fields; no event means that nothing differed."""
    successes = [each for each in events if each.event.endswith(".success")]
    if not events:
        _end_item(item, "already_applied", "Nothing differed any more.")
        return
    last = (successes or events)[-1]
    meaning = meaning_of(last.reason) if last.reason is not None else None
    item.batch_id = last.batch_id or item.batch_id
    state = "skipped"
    if not last.event.endswith(".skip"):
        state = "came_through"
    elif last.reason in UNCHANGED:
        state = "already_applied"
    elif last.reason == "older_report":
        state = "superseded"
    _end_item(item, state, meaning)
