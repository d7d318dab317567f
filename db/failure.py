"""Failures, stored with their payload until a person has replayed or discarded them, and the number of open ones.

Open failures are not counted by reading them: triggers on the table write rows that add up. Each statement that opens,
updates or closes failures adds a row for each kind with a changed number, in its own transaction. So the sum is exact for
every reader, and writers never wait for each other. A tick merges rows of one kind into one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson
import zstandard
from sqlalchemy import BigInteger, Index, Integer, LargeBinary, SmallInteger, func, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, Created, RowId
from db.statement import Statement, texts

_OF_ENTITY: Final = ("connector_key", "direction", "entity")


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
        Index("ix_failures_closed", "updated_at", postgresql_where=text("state <> 'open'")),
        Index("ix_failures_batches", *_OF_ENTITY, postgresql_where=text("state = 'open' AND kind = 'batch'")),
        Index(
            "ix_failures_record",
            *_OF_ENTITY,
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


OF_RECORDS: Final = ("record", "field")
"""Kinds of failures that are about one record: a replay synchronizes the record again."""


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


_TYPES: Final = {
    name: Failure.__table__.c[name].type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]
    for name in (*NewFailure.__slots__, "fingerprint")
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


def find_kept_in_run(
    session: Session, connector_key: int, run_id: int | None, subjects: Sequence[str]
) -> set[tuple[str, str]]:
    """Return (subject, reason) of the open failures that this run has stored.

    A page may be read twice, by a walk and by the catch-up.
    """
    if run_id is None or not subjects:
        return set()
    scope = {"c": connector_key, "run_id": run_id, "subjects": texts(subjects)}
    return {(subject, reason) for subject, reason in _KEPT_IN_RUN.rows(session, scope)}


_KEPT_IN_RUN = Statement("""
    SELECT subject, reason FROM failures
     WHERE connector_key = :c AND run_id = :run_id AND state || '' = 'open' AND subject = ANY(CAST(:subjects AS text[]))""")
"""The state as an expression, so that only the index by subject fits: one by state would read every open failure."""


def _columns(failure: NewFailure) -> dict[str, Any]:
    row = {name: getattr(failure, name) for name in NewFailure.__slots__}
    row["fingerprint"] = failure.fingerprint
    if failure.payload is not None:
        row["payload"] = zstandard.ZstdCompressor(level=3).compress(failure.payload)
    if failure.exchange is not None:
        row["exchange"] = orjson.dumps(failure.exchange).decode()
    return row


def payload_of(failure: Failure) -> bytes | None:
    """Return the payload as received."""
    return None if failure.payload is None else zstandard.ZstdDecompressor().decompress(failure.payload)


class FailureCount(Base):
    """Failures that were opened or closed in one transaction.

    n  how many more of this kind are open since, or fewer; the sum of all rows of a kind is the number of open ones
    """

    __tablename__ = "failure_counts"

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str]
    direction: Mapped[str]
    entity: Mapped[str]
    reason: Mapped[str]
    n: Mapped[int]


_COUNT = text("""
    SELECT entity, reason, sum(n)::bigint AS n FROM failure_counts
     WHERE connector_key = :c GROUP BY entity, reason HAVING sum(n) > 0""")


def count_open(session: Session, connector_key: int) -> dict[tuple[str, str], int]:
    """Return (entity, reason) → the number of open failures."""
    return {(row.entity, row.reason): row.n for row in session.execute(_COUNT, {"c": connector_key})}


_MERGE_COUNTS = text("""
    WITH several AS MATERIALIZED (
             SELECT connector_key, kind, direction, entity, reason FROM failure_counts
              GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1 OR sum(n) = 0),
         merged AS (
             DELETE FROM failure_counts f USING several s
              WHERE (f.connector_key, f.kind, f.direction, f.entity, f.reason)
                  = (s.connector_key, s.kind, s.direction, s.entity, s.reason)
             RETURNING f.*)
    INSERT INTO failure_counts (connector_key, kind, direction, entity, reason, n)
    SELECT connector_key, kind, direction, entity, reason, sum(n) FROM merged GROUP BY 1, 2, 3, 4, 5 HAVING sum(n) <> 0""")
"""Of two concurrent merges, each moves the rows that it deletes itself."""


def merge_counts(session: Session) -> None:
    """Merge the rows of each kind into one; the sums stay as they are."""
    session.execute(_MERGE_COUNTS)
