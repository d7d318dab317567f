"""Snapshots: the last whole record that was read from one side, compressed.

Records of one company differ in their values only: keys, field codes of forty digits and punctuation are the same. These are stored
once for each connector and entity, as a compression dictionary. It halves the size of a snapshot and the time to compress it. The
dictionary has no values of records and never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import zstandard
from sqlalchemy import Integer, LargeBinary, Row, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base
from db.statement import bigints, byteas, texts
from pipeline.domain.json_text import read_lenient, write_lenient

LEVEL = -1
"""With the dictionary: 5 µs and 510 bytes for a record of 1.7 KB; level 1 without it took 13 µs and 1,010 bytes."""
SHAPED_BY = 50
"""Number of records from which a dictionary is made: enough to have each kind of value."""

Compress = Callable[[bytes], bytes]


class Snapshot(Base):
    __tablename__ = "snapshots"
    __table_args__ = ({"postgresql_with": {"fillfactor": "85"}},)

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    side: Mapped[str] = mapped_column(primary_key=True)
    """`pipedrive` or `hull`."""
    record_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)


class SnapshotShape(Base):
    """The compression dictionary of one connector's records of one entity."""

    __tablename__ = "snapshot_shapes"

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


_READ = text("""
    SELECT record_id, payload FROM snapshots
     WHERE connector_key = :c AND entity = :e AND side = :side AND record_id = ANY(CAST(:ids AS text[]))""")


def compressor(session: Session, connector_key: int, entity: str, sample: Iterable[bytes]) -> Compress:
    """Return the function that compresses snapshots of an entity; the first call makes the dictionary from `sample`."""
    shape = _find_shape(session, connector_key, entity)
    if shape is None:
        content = write_lenient(shape_of([read_lenient(body) for body in islice(sample, SHAPED_BY)]))
        row = insert(SnapshotShape).values(connector_key=connector_key, entity=entity, content=content)
        session.execute(row.on_conflict_do_nothing())
        shape = _find_shape(session, connector_key, entity)
    return zstandard.ZstdCompressor(level=LEVEL, dict_data=shape).compress


def read_snapshots(
    session: Session, connector_key: int, entity: str, side: str, record_ids: Sequence[str]
) -> dict[str, bytes]:
    """Return record id → the record as JSON."""
    rows = session.execute(_READ, {"c": connector_key, "e": entity, "side": side, "ids": texts(record_ids)}).all()
    return _unpacked(session, connector_key, entity, rows)


def _unpacked(session: Session, connector_key: int, entity: str, rows: Sequence[Row[Any]]) -> dict[str, bytes]:
    if not rows:
        return {}
    unpack = zstandard.ZstdDecompressor(dict_data=_find_shape(session, connector_key, entity)).decompress
    return {row.record_id: unpack(bytes(row.payload)) for row in rows}


_VERSIONS = text("""
    SELECT record_id, version FROM snapshots
     WHERE connector_key = :c AND entity = :e AND side = :side AND record_id = ANY(CAST(:ids AS text[]))""")


def versions_of(
    session: Session, connector_key: int, entity: str, side: str, record_ids: Sequence[str]
) -> dict[str, int]:
    """Return record id → version of its snapshot; of a report of Hull: when it was sent, in seconds since the epoch."""
    scope = {"c": connector_key, "e": entity, "side": side, "ids": texts(record_ids)}
    return {row.record_id: row.version for row in session.execute(_VERSIONS, scope)}


_KEEP_REPORTS = text("""
    INSERT INTO snapshots AS s (connector_key, entity, side, record_id, version, payload)
    SELECT :c, :e, 'hull', w.id, w.version, w.payload
      FROM unnest(CAST(:ids AS text[]), CAST(:versions AS bigint[]), CAST(:payloads AS bytea[])) AS w(id, version, payload)
     ORDER BY w.id
    ON CONFLICT (connector_key, entity, side, record_id) DO UPDATE
       SET version = excluded.version, payload = excluded.payload WHERE s.version <= excluded.version""")


def keep_reports(session: Session, connector_key: int, entity: str, reports: Mapping[str, tuple[int, bytes]]) -> None:
    """Store reports of Hull: Hull id → (its time in seconds since the epoch, the message as JSON)."""
    if not reports:
        return
    pack = zstandard.ZstdCompressor(level=LEVEL).compress
    scope = {
        "c": connector_key,
        "e": entity,
        "ids": texts(reports),
        "versions": bigints(version for version, _ in reports.values()),
        "payloads": byteas(pack(body) for _, body in reports.values()),
    }
    session.execute(_KEEP_REPORTS, scope)


_PAGE = """
    SELECT s.record_id, s.payload FROM snapshots s
     CROSS JOIN LATERAL (SELECT m.version, m.digest FROM id_mappings m
                          WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = s.record_id::bigint
                            AND m.state = 'full' LIMIT 1) m
     WHERE s.connector_key = :c AND s.entity = :e AND s.side = 'pipedrive' AND s.record_id > :after {more}
     ORDER BY s.record_id LIMIT :limit"""
"""LATERAL with a limit, as in `db.identifier`: with another join, new tables were read whole for every record."""
_AS_PLANNED = """
       AND (SELECT true FROM plan_items i
             WHERE i.plan_id = :plan AND i.direction = 'incoming' AND i.entity = :e AND i.record_id = s.record_id
               AND i.act <> 'moved' AND (i.version, i.digest) IS NOT DISTINCT FROM (m.version, m.digest) LIMIT 1)"""
