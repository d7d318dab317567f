"""Close failures: for a person, or because a later attempt succeeded. Delete them after their retention."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import change_writer
from db.statement import Statement, bigints, texts

RETENTION_DAYS: Final = 90
"""Of closed failures: as long as the replays that list them."""
_NOTHING: Final[Mapping[str, str]] = {}
_REPLAYED: Final = "state = 'replayed', closed_by = 'pipeline', updated_at = now(), closed_why ="


def close_failure(session: Session, failure_id: int, state: str, *, by: str, why: str) -> bool:
    """Close an open failure; return False if it was already closed."""
    return bool(close_all(session, [failure_id], state, by=by, why=why))


def close_all(session: Session, ids: Sequence[int], state: str, *, by: str, why: str) -> list[int]:
    """Close open failures. Return the ids of those that were still open."""
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
    """Close the open failures of synchronized records, except those of their fields: see `close_fields`.

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
    """Close the failures of fields of synchronized records, except for each (record, field) that was rejected again."""
    if record_ids:
        again = set(refused)
        found = _open_of_records(session, connector_key, direction, entity, record_ids)
        _close(
            session, [each.id for each in found if each.kind == "field" and (each.record_id, each.field) not in again]
        )


_CLOSE_SUBJECT = text(f"""
    UPDATE failures SET {_REPLAYED} 'came through later'
     WHERE connector_key = :c AND subject = :subject AND state || '' = 'open'""")  # noqa: S608 - a constant of ours
"""The state as an expression, so that only the index by subject fits: one by state would read every open failure."""


def close_subject(session: Session, connector_key: int, subject: str) -> None:
    """Close the open failure of a batch or a control task that succeeded since."""
    session.execute(_CLOSE_SUBJECT, {"c": connector_key, "subject": subject})


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
    """Close the failures of incoming batches with records that this completed run has read again, and cancel the batches.

    A full fetch reads every record. An incremental one reads what an earlier run, which began at a later moment and stopped, did
    not read.
    """
    scope = {"c": connector_key, "e": entity, "kind": kind, "began_at": began_at, "since": since}
    closed = session.scalars(_CLOSE_REREAD, {**scope, "why": f"run {run_id} has read its records again"})
    change_writer.delete_changes_of(session, closed.all())


def close_emptied(session: Session, connector_key: int, entity: str) -> None:
    """Close the failures of outgoing batches without a change, and cancel the batches."""
    session.execute(_CLOSE_EMPTY, {"c": connector_key, "e": entity})


def close_control(session: Session, connector_key: int, reasons: Collection[str]) -> None:
    """Close the open failures of control tasks for these reasons, which new credentials resolve: the next tick runs them."""
    session.execute(_CLOSE_CONTROL, {"c": connector_key, "reasons": texts(reasons)})


