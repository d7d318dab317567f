"""Find a record by an id of either side, and read what is known of both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy.orm import Session

from db import identifier_search
from db import record_events as events
from db import snapshot as snapshots
from db.deletion import find_merge_sources
from db.id_mapping import NEVER, IdMapping
from db.record_events import RecordIds
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Entity
from pipeline.operations.mapped_fields import MappedField

LARGEST_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSides:
    """Both sides of a record as last known.

    pipedrive  the record as last read
    report     the last report of the User or Account
    delivered  attribute → Hull's value from deliveries and later reports
    as_of      when Pipedrive last changed the record that was read
    """

    mapping: IdMapping | None
    pipedrive: Mapping[str, Any] | None
    report: Mapping[str, Any] | None
    delivered: Mapping[str, Any]
    as_of: datetime | None

    def in_hull(self, field: MappedField) -> Any:
        """Return Hull's value of a field, as far as it is known."""
        if field.incoming or self.report is None:
            return self.delivered.get(field.attribute)
        return field.in_report(self.report)


def read_sides(session: Session, ids: RecordIds) -> RecordSides:
    """Return both sides of a record as last known."""
    key, entity = ids.connector_key, Entity(ids.entity)
    mapping = events.find_record_mapping(session, key, entity, ids.pipedrive_id, ids.hull_id)
    pipedrive = read_snapshot(session, key, entity, "pipedrive", ids.pipedrive_id)
    report = read_report(session, key, entity, ids.hull_id)
    version = mapping.version if mapping and 0 < mapping.version < NEVER else None
    return RecordSides(
        mapping=mapping,
        pipedrive=pipedrive,
        report=report,
        delivered=orjson.loads(mapping.delivered) if mapping and mapping.delivered else {},
        as_of=datetime.fromtimestamp(version, UTC) if version else None,
    )


def read_report(session: Session, connector_key: int, entity: Entity, hull_id: str | None) -> dict[str, Any] | None:
    """Return the last report of a User or Account, None without one. A User's report has its Account as `account`."""
    message = read_snapshot(session, connector_key, entity, "hull", hull_id) or {}
    report = message.get(entity.hull)
    if not isinstance(report, dict):
        return None
    return {**report, "account": message.get("account") or {}} if entity is Entity.PERSON else report


def read_snapshot(
    session: Session, connector_key: int, entity: Entity, side: str, record_id: int | str | None
) -> dict[str, Any] | None:
    """Return the stored record of one side, None without one."""
    if record_id is None:
        return None
    found = snapshots.read_snapshots(session, connector_key, entity, side, [str(record_id)])
    body = found.get(str(record_id))
    read = read_lenient(body) if body is not None else None
    return read if isinstance(read, dict) else None


def find_record(
    session: Session, connector_key: int, entity: Entity, *, pipedrive_id: int | None = None, hull_id: str | None = None
) -> RecordIds | None:
    """Return the record with this id, if it is known; None also for an id that is too large."""
    if (pipedrive_id or 0) > LARGEST_ID or "\0" in (hull_id or ""):
        return None
    mapping = events.find_record_mapping(session, connector_key, entity, pipedrive_id, hull_id)
    if mapping is not None:
        pipedrive_id, hull_id = mapping.pipedrive_id, mapping.hull_id
        merged = find_merge_sources(session, connector_key, pipedrive_id) if pipedrive_id is not None else []
        mine = [(kind, each) for kind, each in merged if kind == entity]
        return RecordIds(
            connector_key=connector_key,
            entity=entity,
            pipedrive_id=pipedrive_id,
            hull_id=hull_id,
            merged=tuple(mine),
        )
    ids = RecordIds(connector_key=connector_key, entity=entity, pipedrive_id=pipedrive_id, hull_id=hull_id)
    is_known = bool(events.record_events(session, ids, limit=1)) or (
        hull_id is not None
        and any(each.entity == entity for each in identifier_search.find_by_ids(session, connector_key, hull_id))
    )
    return ids if is_known else None
