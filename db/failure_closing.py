"""Close failures: by a person, or because what failed has come through since, was read again, or holds nothing any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import func, text, update
from sqlalchemy.orm import Session

from db import change_writer
from db.failure import Failure
from db.statement import Statement, bigints, texts

_NOTHING: Final[Mapping[str, str]] = {}


def close_failure(session: Session, failure_id: int, state: str, *, by: str, why: str) -> bool:
    """Close an open failure; return False if it was already closed."""
    return bool(close_all(session, [failure_id], state, by=by, why=why))


def close_all(session: Session, ids: Sequence[int], state: str, *, by: str, why: str) -> list[int]:
    """Take open failures off the list; returns those that were still open."""
    query = text("""
        UPDATE failures SET state = :state, closed_by = :by, closed_why = :why, updated_at = now()
         WHERE id = ANY(:ids) AND state = 'open' RETURNING id""")
    return sorted(session.scalars(query, {"ids": list(ids), "state": state, "by": by, "why": why}))


def close_recovered(
    session: Session,
    connector_key: int,
    direction: str,
    entity: str,
    record_ids: Sequence[str],
    *,
    unless: Mapping[str, str] = _NOTHING,
) -> None:
    """Close the open failures of records that have come through since; those of their fields are left to `close_fields`.

    unless  record → the reason of a failure that stays open
    """
    if record_ids:
        found = _open_of_records(session, connector_key, direction, entity, record_ids)
        _close(
            session, [each.id for each in found if each.kind != "field" and unless.get(each.record_id) != each.reason]
        )


def close_fields(
    session: Session,
    connector_key: int,
    direction: str,
    entity: str,
    record_ids: Sequence[str],
    *,
    refused: Collection[tuple[str, str]],
) -> None:
    """Close the rejected fields of synchronized records, except for the (record, field) that were rejected again."""
    if record_ids:
        found = _open_of_records(session, connector_key, direction, entity, record_ids)
        again = set(refused)
        _close(
            session, [each.id for each in found if each.kind == "field" and (each.record_id, each.field) not in again]
        )


def close_subject(session: Session, connector_key: int, subject: str) -> None:
    """Close the open failure of a batch or a control task that has done its work since."""
    mine = update(Failure).filter_by(connector_key=connector_key, subject=subject).where(_IS_OPEN)
    session.execute(
        mine.values(state="replayed", closed_by="pipeline", closed_why="came through later", updated_at=func.now())
    )


def close_reread(
    session: Session,
    connector_key: int,
    entity: str,
    *,
    run_id: int,
    kind: str,
    began_at: datetime,
    since: datetime | None,
) -> None:
    """Close failures of batches with records that this completed run has read again, and cancel the batches.

    A full fetch reads every record; an incremental one reads what an earlier, stopped one from a later moment did not read.
    """
    scope = {"c": connector_key, "e": entity, "kind": kind, "began_at": began_at, "since": since}
    closed = session.scalars(_CLOSE_MADE_GOOD, {**scope, "why": f"run {run_id} has read its records again"})
    change_writer.delete_changes_of(session, closed.all())


def close_emptied(session: Session, connector_key: int, entity: str) -> None:
    """Close failures of outgoing batches that hold no change any more, and cancel the batches."""
    session.execute(_CLOSE_EMPTY, {"c": connector_key, "e": entity})


def close_control(session: Session, connector_key: int, reasons: Collection[str]) -> None:
    """Close the open failures of control tasks with a fixed cause: their ticks run them again."""
    mine = update(Failure).filter_by(connector_key=connector_key, kind="control", state="open")
    session.execute(
        mine.where(Failure.reason.in_(reasons)).values(
            state="replayed", closed_by="pipeline", closed_why="new credentials", updated_at=func.now()
        )
    )


_IS_OPEN = (Failure.state + "") == "open"
"""As an expression, so that only the index by subject fits: one by state would read every open failure of the connector."""


_FEW: Final = 100


_FIRST_OPEN = Statement("""
    SELECT id, record_id, kind, reason, field FROM failures
     WHERE connector_key = :c AND direction = :d AND entity = :e AND record_id IS NOT NULL AND state = 'open'
     ORDER BY record_id LIMIT :few""")


_OPEN_OF_RECORDS = Statement("""
    WITH wanted AS MATERIALIZED (SELECT DISTINCT id FROM unnest(CAST(:ids AS text[])) AS t(id))
    SELECT f.* FROM wanted w
     CROSS JOIN LATERAL (SELECT id, record_id, kind, reason, field FROM failures
                          WHERE connector_key = :c AND direction = :d AND entity = :e AND record_id = w.id
                            AND state = 'open' OFFSET 0) f""")
"""By the index of records, id by id, whatever the statistics: it may have as many open failures as there are records."""


class _Open(NamedTuple):
    id: int
    record_id: str
    kind: str
    reason: str
    field: str | None


def _open_of_records(
    session: Session, connector_key: int, direction: str, entity: str, record_ids: Collection[str]
) -> list[_Open]:
    """Return the open failures of these records and of their fields.

    Mostly the entity has none, or fewer than `_FEW`: a short statement returns them. Only if it has more, the ids
    are looked up.
    """
    scope = {"c": connector_key, "d": direction, "e": entity}
    found = _FIRST_OPEN.rows(session, {**scope, "few": _FEW})
    if len(found) == _FEW:
        found = _OPEN_OF_RECORDS.rows(session, {**scope, "ids": texts(record_ids)})
    wanted = set(record_ids) if found else ()
    return [each for each in map(_Open._make, found) if each.record_id in wanted]


_CLOSE = Statement("""
    UPDATE failures SET state = 'replayed', closed_by = 'pipeline', closed_why = 'came through later', updated_at = now()
     WHERE id = ANY(CAST(:ids AS bigint[])) AND state || '' = 'open'""")
"""The state as an expression for the same reason as `_IS_OPEN`."""


def _close(session: Session, ids: list[int]) -> None:
    if ids:
        _CLOSE.run(session, {"ids": bigints(sorted(ids))})


_CLOSE_MADE_GOOD = text("""
    WITH overtaken AS MATERIALIZED (
        SELECT f.id, f.batch_id
          FROM failures f JOIN batches b ON b.id = f.batch_id LEFT JOIN runs r ON r.id = b.run_id
         WHERE f.connector_key = :c AND f.state = 'open' AND f.kind = 'batch' AND f.direction = 'incoming' AND f.entity = :e
           AND f.updated_at < :began_at AND b.state = 'failed'
           AND (:kind = 'full' OR r.kind = :kind AND b.stage = 'extract' AND r.since >= :since)),
    ended AS (
        UPDATE batches SET state = 'cancelled', extracted = NULL, transformed = NULL
         WHERE id IN (SELECT batch_id FROM overtaken))
    UPDATE failures SET state = 'replayed', closed_by = 'pipeline', closed_why = :why, updated_at = now()
     WHERE id IN (SELECT id FROM overtaken)
    RETURNING batch_id""")


_CLOSE_EMPTY = text("""
    WITH emptied AS MATERIALIZED (
        SELECT f.id, f.batch_id FROM failures f JOIN batches b ON b.id = f.batch_id
         WHERE f.connector_key = :c AND f.state = 'open' AND f.kind = 'batch' AND f.direction = 'outgoing' AND f.entity = :e
           AND b.state = 'failed' AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.batch_id = b.id)),
    ended AS (
        UPDATE batches SET state = 'cancelled', extracted = NULL, transformed = NULL
         WHERE id IN (SELECT batch_id FROM emptied))
    UPDATE failures SET state = 'replayed', closed_by = 'pipeline', updated_at = now(),
           closed_why = 'newer reports of all its records were sent'
     WHERE id IN (SELECT id FROM emptied)""")
