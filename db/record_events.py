"""The events of one record or of one of its fields, and what caused an event.

Events of a record have its Pipedrive id; those of a User or Account that was not matched yet have only its Hull id. There is an
index for each of the two. The causes of an event are its delivery, run and batch, the settings in force and the id mapping of the
record: each is found by its key, and is missing after its retention.
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
    """A record by its ids: at least one is known. `merged` are (entity, Pipedrive id) of records that were merged into it."""

    connector_key: int
    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    merged: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNames:
    """One field by its names in events.

    attribute  in deliveries to Hull
    keys       in writes to Pipedrive
    codes      in events of a rejected field
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
    """Return the events of a record, newest first; with `names` those about one field."""
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
    """Return the writes to Pipedrive before an event, newest first."""
    queries = [
        each.where(SyncEvent.event.like("outgoing.%.success"), SyncEvent.id < before_id)
        .order_by(SyncEvent.id.desc())
        .limit(limit)
        for each in _of_record(record)
    ]
    return _together(session, queries, newest_first=True, limit=limit)


def batch_events(session: Session, record: RecordIds, batch_id: int, limit: int = 20) -> list[SyncEvent]:
    """Return the events of the record in one batch, oldest first."""
    queries = [
        each.where(SyncEvent.batch_id == batch_id).order_by(SyncEvent.id).limit(limit) for each in _of_record(record)
    ]
    return _together(session, queries, newest_first=False, limit=limit)


def _of_record(record: RecordIds) -> list[Select[SyncEvent]]:
    """Return one query for each index."""
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
    """Return a rough condition: the caller compares the values."""
    ways: list[ColumnElement[bool]] = []
    if names.attribute is not None:
        ways.append(and_(SyncEvent.event.like("incoming.%"), _holds(names.attribute)))
    if names.keys:
        ways.append(and_(SyncEvent.event.like("outgoing.%"), or_(*map(_holds, names.keys))))
    ways += [func.starts_with(cast(SyncEvent.detail, Text), f"{code}: ") for code in names.codes]
    ways += [SyncEvent.field.contains(code, autoescape=True) for code in names.codes]
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
    """What caused an event; `extract_call` is the call with which its batch read the record."""

    received_at: datetime | None = None
    delivery_state: str | None = None
    run_kind: str | None = None
    run_cause: str | None = None
    started_at: datetime | None = None
    extract_call: dict[str, Any] | None = None


def origin_of(
    session: Session, connector_key: int, delivery_id: int | None, run_id: int | None, batch_id: int | None
) -> Origin:
    """Return the delivery, run and batch of an event, as far as they are still stored."""
    delivery = select(Delivery.received_at, Delivery.state.label("delivery_state"))
    run = select(Run.kind.label("run_kind"), Run.cause.label("run_cause"), Run.started_at)
    rows = [
        session.execute(query.where(table.id == row_id, table.connector_key == connector_key)).one_or_none()
        for query, table, row_id in (
            (delivery, Delivery, delivery_id),
            (run, Run, run_id),
            (select(Batch.extract_call), Batch, batch_id),
        )
        if row_id is not None
    ]
    found: dict[str, Any] = {}
    for row in rows:
        found |= row._asdict() if row else {}
    return Origin(**found)


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """A batch without its staged data."""

    read_back_id: int | None
    task_id: str | None
    records: int
    load_call: dict[str, Any] | None


def batch_of(session: Session, batch_id: int | None) -> BatchFacts | None:
    """Return a batch without its staged data; None if it was deleted."""
    columns = select(Batch.read_back_id, Batch.task_id, Batch.records, Batch.load_call)
    row = None if batch_id is None else session.execute(columns.where(Batch.id == batch_id)).one_or_none()
    return None if row is None else BatchFacts(*row)


def settings_at(session: Session, connector_key: int, version: int | None, moment: datetime) -> SettingsVersion | None:
    """Return a version of the settings; without `version` the one that was in force at that moment."""
    query = select(SettingsVersion).filter_by(connector_key=connector_key)
    if version is not None:
        return session.scalar(query.filter_by(version=version))
    before = query.where(SettingsVersion.created_at <= moment)
    return session.scalar(before.order_by(SettingsVersion.version.desc()).limit(1))


def find_record_mapping(
    session: Session, connector_key: int, entity: str, pipedrive_id: int | None, hull_id: str | None
) -> IdMapping | None:
    """Return the id mapping of a record, by its Pipedrive id if that is known."""
    mine = select(IdMapping).filter_by(connector_key=connector_key, entity=entity)
    if pipedrive_id is not None:
        return session.scalar(mine.where(IdMapping.pipedrive_id == pipedrive_id))
    return session.scalar(mine.where(IdMapping.hull_id == hull_id)) if hull_id is not None else None
