"""Failures for display: in groups, and one with all details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from db import failure as rows
from db import failure_filter
from db import replay as replay_rows
from db.batch import Batch
from db.failure import Failure
from db.failure_filter import FailureFilter
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import advice_of, meaning_of
from pipeline.insight.verdicts import ReplayPreview, verdict_of

DAYS: Final = 14
"""How far back a group's trend goes."""
LONGEST_READ: Final = 200_000
"""Bytes of a payload that are laid out; a longer one is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Failures with one cause.

    daily  how many began on each of the last DAYS days, today last
    """

    fingerprint: str
    title: str
    kind: str
    direction: str
    entity: str
    stage: str
    reason: str
    field: str | None
    detail: str
    meaning: str
    advice: str
    count: int
    first_at: datetime
    last_at: datetime
    daily: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A replay this failure is or was part of."""

    replay_id: int
    state: str
    detail: str | None
    at: datetime | None
    new_failure_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """One failure with all details.

    payload    the record as received, parsed if it is JSON, else as text
    is_cut     the payload is longer than what is shown
    task_id    the failed Celery task, for Flower
    earlier    failures of the same record, batch or task, newest first, without this one
    """

    failure: Failure
    title: str
    meaning: str
    advice: str
    payload: Any
    payload_bytes: int
    is_cut: bool
    task_id: str | None
    batch: Mapping[str, Any] | None
    verdict: ReplayPreview
    earlier: Sequence[Failure]
    replays: Sequence[Attempt]
    is_editable: bool


def find_failure(session: Session, connector_key: int, failure_id: int) -> Failure | None:
    """The connector's failure of that id."""
    found = session.get(Failure, failure_id)
    return found if found is not None and found.connector_key == connector_key else None


def groups_of(session: Session, chosen: FailureFilter, *, limit: int = 100) -> list[Group]:
    """The causes, those first that hold most failures."""
    found = failure_filter.group_failures(session, chosen, limit=limit)
    daily = failure_filter.failed_by_day(session, chosen, DAYS)
    return [
        Group(
            fingerprint=each.fingerprint,
            title=title_of(each.sample),
            kind=each.sample.kind,
            direction=each.sample.direction,
            entity=each.sample.entity,
            stage=each.sample.stage,
            reason=each.sample.reason,
            field=each.sample.field,
            detail=each.sample.detail,
            meaning=meaning_of(each.sample.reason),
            advice=advice_of(each.sample.reason),
            count=each.count,
            first_at=each.first_at,
            last_at=each.last_at,
            daily=tuple(daily.get(each.fingerprint, [0] * DAYS)),
        )
        for each in found
    ]


def whole(session: Session, failure: Failure) -> Whole:
    """Return all details of one failure, with the current preview of its replay."""
    body = rows.payload_of(failure)
    batch = session.get(Batch, failure.batch_id) if failure.batch_id is not None else None
    return Whole(
        failure=failure,
        title=title_of(failure),
        meaning=meaning_of(failure.reason),
        advice=advice_of(failure.reason),
        payload=readable(body),
        payload_bytes=len(body or b""),
        is_cut=len(body or b"") > LONGEST_READ,
        task_id=failure.task_id or (batch.task_id if batch is not None else None),
        batch=None if batch is None else {"id": batch.id, "state": batch.state, "stage": batch.stage},
        verdict=verdict_of(session, failure),
        earlier=[each for each in failure_filter.same_subject(session, failure) if each.id != failure.id],
        replays=attempts_of(session, failure),
        is_editable=is_editable(failure),
    )


def is_editable(failure: Failure) -> bool:
    """Whether a corrected payload may be sent: an incoming record is corrected in Pipedrive, from where it is read again."""
    return failure.kind == "record" and failure.direction == "outgoing" and failure.state == "open"


def title_of(failure: Failure) -> str:
    """What failed, as `User 5bd3…`, `Person 17`, `label_ids of Person 17`, `batch 12`, `resolve_hull_ids`."""
    if failure.kind == "control":
        return failure.stage
    if failure.kind == "batch":
        return f"batch {failure.batch_id}"
    entity = Entity(failure.entity)
    name = entity.value if failure.direction == "incoming" else entity.hull
    of = f"{failure.field} of " if failure.kind == "field" else ""
    return f"{of}{name.capitalize()} {failure.record_id or 'without an id'}"


def readable(body: bytes | None) -> Any:
    """Return a payload for display: parsed if it is JSON and not nested too deeply, else as text."""
    if body is None:
        return None
    try:
        return read_lenient(body) if len(body) <= LONGEST_READ else body[:LONGEST_READ].decode("utf-8", "replace")
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def attempts_of(session: Session, failure: Failure) -> list[Attempt]:
    """The replays in which a failure is or was, newest first."""
    return [
        Attempt(
            replay_id=item.replay_id,
            state=item.state,
            detail=item.detail,
            at=item.settled_at or item.sent_at,
            new_failure_id=item.new_failure_id,
        )
        for item in replay_rows.items_for(session, [failure.id])
    ]
