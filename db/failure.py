"""Failures, stored with their payload until a person has replayed or discarded them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

import orjson
import zstandard
from sqlalchemy import (
    BigInteger,
    CursorResult,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    func,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.orm import Mapped, Session, defer, mapped_column

from db import change_writer
from db.base import Base, Created, RowId
from db.copy import bigints, texts
from db.statement import Statement


class Failure(Base):
    """A failed record, batch stage or control task, or one field that was left out of a synchronized record.

    subject      what failed, unique among open failures: `incoming:person:17`, `incoming:person:17:label_ids`, `batch:12`,
                 `control:resolve`
    fingerprint  equal for failures with the same cause
    payload      the record as received, zstd
    """

    __tablename__ = "failures"
    __table_args__ = (
        Index("uq_failures_open", "connector_key", "subject", unique=True, postgresql_where=text("state = 'open'")),
        Index("ix_failures_latest", "connector_key", "state", "id"),
        Index("ix_failures_subject", "connector_key", "subject", "id"),
        Index("ix_failures_groups", "connector_key", "state", "fingerprint", "id"),
        Index(
            "ix_failures_batches",
            "connector_key",
            "direction",
            "entity",
            postgresql_where=text("state = 'open' AND kind = 'batch'"),
        ),
        Index(
            "ix_failures_record",
            "connector_key",
            "direction",
            "entity",
            "record_id",
            postgresql_where=text("state = 'open' AND record_id IS NOT NULL"),
        ),
    )

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    """`record`, `field`, `batch` or `control`."""
    subject: Mapped[str]
    direction: Mapped[str]
    entity: Mapped[str]
    record_id: Mapped[str | None]
    batch_id: Mapped[int | None] = mapped_column(BigInteger)
    run_id: Mapped[int | None] = mapped_column(BigInteger)
    stage: Mapped[str]
    reason: Mapped[str]
    detail: Mapped[str]
    field: Mapped[str | None]
    fingerprint: Mapped[str]
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    traceback: Mapped[str | None]
    exchange: Mapped[dict[str, Any] | None]
    task_id: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default="1")
    state: Mapped[str] = mapped_column(server_default="open")
    """`open`, `replayed`, `discarded`."""
    closed_by: Mapped[str | None]
    closed_why: Mapped[str | None]
    settings_version: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[Created]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


RETENTION_DAYS: Final = 90
"""Of closed failures: as long as the replays that list them."""
OF_RECORDS: Final = ("record", "field")
"""Kinds of failures that are about one record, and are replayed by carrying it over again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFailure:
    """The data of a new failure; see `Failure`."""

    connector_key: int
    kind: str
    subject: str
    direction: str
    entity: str
    stage: str
    reason: str
    detail: str
    record_id: str | None = None
    batch_id: int | None = None
    run_id: int | None = None
    field: str | None = None
    payload: bytes | None = None
    traceback: str | None = None
    exchange: dict[str, Any] | None = None
    task_id: str | None = None
    attempts: int = 1
    settings_version: int | None = None

    @property
    def fingerprint(self) -> str:
        cause = f"{self.kind}:{self.direction}:{self.entity}:{self.stage}:{self.reason}:{self.field or ''}"
        return hashlib.blake2b(cause.encode(), digest_size=8).hexdigest()


def record_subject(direction: str, entity: str, record_id: str) -> str:
    return f"{direction}:{entity}:{record_id}"


def field_subject(direction: str, entity: str, record_id: str, field: str) -> str:
    return f"{record_subject(direction, entity, record_id)}:{field}"


def batch_subject(batch_id: int) -> str:
    return f"batch:{batch_id}"


def control_subject(task: str) -> str:
    return f"control:{task}"


