"""Questions to the database that only people ask: how many, how old, since when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from db.delivery import Delivery
from db.id_mapping import IdMapping
from db.sync_event import SyncEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingCount:
    """How many id mappings of one entity are in one state, and how many of them know their Hull id."""

    entity: str
    state: str
    records: int
    with_hull_id: int

    @property
    def without_hull_id(self) -> int:
        return self.records - self.with_hull_id


def mapping_counts(session: Session, connector_key: int) -> list[MappingCount]:
    """The id map by entity and state."""
    query = (
        select(IdMapping.entity, IdMapping.state, func.count(), func.count(IdMapping.hull_id))
        .where(IdMapping.connector_key == connector_key)
        .group_by(IdMapping.entity, IdMapping.state)
        .order_by(IdMapping.entity, IdMapping.state)
    )
    return [
        MappingCount(entity=entity, state=state, records=records, with_hull_id=known)
        for entity, state, records, known in session.execute(query)
    ]


def last_delivery(session: Session, connector_key: int, source: str) -> datetime | None:
    """When `pipedrive` or `hull` last told us something."""
    query = select(func.max(Delivery.received_at)).where(
        Delivery.connector_key == connector_key, Delivery.source == source
    )
    return session.scalar(query)


def last_event(session: Session, connector_key: int, event: str) -> datetime | None:
    """When something of this name (`*` stands for anything) last happened."""
    query = select(func.max(SyncEvent.at)).where(
        SyncEvent.connector_key == connector_key, SyncEvent.event.like(event.replace("*", "%"))
    )
    return session.scalar(query)


_OLDEST_DUE = text("""
    SELECT extract(epoch FROM now() - min(due.at))::float8
      FROM (SELECT b.due_at AS at FROM batches b JOIN connectors c ON c.key = b.connector_key
             WHERE b.state = 'ready' AND b.due_at <= now() AND c.state = 'active'
            UNION ALL
            SELECT ch.due_at FROM changes ch JOIN connectors c ON c.key = ch.connector_key
             WHERE ch.batch_id IS NULL AND ch.due_at <= now() AND c.state = 'active'
            UNION ALL
            SELECT d.received_at FROM deliveries d JOIN connectors c ON c.key = d.connector_key
             WHERE d.state = 'new' AND c.state = 'active') due""")


def oldest_due_s(session: Session) -> float:
    """For how many seconds the oldest piece of work has been due without anybody taking it; 0 when none is."""
    return float(session.scalar(_OLDEST_DUE) or 0.0)
