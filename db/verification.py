"""Comparisons of Pipedrive, Hull and the id map: what they read, what a repair writes, and their results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import orjson
from sqlalchemy import Float, ForeignKey, Index, Integer, delete, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import id_mapping_writer
from db.base import Base, Created, RowId
from db.joining import store_hull_ids
from db.statement import bigints, texts
from pipeline.domain.deletions import DELETED_STATES
from pipeline.domain.drift import MappedRecord

FRESH_S = 60
"""Seconds after a delivery during which Hull's search may not return it."""

_MAPPED = text("""
    SELECT pipedrive_id, hull_id, state, digest, delivered,
           updated_at > now() - make_interval(secs => :fresh_s) AS is_fresh
      FROM id_mappings WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")


def mapped_ids(session: Session, connector_key: int, entity: str, ids: Collection[int]) -> dict[int, MappedRecord]:
    """Return Pipedrive id → its row in the id map."""
    rows = session.execute(_MAPPED, {"c": connector_key, "e": entity, "ids": bigints(ids), "fresh_s": FRESH_S})
    return {
        row.pipedrive_id: MappedRecord(
            pipedrive_id=row.pipedrive_id,
            hull_id=row.hull_id,
            state=row.state,
            digest=row.digest,
            delivered=frozenset(orjson.loads(row.delivered)) if row.delivered else frozenset(),
            is_fresh=row.is_fresh,
        )
        for row in rows
    }


_UNLISTED = text("""
    SELECT pipedrive_id FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id > :above AND pipedrive_id <= :to
       AND state <> 'shell' AND NOT state = ANY(CAST(:deleted AS text[]))
       AND NOT pipedrive_id = ANY(CAST(:ids AS bigint[]))""")


def unlisted_ids(
    session: Session, connector_key: int, entity: str, *, above: int, to: int, listed: Collection[int]
) -> list[int]:
    """Return the mapped ids of an interval that are not deleted and that Pipedrive did not list."""
    scope = {"c": connector_key, "e": entity, "above": above, "to": to, "deleted": texts(DELETED_STATES)}
    rows = session.scalars(_UNLISTED, {**scope, "ids": bigints(listed)}, execution_options={"yield_per": 5_000})
    return list(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """Pending and failed records, by Pipedrive id or Hull id.

    failed        record → reason code
    bodies        staged data of failed pages, with their reasons
    fetched_from  records that changed since then, in seconds since the epoch, may be in batches of a fetch; None without such
                  batches
    now_s         the time of the database, in seconds since the epoch
    """

    waiting: frozenset[str]
    failed: Mapping[str, str]
    bodies: Sequence[tuple[str, bytes]]
    deliveries: Sequence[bytes]
    fetched_from: float | None
    now_s: float


_WAITING = text("""
    SELECT record_id FROM changes ch
     WHERE connector_key = :c AND entity = :e AND record_id = ANY(CAST(:names AS text[]))
       AND NOT EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')""")

_FAILED = text("""
    SELECT f.record_id, f.reason FROM failures f
     WHERE f.connector_key = :c AND f.entity = :e AND f.state = 'open' AND f.record_id = ANY(CAST(:names AS text[]))
    UNION ALL
    SELECT ch.record_id, f.reason FROM changes ch
      JOIN batches b ON b.id = ch.batch_id AND b.state = 'failed'
      JOIN failures f ON f.batch_id = b.id AND f.state = 'open'
     WHERE ch.connector_key = :c AND ch.entity = :e AND ch.record_id = ANY(CAST(:names AS text[]))""")

_FAILED_PAGES = text("""
    SELECT f.reason, b.extracted FROM failures f
     CROSS JOIN LATERAL (SELECT extracted FROM batches o
                          WHERE o.id = f.batch_id AND o.state = 'failed' AND o.extracted IS NOT NULL LIMIT 1) b
     WHERE f.connector_key = :c AND f.direction = 'incoming' AND f.entity = :e AND f.state = 'open' AND f.kind = 'batch'
     LIMIT 100""")

_DELIVERIES = text("""
    SELECT body FROM deliveries WHERE connector_key = :c AND state = 'new' AND source = 'pipedrive'
     ORDER BY id LIMIT 2000""")

_FETCHING = text("""
    SELECT extract(epoch FROM now())::float8 AS now_s,
           (SELECT min(CASE r.kind WHEN 'incremental' THEN extract(epoch FROM r.since)::float8 ELSE 0 END)
              FROM batches b JOIN runs r ON r.id = b.run_id
             WHERE b.connector_key = :c AND b.entity = :e AND b.direction = 'incoming'
               AND b.state IN ('waiting', 'ready', 'running')) AS fetched_from""")


def find_in_flight(session: Session, connector_key: int, entity: str, names: Collection[str]) -> InFlight:
    """Return which records are pending or failed; `names` are Pipedrive ids and Hull ids."""
    scope = {"c": connector_key, "e": entity, "names": texts(names)}
    clock = session.execute(_FETCHING, scope).one()
    return InFlight(
        waiting=frozenset(session.scalars(_WAITING, scope)),
        failed={row.record_id: row.reason for row in session.execute(_FAILED, scope)},
        bodies=[(row.reason, bytes(row.extracted)) for row in session.execute(_FAILED_PAGES, scope)],
        deliveries=[bytes(body) for body in session.scalars(_DELIVERIES, scope)],
        fetched_from=clock.fetched_from,
        now_s=clock.now_s,
    )


_SAMPLE = text("""
    SELECT pipedrive_id FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id IS NOT NULL ORDER BY random() LIMIT :count""")


def sample_mapped(session: Session, connector_key: int, entity: str, count: int) -> list[int]:
    """Return random Pipedrive ids of the id map; reads the whole index of the entity."""
    return list(session.scalars(_SAMPLE, {"c": connector_key, "e": entity, "count": count}))


def correct_hull_ids(
    session: Session, connector_key: int, entity: str, right: Mapping[int, str], unknown: Collection[int]
) -> None:
    """Replace stored Hull ids by those that Hull returned; `unknown` ones are queried again.

    All are deleted first, because two swapped ids would block each other.
    """
    id_mapping_writer.forget_hull_ids(session, connector_key, entity, {*right, *unknown})
    store_hull_ids(session, connector_key, entity, dict(right))


KEPT: Final = timedelta(days=90)


class Verification(Base):
    """One comparison of Pipedrive, Hull and the id map.

    sample  number of compared records of each entity; null if all were compared
    counts  entity → numbers of records that were compared, differ, are pending and have failed
    named   the ids of the first records that differ
    """

    __tablename__ = "verifications"
    __table_args__ = (Index("ix_verifications_latest", "connector_key", "id"),)

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    requested_by: Mapped[str]
    sample: Mapped[int | None] = mapped_column(Integer)
    drift: Mapped[int] = mapped_column(Integer)
    took_s: Mapped[float] = mapped_column(Float)
    tokens: Mapped[int] = mapped_column(Integer)
    counts: Mapped[dict[str, Any]]
    named: Mapped[list[Any]]
    finished_at: Mapped[Created]


def last_verification(session: Session, connector_key: int) -> Verification | None:
    """Return the newest comparison of a connector."""
    mine = select(Verification).filter_by(connector_key=connector_key)
    return session.scalars(mine.order_by(Verification.id.desc()).limit(1)).one_or_none()


def drop_old_verifications(session: Session) -> None:
    """Delete comparisons past their retention."""
    session.execute(delete(Verification).where(Verification.finished_at < func.now() - KEPT))
