"""Begin, pause, resume and abort a replay. The job in `advance` does the work; `pipeline.operations.replays` audits each act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy.orm import Session

from db import failure as failures
from db import failure_filter
from db import job as jobs
from db import replay as rows
from db.failure import Failure
from db.failure_filter import FailureFilter
from db.replay import Replay, ReplayItem
from db.session import after_commit
from pipeline.jobs.replays.requeue import check_payload
from pipeline.jobs.replays.requeue import replay as replay_failure
from pipeline.sync import job_queue
from pipeline.tasks import wakeups

PER_SECOND: Final = 10.0
"""Fast enough for a waiting person, slow enough for Pipedrive's burst limit."""
FASTEST: Final = 500.0
SLOWEST: Final = 0.1


class NothingToReplay(Exception):
    """No open failure matches."""


class MoreThanExpected(Exception):
    """More failures match than the caller has seen."""


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
    at_most   how many the caller has seen
    Raises: NothingToReplay; MoreThanExpected; NotReplayable for an unusable payload.
    """
    if chosen.connector_key is None:
        raise ValueError("a replay is one connector's")
    pace = min(max(per_second, SLOWEST), FASTEST)
    replay = Replay(
        connector_key=chosen.connector_key, asked_by=by, why=why, chosen=chosen.words, per_second=pace, state="running"
    )
    session.add(replay)
    session.flush()
    replay.total = failure_filter.freeze_items(session, replay.id, replace(chosen, state="open"))
    if not replay.total:
        raise NothingToReplay("no open failure matches")
    if at_most is not None and replay.total > at_most:
        raise MoreThanExpected(f"{replay.total} instead of {at_most}")
    for failure_id, payload in (payloads or {}).items():
        _correct(session, replay, failure_id, payload)
    _have_it_sent(session, replay, by)
    return replay


def pause(session: Session, replay_id: int) -> bool:
    """Send nothing more for now; False when it is not running."""
    return _move(session, replay_id, {"running"}, "paused") is not None


def resume(session: Session, replay_id: int, *, by: str) -> bool:
    """Resume a replay, also one with a failed job; return False if it is neither paused nor stopped."""
    replay = _move(session, replay_id, {"paused", "stopped"}, "running")
    if replay is None:
        return False
    replay.sent_until = None
    _have_it_sent(session, replay, by)
    return True


def abort(session: Session, replay_id: int, *, by: str) -> bool:
    """Send nothing more; what was not sent stays open. False when it has ended already."""
    replay = _move(session, replay_id, {"running", "paused", "stopped"}, "aborted")
    if replay is None:
        return False
    rows.abort_waiting(session, replay_id)
    _have_it_sent(session, replay, by)
    return True


def _move(session: Session, replay_id: int, states: set[str], state: str) -> Replay | None:
    replay = rows.lock_replay(session, replay_id)
    if replay is None or replay.state not in states:
        return None
    replay.state = state
    replay.reason = replay.detail = replay.ended_at = None
    return replay


def _have_it_sent(session: Session, replay: Replay, by: str) -> None:
    """With a new job, or with the failed one, which closes its failure."""
    failure = _failure_of(session, replay)
    if failure is not None:
        replay_failure(session, failure, by=by, why=f"replay {replay.id} goes on")
    else:
        job_queue.enqueue(
            session,
            job_queue.REPLAY,
            str(replay.id),
            title=f"Replay {replay.id}: {replay.why}",
            connector_key=replay.connector_key,
        )
    after_commit(session, lambda: wakeups.wake_control("dispatch"))


def _failure_of(session: Session, replay: Replay) -> Failure | None:
    """Return the open failure of its job that can be replayed."""
    job_id = jobs.last_failed(session, job_queue.REPLAY, str(replay.id))
    if job_id is None or not jobs.is_revivable(session, job_id):
        return None
    subject = failures.control_subject(f"{job_queue.REPLAY}:{job_id}")
    return failures.find_open(session, replay.connector_key, subject)


def _correct(session: Session, replay: Replay, failure_id: int, payload: bytes) -> None:
    failure = session.get_one(Failure, failure_id)
    check_payload(failure, payload)
    session.query(ReplayItem).filter_by(replay_id=replay.id, failure_id=failure_id).update({"payload": payload})


def words_of(chosen: FailureFilter) -> str:
    """The filter as the audit log names it."""
    words = {name: value for name, value in chosen.words.items() if name != "ids"}
    if chosen.ids:
        some = ", ".join(map(str, chosen.ids[:10]))
        words["failures" if len(chosen.ids) > 1 else "failure"] = some + (" …" if len(chosen.ids) > 10 else "")
    return ", ".join(f"{name} {value}" for name, value in words.items()) or "all that are open"