_NOT_PLANNED = """
       AND (SELECT true FROM plan_items i
             WHERE i.plan_id = ANY(CAST(:line AS bigint[])) AND i.direction = 'incoming' AND i.entity = :e
               AND i.record_id = s.record_id AND i.act <> 'moved' LIMIT 1) IS NULL"""
_ALL_PAGE, _PLANNED_PAGE = text(_PAGE.format(more="")), text(_PAGE.format(more=_AS_PLANNED))
_LEFT_OUT_PAGE = text(_PAGE.format(more=_NOT_PLANNED))


def page_of_snapshots(
    session: Session,
    connector_key: int,
    entity: str,
    *,
    after: str | None,
    limit: int,
    planned_by: int | None = None,
    left_out_by: Sequence[int] = (),
) -> dict[str, bytes]:
    """Return record id → the record as JSON, for Pipedrive records after `after`, ordered by id as text.

    planned_by   only records of this plan that have not changed since
    left_out_by  only records that are in none of these plans, or that changed
    """
    scope: dict[str, Any] = {"c": connector_key, "e": entity, "after": after or "", "limit": limit}
    if planned_by is not None:
        rows = session.execute(_PLANNED_PAGE, {**scope, "plan": planned_by}).all()
    elif left_out_by:
        rows = session.execute(_LEFT_OUT_PAGE, {**scope, "line": bigints(left_out_by)}).all()
    else:
        rows = session.execute(_ALL_PAGE, scope).all()
    return _unpacked(session, connector_key, entity, rows)


def any_record(session: Session, connector_key: int, entity: str, side: str) -> str | None:
    """Return the id of any record with a snapshot of this side; None if no record was read yet."""
    query = select(Snapshot.record_id).filter_by(connector_key=connector_key, entity=entity, side=side)
    return session.scalar(query.order_by(Snapshot.record_id.desc()).limit(1))


_REPORTS = """
    SELECT s.record_id, s.version, s.payload FROM snapshots s
     WHERE s.connector_key = :c AND s.entity = :e AND s.side = 'hull' AND s.record_id > :after {more}
     ORDER BY s.record_id LIMIT :limit"""
_ALL_REPORTS = text(_REPORTS.format(more=""))
_LEFT_OUT_REPORTS = text(_REPORTS.format(more=_NOT_PLANNED.replace("'incoming'", "'outgoing'")))


def page_of_reports(
    session: Session, connector_key: int, entity: str, *, after: str, limit: int, left_out_by: Sequence[int] = ()
) -> dict[str, tuple[int, bytes]]:
    """Return Hull id → (version, last report as JSON), for Hull ids after `after`; `left_out_by` as above."""
    scope: dict[str, Any] = {"c": connector_key, "e": entity, "after": after, "limit": limit}
    found = _LEFT_OUT_REPORTS if left_out_by else _ALL_REPORTS
    rows = session.execute(found, {**scope, "line": bigints(left_out_by)} if left_out_by else scope).all()
    unpack = zstandard.ZstdDecompressor().decompress
    return {row.record_id: (row.version, unpack(bytes(row.payload))) for row in rows}


_COUNT = text("SELECT count(*) FROM snapshots WHERE connector_key = :c AND entity = :e AND side = :side")


def count_snapshots(session: Session, connector_key: int, entity: str, side: str) -> int:
    """Return the number of snapshots of one side."""
    return int(session.scalar(_COUNT, {"c": connector_key, "e": entity, "side": side}) or 0)


_WITHOUT_REPORT = text("""
    SELECT count(*) FROM id_mappings m
     WHERE m.connector_key = :c AND m.entity = :e AND m.state IN ('full', 'shell')
       AND (SELECT true FROM snapshots s
             WHERE s.connector_key = :c AND s.entity = :e AND s.side = 'hull' AND s.record_id = m.hull_id LIMIT 1) IS NULL""")
"""A look-up with a limit, for the same reason."""


def count_unreported(session: Session, connector_key: int, entity: str) -> int:
    """Return the number of known Pipedrive records with a User or Account that Hull never reported."""
    return int(session.scalar(_WITHOUT_REPORT, {"c": connector_key, "e": entity}) or 0)


def _find_shape(session: Session, connector_key: int, entity: str) -> zstandard.ZstdCompressionDict | None:
    query = select(SnapshotShape.content).filter_by(connector_key=connector_key, entity=entity)
    content = session.scalar(query)
    if content is None:
        return None
    return zstandard.ZstdCompressionDict(bytes(content), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def shape_of(sample: Sequence[Any]) -> Any:
    """Return one record with the keys of all records and empty values of the same types."""
    merged: dict[str, Any] = {}
    for record in sample:
        if isinstance(record, dict):
            _merge(merged, record)
    return merged


def _merge(into: dict[str, Any], record: dict[str, Any]) -> None:
    for key, value in record.items():
        known = into.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            _merge(known, value)
        elif not known:
            into[key] = _emptied(value)


def _emptied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _emptied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_emptied(value[0])] if value else []
    return {str: "", bool: False, int: 0, float: 0}.get(type(value))
