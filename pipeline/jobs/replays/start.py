"""Replay one failure, or start a replay of many at a set pace; its job is in `advance`.

A record is replayed as a change, an incoming batch from the stage that failed, an outgoing one from extract. A control task
runs again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy.orm import Session

from db import batch as batches
from db import change_writer, failure_closing, failure_filter
from db import failure as failures
from db import job as jobs
from db.failure import Failure
from db.failure_filter import FailureFilter
from db.replay import Replay, ReplayItem
from db.session import after_commit
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.errors import Rejected
from pipeline.sync import job_queue
from pipeline.sync.job_queue import TASK as JOB_TASK
from pipeline.sync.runs import missing_records, runs
from pipeline.tasks import canvases
from pipeline.transform.hull_reports import hull_id_of

WANTED = "control_tasks_wanted"
PER_SECOND: Final = 10.0
"""Fast enough for a waiting person, slow enough for Pipedrive's burst limit."""
FASTEST: Final = 500.0
SLOWEST: Final = 0.1


class NotReplayable(Exception):
    """This failure cannot be replayed as it is; the text is the reason and the next step."""


class NothingToReplay(Exception):
    """No open failure matches."""


class MoreThanExpected(Exception):
    """More failures match than the caller has seen."""


def replay_failure(session: Session, failure: Failure, *, by: str, why: str, payload: bytes | None = None) -> None:
    """Replay one failure, and close it; if it fails again, a new failure opens.

    payload  replaces the received record, for outgoing records
    Raises: NotReplayable.
    """
    if not failure_closing.close_failure(session, failure.id, "replayed", by=by, why=why):
        raise NotReplayable(f"failure {failure.id} is closed already")
    if failure.kind in failures.OF_RECORDS:
        _replay_record(session, failure, payload)
    elif failure.kind == "batch":
        _replay_batch(session, failure)
    elif failure.stage == missing_records.STAGE:
        if not missing_records.confirm(session, failure):
            raise NotReplayable(f"failure {failure.id}: the ids that its run listed are not kept any more; fetch again")
    elif failure.stage == JOB_TASK:
        if not jobs.revive(session, int(failure.record_id or 0)):
            raise NotReplayable(
                f"failure {failure.id}: it was requested again, or too long ago; request it again in Hull"
            )
        _wake(session, "dispatch")
    else:
        _wake(session, failure.stage)


def _replay_record(session: Session, failure: Failure, payload: bytes | None) -> None:
    if failure.record_id is None:
        raise NotReplayable(f"failure {failure.id}: the record has no id; correct it in Pipedrive, then fetch again")
    outgoing = failure.direction == Direction.OUTGOING
    if payload is not None:
        check_payload(failure, payload)
    change_writer.write_payload(
        session,
        failure.connector_key,
        failure.direction,
        failure.entity,
        failure.record_id,
        cause="replay",
        payload=(payload or failures.payload_of(failure)) if outgoing else None,
    )
    _wake(session, "dispatch")


def _wake(session: Session, name: str) -> None:
    """Request a control task after the commit: once, for any number of failures in the session."""
    wanted: set[str] = session.info.setdefault(WANTED, set())
    if name not in wanted:
        wanted.add(name)
        after_commit(session, lambda: canvases.wake_control(name))


def _replay_batch(session: Session, failure: Failure) -> None:
    if failure.run_id is not None and failure.stage == "extract":
        try:
            runs.reopen(session, failure.run_id)
        except runs.RunInProgress as in_flight:
            raise NotReplayable(f"failure {failure.id}: {in_flight}") from None
    wakeup = batches.revive(session, failure.batch_id or 0)
    if wakeup is None:
        raise NotReplayable(f"failure {failure.id}: its batch is not waiting any more; fetch again")
    after_commit(session, lambda: canvases.wake([wakeup]))


def check_payload(failure: Failure, payload: bytes) -> None:
    """Check that a corrected payload is about the same record: another one would fail its batch. Raises: NotReplayable."""
    if failure.direction != Direction.OUTGOING:
        raise NotReplayable(f"failure {failure.id}: correct the record in Pipedrive; a replay reads it again")
    try:
        hull_id = hull_id_of(read_lenient(payload)[Entity(failure.entity).hull])
    except (ValueError, TypeError, KeyError, AttributeError, Rejected):
        hull_id = None
    if hull_id != failure.record_id:
        raise NotReplayable(f"failure {failure.id}: the corrected record is not a message about {failure.record_id}")


def begin(
    session: Session,
    chosen: FailureFilter,
    *,
    by: str,
    why: str,
    per_second: float = PER_SECOND,
    payloads: Mapping[int, bytes] | None = None,
    at_most: int | None = None,
) -> Replay:
    """Add every matching open failure to a new replay, and start its job.

    payloads  failure → an edited payload, for outgoing records
    at_most   maximum of failures: the number that the caller has seen
    Raises: NothingToReplay; MoreThanExpected; NotReplayable for an unusable payload.
    """
    if chosen.connector_key is None:
        raise ValueError("a replay is one connector's")
    pace = min(max(per_second, SLOWEST), FASTEST)
    replay = Replay(
        connector_key=chosen.connector_key,
        requested_by=by,
        why=why,
        chosen=chosen.words,
        per_second=pace,
        state="running",
    )
    session.add(replay)
    session.flush()
    replay.total = failure_filter.freeze_items(session, replay.id, replace(chosen, state="open"))
    if not replay.total:
        raise NothingToReplay("no open failure matches")
    if at_most is not None and replay.total > at_most:
        raise MoreThanExpected(f"{replay.total} instead of {at_most}")
    for failure_id, payload in (payloads or {}).items():
        check_payload(session.get_one(Failure, failure_id), payload)
        session.query(ReplayItem).filter_by(replay_id=replay.id, failure_id=failure_id).update({"payload": payload})
    job_queue.enqueue(
        session,
        job_queue.REPLAY,
        str(replay.id),
        title=f"Replay {replay.id}: {replay.why}",
        connector_key=replay.connector_key,
    )
    after_commit(session, lambda: canvases.wake_control("dispatch"))
    return replay


def words_of(chosen: FailureFilter) -> str:
    """Return the filter as text for the audit log."""
    words = {name: value for name, value in chosen.words.items() if name != "ids"}
    if chosen.ids:
        some = ", ".join(map(str, chosen.ids[:10]))
        words["failures" if len(chosen.ids) > 1 else "failure"] = some + (" …" if len(chosen.ids) > 10 else "")
    return ", ".join(f"{name} {value}" for name, value in words.items()) or "all open failures"