_TEXTS: Final = (
    *(
        "kind",
        "subject",
        "direction",
        "entity",
        "stage",
        "reason",
        "detail",
        "record_id",
        "field",
        "traceback",
        "task_id",
    ),
    "fingerprint",
)
_TYPES: Final = dict.fromkeys(_TEXTS, "text") | {
    "connector_key": "integer",
    "batch_id": "bigint",
    "run_id": "bigint",
    "payload": "bytea",
    "exchange": "jsonb",
    "attempts": "smallint",
    "settings_version": "integer",
}
"""Column → its type in PostgreSQL."""

_KEEP = Statement(f"""
    INSERT INTO failures AS f ({", ".join(_TYPES)})
    SELECT {", ".join(_TYPES)}
      FROM unnest({", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _TYPES.items())}) AS w({", ".join(_TYPES)})
     ORDER BY connector_key, subject
        ON CONFLICT (connector_key, subject) WHERE state = 'open' DO UPDATE SET
           {", ".join(f"{name} = excluded.{name}" for name in _TYPES if name != "attempts")},
           attempts = f.attempts + excluded.attempts, updated_at = now()""")  # noqa: S608 - put together from constants


def keep_failures(session: Session, failures: Sequence[NewFailure]) -> None:
    """Store failures, in one statement. An open failure of the same subject is updated."""
    kept: dict[tuple[int, str], NewFailure] = {}
    for failure in failures:
        subject = failure.connector_key, failure.subject
        before = kept[subject].attempts if subject in kept else 0
        kept[subject] = replace(failure, attempts=before + failure.attempts)
    if kept:
        rows = [_columns(failure) for failure in kept.values()]
        _KEEP.run(session, {name: [row[name] for row in rows] for name in _TYPES})


_IS_OPEN = (Failure.state + "") == "open"
"""As an expression, so that only the index by subject fits: one by state would read every open failure of the connector."""


def told_in_run(
    session: Session, connector_key: int, run_id: int | None, subjects: Sequence[str]
) -> set[tuple[str, str]]:
    """(subject, reason) of what this run has kept already: a page may be read twice, by a walk and by the catch-up."""
    if run_id is None or not subjects:
        return set()
    scope = {"c": connector_key, "run_id": run_id, "subjects": texts(subjects)}
    return {(subject, reason) for subject, reason in _TOLD_IN_RUN.rows(session, scope)}


_TOLD_IN_RUN = Statement("""
    SELECT subject, reason FROM failures
     WHERE connector_key = :c AND run_id = :run_id AND state || '' = 'open' AND subject = ANY(CAST(:subjects AS text[]))""")
"""The state as an expression for the same reason as `_IS_OPEN`."""


def _columns(failure: NewFailure) -> dict[str, Any]:
    row = {name: getattr(failure, name) for name in NewFailure.__slots__}
    row["fingerprint"] = failure.fingerprint
    if failure.payload is not None:
        row["payload"] = zstandard.ZstdCompressor(level=3).compress(failure.payload)
    if failure.exchange is not None:
        row["exchange"] = orjson.dumps(failure.exchange).decode()
    return row


def payload_of(failure: Failure) -> bytes | None:
    """The payload as it came."""
    return None if failure.payload is None else zstandard.ZstdDecompressor().decompress(failure.payload)


def find_open(session: Session, connector_key: int, subject: str) -> Failure | None:
    """The open failure of this subject."""
    return session.scalar(select(Failure).filter_by(connector_key=connector_key, subject=subject, state="open"))


def count_new(session: Session, connector_key: int, hours: int) -> int:
    """Return the open failures of the last hours, without rejected fields of synchronized records."""
    mine = select(func.count(Failure.id)).filter_by(connector_key=connector_key, state="open")
    mine = mine.where(Failure.kind != "field")
    return session.scalar(mine.where(Failure.created_at > func.now() - func.make_interval(0, 0, 0, 0, hours))) or 0


