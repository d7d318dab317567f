"""The causes of an event: its delivery, run and batch, the settings in force, and the record's match.

Each is looked up by its key; what is past its retention is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.batch import Batch
from db.connector import SettingsVersion
from db.delivery import Delivery
from db.id_mapping import IdMapping
from db.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """asked  the call with which the batch read its records."""

    received_at: datetime | None = None
    delivery_state: str | None = None
    run_kind: str | None = None
    run_cause: str | None = None
    started_at: datetime | None = None
    asked: dict[str, Any] | None = None


def origin_of(
    session: Session, connector_key: int, delivery_id: int | None, run_id: int | None, batch_id: int | None
) -> Origin:
    """The delivery or fetch with a record."""
    told = _row(session, connector_key, Delivery, delivery_id, Delivery.received_at, Delivery.state)
    run = _row(session, connector_key, Run, run_id, Run.kind, Run.cause, Run.started_at)
    batch = _row(session, connector_key, Batch, batch_id, Batch.asked)
    return Origin(
        received_at=told.received_at if told else None,
        delivery_state=told.state if told else None,
        run_kind=run.kind if run else None,
        run_cause=run.cause if run else None,
        started_at=run.started_at if run else None,
        asked=batch.asked if batch else None,
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
    told: dict[str, Any] | None


def batch_of(session: Session, batch_id: int | None) -> BatchFacts | None:
    """What is known of a batch without what it carried."""
    if batch_id is None:
        return None
    columns = select(Batch.read_back_id, Batch.task_id, Batch.records, Batch.told)
    row = session.execute(columns.where(Batch.id == batch_id)).first()
    if row is None:
        return None
    return BatchFacts(read_back_id=row.read_back_id, task_id=row.task_id, records=row.records, told=row.told)


def settings_at(session: Session, connector_key: int, version: int | None, moment: datetime) -> SettingsVersion | None:
    """That version of the settings; where an event names none, the one that was in force."""
    query = select(SettingsVersion).filter_by(connector_key=connector_key)
    if version is not None:
        return session.scalar(query.filter_by(version=version))
    before = query.where(SettingsVersion.created_at <= moment)
    return session.scalar(before.order_by(SettingsVersion.version.desc()).limit(1))


def joined(
    session: Session, connector_key: int, entity: str, pipedrive_id: int | None, hull_id: str | None
) -> IdMapping | None:
    """The id mapping of a record."""
    mine = select(IdMapping).filter_by(connector_key=connector_key, entity=entity)
    if pipedrive_id is not None:
        return session.scalar(mine.where(IdMapping.pipedrive_id == pipedrive_id))
    return session.scalar(mine.where(IdMapping.hull_id == hull_id)) if hull_id is not None else None
