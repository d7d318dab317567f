"""The outcomes of sent items, derived from their changes, failures and events, never from the broker.

Its change is gone and nothing failed: it succeeded, or there was nothing to do; the record's events say which. A newer
failure of the same subject: it failed again. Neither: it is in flight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import func
from sqlalchemy.orm import Session

from db import failure as failures
from db import job as jobs
from db import replay as rows
from db.failure import Failure
from db.replay import Replay, ReplayEvent, ReplayItem, Trace
from pipeline.domain.kinds import Direction
from pipeline.domain.reasons import REASONS
from pipeline.sync.job_queue import TASK as JOB_TASK
from pipeline.sync.runs import missing_records

AT_ONCE: Final = 500
QUIET: Final = timedelta(seconds=30)
"""A control task leaves nothing behind when it succeeds; after so long without a failure it has."""
UNCHANGED: Final = frozenset({"unchanged", "no_change", "no_relevant_change"})

Pair = tuple[ReplayItem, Failure]


def settle(session: Session, row: Replay) -> None:
    """Write down what became of the items that were sent, as far as it can be known by now. The replay must be locked."""
    items = rows.items_sent(session, row.id, AT_ONCE)
    if not items:
        return
    ids = [item.failure_id for item in items]
    found = {each.id: each for each in failures.find_failures(session, ids=ids, state=None, limit=None)}
    traces = rows.traces(session, [item.id for item in items])
    carried: list[Pair] = []
    for item in items:
        failure, trace = found.get(item.failure_id), traces.get(item.id)
        if failure is None or trace is None:
            _note(item, "came_through", None)
        elif trace.new_failure_id is not None:
            item.new_failure_id = trace.new_failure_id
            _note(item, "failed_again", None)
        elif failure.kind not in failures.OF_RECORDS:
            _settle_work(session, item, failure, trace)
        elif trace.change_id is None:
            carried.append((item, failure))
        else:
            item.batch_id = trace.batch_id
    _settle_records(session, row.connector_key, carried)


def _settle_work(session: Session, item: ReplayItem, failure: Failure, trace: Trace) -> None:
    if failure.kind == "batch":
        item.batch_id = failure.batch_id
        if trace.batch_state in (None, "done"):
            _note(item, "came_through", None)
        elif trace.batch_state == "cancelled":
            _note(item, "skipped", "Its run was cancelled.")
    elif failure.stage == JOB_TASK:
        if jobs.state_of(session, int(failure.record_id or 0)) != "due":
            _note(item, "came_through", None)
    elif failure.stage == missing_records.STAGE:
        _note(item, "came_through", "The missing records are looked for by their ids.")
    elif item.sent_at is not None and rows.moment(session) - item.sent_at > QUIET:
        _note(item, "came_through", "It has not failed since.")


def _settle_records(session: Session, connector_key: int, pairs: Iterable[Pair]) -> None:
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for item, failure in pairs:
        groups[failure.direction, failure.entity].append((item, failure))
    for (direction, entity), mine in groups.items():
        told = _told(session, connector_key, direction, entity, mine)
        for item, failure in mine:
            since = [each for each in told.get(failure.record_id or "", ()) if item.sent_at and each.at >= item.sent_at]
            _by_events(item, since)


def _told(
    session: Session, connector_key: int, direction: str, entity: str, mine: Sequence[Pair]
) -> Mapping[str, list[ReplayEvent]]:
    """Record → its events since the first of the items was sent."""
    ids = [failure.record_id for _, failure in mine if failure.record_id]
    since = min(item.sent_at for item, _ in mine if item.sent_at is not None)
    after = min(item.after_event or 0 for item, _ in mine)
    if direction == Direction.OUTGOING:
        found = rows.told_outgoing(session, connector_key, entity, ids, since=since, after=after)
    else:
        numbers = [int(each) for each in ids if each.isdigit()]
        found = rows.told_incoming(session, connector_key, entity, numbers, since=since, after=after)
    told: dict[str, list[ReplayEvent]] = defaultdict(list)
    for each in found:
        name = each.hull_id if direction == Direction.OUTGOING else str(each.pipedrive_id)
        if name is not None:
            told[name].append(each)
    return told


def _by_events(item: ReplayItem, told: Sequence[ReplayEvent]) -> None:
    """A success counts more than fields left out; no event means that nothing differed."""
    successes = [each for each in told if each.event.endswith(".success")]
    if not told:
        _note(item, "already_applied", "Nothing differed any more.")
        return
    last = (successes or told)[-1]
    item.batch_id = last.batch_id or item.batch_id
    if not last.event.endswith(".skip"):
        _note(item, "came_through", _meaning(last.reason))
    elif last.reason in UNCHANGED:
        _note(item, "already_applied", _meaning(last.reason))
    elif last.reason == "older_report":
        _note(item, "superseded", _meaning(last.reason))
    else:
        _note(item, "skipped", _meaning(last.reason))


def _note(item: ReplayItem, state: str, detail: str | None) -> None:
    item.state, item.detail, item.settled_at = state, detail, func.now()


def _meaning(reason: str | None) -> str | None:
    return REASONS[reason].meaning if reason in REASONS else reason