def find_failures(
    session: Session,
    *,
    connector_key: int | None = None,
    ids: Sequence[int] = (),
    reason: str | None = None,
    entity: str | None = None,
    since: datetime | None = None,
    state: str | None = "open",
    limit: int | None = 100,
) -> list[Failure]:
    """Failures by filter, newest first."""
    query = select(Failure).order_by(Failure.id.desc())
    exact = {"connector_key": connector_key, "reason": reason, "entity": entity, "state": state}
    query = query.filter_by(**{name: value for name, value in exact.items() if value is not None})
    if ids:
        query = query.where(Failure.id.in_(ids))
    if since is not None:
        query = query.where(Failure.updated_at >= since)
    return list(session.scalars(query if limit is None else query.limit(limit)))


def open_of_record(
    session: Session, connector_key: int, entity: str, names: Mapping[str, str], *, limit: int = 100
) -> list[Failure]:
    """The open failures of one record and of its fields, newest first; `names` are direction → what the record is called there."""
    mine = select(Failure).filter_by(connector_key=connector_key, state="open", entity=entity)
    mine = mine.where(tuple_(Failure.direction, Failure.record_id).in_(names.items()), Failure.kind.in_(OF_RECORDS))
    return list(session.scalars(mine.order_by(Failure.id.desc()).limit(limit)))


def failures_of(
    session: Session, connector_key: int, *, run_id: int | None = None, batch_id: int | None = None, limit: int = 20
) -> list[Failure]:
    """Open failures of a run or of a batch, newest first, without what they hold."""
    query = select(Failure).filter_by(connector_key=connector_key, state="open")
    query = query.filter_by(run_id=run_id) if run_id is not None else query.filter_by(batch_id=batch_id)
    light = defer(Failure.payload), defer(Failure.traceback), defer(Failure.exchange)
    return list(session.scalars(query.options(*light).order_by(Failure.id.desc()).limit(limit)))


def close_failure(session: Session, failure_id: int, state: str, *, by: str, why: str) -> bool:
    """Close an open failure; return False if it was already closed."""
    closed = session.scalar(
        update(Failure)
        .where(Failure.id == failure_id, Failure.state == "open")
        .values(state=state, closed_by=by, closed_why=why, updated_at=func.now())
        .returning(Failure.id)
    )
    return closed is not None


_NOTHING: Final[Mapping[str, str]] = {}

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


def close_healed(
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


_COUNT_FIELDS = Statement("""
    SELECT count(DISTINCT record_id) FROM failures
     WHERE connector_key = :c AND state = 'open' AND kind = 'field' AND direction = :d AND entity = :e
       AND field = ANY(CAST(:fields AS text[]))""")


def count_fields(session: Session, connector_key: int, direction: str, entity: str, fields: Collection[str]) -> int:
    """Return how many records have one of these fields rejected."""
    scope = {"c": connector_key, "d": direction, "e": entity, "fields": texts(fields)}
    row = _COUNT_FIELDS.row(session, scope)
    return int(row[0]) if row else 0


def close_subject(session: Session, connector_key: int, subject: str) -> None:
    """Close the open failure of a batch or a control task that has done its work since."""
    mine = update(Failure).filter_by(connector_key=connector_key, subject=subject).where(_IS_OPEN)
    session.execute(
        mine.values(state="replayed", closed_by="pipeline", closed_why="came through later", updated_at=func.now())
    )


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


def close_made_good(
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


def count_open_up_to(session: Session, connector_key: int, most: int) -> int:
    """How many are open, counted no further than `most`: what every page shows must not read 200,000 rows."""
    some = select(Failure.id).filter_by(connector_key=connector_key, state="open").limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


_DROP_OLD = text("""
    DELETE FROM failures
     WHERE id = ANY(ARRAY(SELECT id FROM failures
                           WHERE state <> 'open' AND updated_at < now() - make_interval(days => :days) LIMIT :limit))""")


def drop_old_failures(session: Session, limit: int, keep_days: int = RETENTION_DAYS) -> int:
    """Delete at most `limit` failures that were closed long ago; returns how many. The audit log keeps who closed them, and why."""
    return cast("CursorResult[Any]", session.execute(_DROP_OLD, {"days": keep_days, "limit": limit})).rowcount
