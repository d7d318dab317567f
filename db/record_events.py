"""The events of one record, newest first, those about one field, and what caused an event.

A record's events have its Pipedrive id; those of a User or Account before it was matched have only its Hull id. Each of
the two has an index, and the days to search are limited by the retention. An event's causes are its delivery, run and
batch, the settings in force and the record's match: each is looked up by its key; what is past its retention is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Text, and_, cast, func, literal, or_, select, union_all
from sqlalchemy.dialects.postgresql import BYTEA
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.elements import ColumnElement

from db.batch import Batch
from db.connector import SettingsVersion
from db.delivery import Delivery
from db.id_mapping import IdMapping
from db.run import Run
from db.sync_event import SyncEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordIds:
    """A record by its ids, at least one of which is known; `merged` are (entity, id) of merged records."""

    connector_key: int
    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    merged: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNames:
    """One field, by its names in events: `attribute` in deliveries to Hull, `key` in writes to Pipedrive.

    codes  its names in refusals
    """

    attribute: bytes | None
    keys: Sequence[bytes]
    codes: Sequence[str]


def record_events(
    session: Session,
    record: RecordIds,
    *,
    before_id: int | None = None,
    until: datetime | None = None,
    names: FieldNames | None = None,
    limit: int = 50,
) -> list[SyncEvent]:
    """Newest first."""
    queries = [
        _narrowed(each, before_id, until, names).order_by(SyncEvent.id.desc()).limit(limit)
        for each in _of_record(record)
    ]
    return _together(session, queries, newest_first=True, limit=limit)


def next_field_event(session: Session, record: RecordIds, *, after: datetime, names: FieldNames) -> SyncEvent | None:
    """Return the first event after a moment about a field: its `before` is the value at that moment."""
    queries = [
        _narrowed(each, None, None, names).where(SyncEvent.at > after).order_by(SyncEvent.id).limit(1)
        for each in _of_record(record)
    ]
    return next(iter(_together(session, queries, newest_first=False, limit=1)), None)


def latest_writes(session: Session, record: RecordIds, *, before_id: int, limit: int = 10) -> list[SyncEvent]:
    """The writes to Pipedrive before an event, newest first."""
    queries = [
        each.where(SyncEvent.event.like("outgoing.%.success"), SyncEvent.id < before_id)
        .order_by(SyncEvent.id.desc())
        .limit(limit)
        for each in _of_record(record)
    ]
    return _together(session, queries, newest_first=True, limit=limit)


def batch_events(session: Session, record: RecordIds, batch_id: int, limit: int = 20) -> list[SyncEvent]:
    """What a batch did to the record, in order."""
    queries = [
        each.where(SyncEvent.batch_id == batch_id).order_by(SyncEvent.id).limit(limit) for each in _of_record(record)
    ]
    return _together(session, queries, newest_first=False, limit=limit)


def _of_record(record: RecordIds) -> list[Select[SyncEvent]]:
    """One question for each index."""
    scope = select(SyncEvent).where(SyncEvent.connector_key == record.connector_key)
    queries = []
    ids = [(record.entity, record.pipedrive_id), *record.merged] if record.pipedrive_id is not None else []
    for entity, pipedrive_id in ids:
        queries.append(scope.where(SyncEvent.entity == entity, SyncEvent.pipedrive_id == pipedrive_id))
    if record.hull_id is not None:
        alone = and_(SyncEvent.pipedrive_id.is_(None), SyncEvent.hull_id.is_not(None))
        queries.append(scope.where(SyncEvent.entity == record.entity, SyncEvent.hull_id == record.hull_id, alone))
    return queries


def _narrowed(
    query: Select[SyncEvent], before_id: int | None, until: datetime | None, names: FieldNames | None
) -> Select[SyncEvent]:
    if before_id is not None:
        query = query.where(SyncEvent.id < before_id)
    if until is not None:
        query = query.where(SyncEvent.at <= until)
    return query if names is None else query.where(_is_about_field(names))


def _is_about_field(names: FieldNames) -> ColumnElement[bool]:
    """A rough filter: the caller reads the values themselves."""
    ways: list[ColumnElement[bool]] = []
    if names.attribute is not None:
        ways.append(and_(SyncEvent.event.like("incoming.%"), _holds(names.attribute)))
    if names.keys:
        ways.append(and_(SyncEvent.event.like("outgoing.%"), or_(*map(_holds, names.keys))))
    ways += [func.starts_with(cast(SyncEvent.detail, Text), f"{code}: ") for code in names.codes]
    return or_(*ways)


def _holds(needle: bytes) -> ColumnElement[bool]:
    return func.position(literal(needle, BYTEA).op("IN")(SyncEvent.after)) > 0


def _together(
    session: Session, queries: Sequence[Select[SyncEvent]], *, newest_first: bool, limit: int
) -> list[SyncEvent]:
    if not queries:
        return []
    found = aliased(SyncEvent, union_all(*(each.subquery().select() for each in queries)).subquery())
    order = found.id.desc() if newest_first else found.id
    return list(session.scalars(select(found).order_by(order).limit(limit)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """extract_call  the call with which the batch read its records."""

    received_at: datetime | None = None
    delivery_state: str | None = None
    run_kind: str | None = None
    run_cause: str | None = None
    started_at: datetime | None = None
    extract_call: dict[str, Any] | None = None


def origin_of(
    session: Session, connector_key: int, delivery_id: int | None, run_id: int | None, batch_id: int | None
) -> Origin:
    """The delivery or fetch with a record."""
    delivery = _row(session, connector_key, Delivery, delivery_id, Delivery.received_at, Delivery.state)
    run = _row(session, connector_key, Run, run_id, Run.kind, Run.cause, Run.started_at)
    batch = _row(session, connector_key, Batch, batch_id, Batch.extract_call)
    return Origin(
        received_at=delivery.received_at if delivery else None,
        delivery_state=delivery.state if delivery else None,
        run_kind=run.kind if run else None,
        run_cause=run.cause if run else None,
        started_at=run.started_at if run else None,
        extract_call=batch.extract_call if batch else None,
    )


def _row(session: Session, connector_key: int, table: Any, row_id: int | None, *columns: Any) -> Any:
    if row_id is None:
        return None
    return session.execute(select(*columns).where(table.id == row_id, table.connector_key == connector_key)).first()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFacts:
    read_back_id: int | None
    task_id: str | None
    records: int
    load_call: dict[str, Any] | None


def batch_of(session: Session, batch_id: int | None) -> BatchFacts | None:
    """What is known of a batch without what it carried."""
    if batch_id is None:
        return None
    columns = select(Batch.read_back_id, Batch.task_id, Batch.records, Batch.load_call)
    row = session.execute(columns.where(Batch.id == batch_id)).first()
    if row is None:
        return None
    return BatchFacts(read_back_id=row.read_back_id, task_id=row.task_id, records=row.records, load_call=row.load_call)


def settings_at(session: Session, connector_key: int, version: int | None, moment: datetime) -> SettingsVersion | None:
    """That version of the settings; where an event names none, the one that was in force."""
    query = select(SettingsVersion).filter_by(connector_key=connector_key)
    if version is not None:
        return session.scalar(query.filter_by(version=version))
    before = query.where(SettingsVersion.created_at <= moment)
    return session.scalar(before.order_by(SettingsVersion.version.desc()).limit(1))


def find_record_mapping(
    session: Session, connector_key: int, entity: str, pipedrive_id: int | None, hull_id: str | None
) -> IdMapping | None:
    """The id mapping of a record."""
    mine = select(IdMapping).filter_by(connector_key=connector_key, entity=entity)
    if pipedrive_id is not None:
        return session.scalar(mine.where(IdMapping.pipedrive_id == pipedrive_id))
    return session.scalar(mine.where(IdMapping.hull_id == hull_id)) if hull_id is not None else None