_CLOSE_CONTROL = text(f"""
    UPDATE failures SET {_REPLAYED} 'new credentials'
     WHERE connector_key = :c AND kind = 'control' AND state = 'open' AND reason = ANY(CAST(:reasons AS text[]))""")  # noqa: S608


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

    Most entities have none, or fewer than `_FEW`: one short statement returns them all. Ids are looked up only if there are more.
    """
    scope = {"c": connector_key, "d": direction, "e": entity}
    found = _FIRST_OPEN.rows(session, {**scope, "few": _FEW})
    if len(found) == _FEW:
        found = _OPEN_OF_RECORDS.rows(session, {**scope, "ids": texts(record_ids)})
    wanted = set(record_ids) if found else ()
    return [each for each in map(_Open._make, found) if each.record_id in wanted]


_CLOSE = Statement(f"""
    UPDATE failures SET {_REPLAYED} 'came through later'
     WHERE id = ANY(CAST(:ids AS bigint[])) AND state || '' = 'open'""")  # noqa: S608 - a constant of ours
"""The state as an expression, as in `_CLOSE_SUBJECT`."""


def _close(session: Session, ids: list[int]) -> None:
    if ids:
        _CLOSE.run(session, {"ids": bigints(sorted(ids))})


_CANCEL: Final = """UPDATE batches SET state = 'cancelled', extracted = NULL, transformed = NULL"""

_CLOSE_REREAD = text(f"""
    WITH reread AS MATERIALIZED (
        SELECT f.id, f.batch_id
          FROM failures f JOIN batches b ON b.id = f.batch_id LEFT JOIN runs r ON r.id = b.run_id
         WHERE f.connector_key = :c AND f.state = 'open' AND f.kind = 'batch' AND f.direction = 'incoming' AND f.entity = :e
           AND f.updated_at < :began_at AND b.state = 'failed'
           AND (:kind = 'full' OR r.kind = :kind AND b.stage = 'extract' AND r.since >= :since)),
    cancelled AS ({_CANCEL} WHERE id IN (SELECT batch_id FROM reread))
    UPDATE failures SET {_REPLAYED} :why WHERE id IN (SELECT id FROM reread)
    RETURNING batch_id""")  # noqa: S608 - put together from constants

_CLOSE_EMPTY = text(f"""
    WITH emptied AS MATERIALIZED (
        SELECT f.id, f.batch_id FROM failures f JOIN batches b ON b.id = f.batch_id
         WHERE f.connector_key = :c AND f.state = 'open' AND f.kind = 'batch' AND f.direction = 'outgoing' AND f.entity = :e
           AND b.state = 'failed' AND NOT EXISTS (SELECT 1 FROM changes ch WHERE ch.batch_id = b.id)),
    cancelled AS ({_CANCEL} WHERE id IN (SELECT batch_id FROM emptied))
    UPDATE failures SET {_REPLAYED} 'newer reports of all its records were sent'
     WHERE id IN (SELECT id FROM emptied)""")  # noqa: S608 - put together from constants

_DELETE_OLD = text("""
    WITH old AS MATERIALIZED (
        SELECT id FROM failures f WHERE state <> 'open' AND updated_at < now() - make_interval(days => :days)
           AND NOT (kind = 'batch' AND state = 'discarded' AND direction = 'incoming' AND EXISTS (
               SELECT 1 FROM batches b LEFT JOIN watermarks w ON w.connector_key = b.connector_key AND w.entity = b.entity
                WHERE b.id = f.batch_id AND b.state = 'failed'
                  AND b.created_at >= coalesce(w.fully_read_at, '-infinity')))
         ORDER BY updated_at LIMIT :limit)
    DELETE FROM failures WHERE id = ANY(ARRAY(SELECT id FROM old))
    RETURNING CASE WHEN kind = 'batch' AND state = 'discarded' THEN batch_id END""")

_CANCEL_DISCARDED = text(f"""
    {_CANCEL}
     WHERE id = ANY(CAST(:ids AS bigint[])) AND state = 'failed'
       AND NOT EXISTS (SELECT 1 FROM failures f
                        WHERE f.connector_key = batches.connector_key AND f.subject = 'batch:' || batches.id
                          AND f.state || '' = 'open')
    RETURNING id""")  # noqa: S608 - a constant of ours


def drop_old_failures(session: Session, limit: int) -> int:
    """Delete at most `limit` failures that were closed long ago; return how many.

    Cancel failed batches with a discarded failure, and delete their changes and what they staged. An incoming one and its
    failure stay until a full fetch that began later has ended: until then look-ups know its records only from what it staged.
    The audit log keeps who closed a failure, and why.
    """
    deleted = session.scalars(_DELETE_OLD, {"days": RETENTION_DAYS, "limit": limit}).all()
    if discarded := [batch_id for batch_id in deleted if batch_id is not None]:
        cancelled = session.scalars(_CANCEL_DISCARDED, {"ids": bigints(discarded)}).all()
        change_writer.delete_changes_of(session, cancelled)
    return len(deleted)
