"""Find a real record to show something with: the requested one, else one that changed recently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from db import id_mapping, snapshot, sync_event
from db.id_mapping import IdMapping
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity

LONGEST_ID = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A record as last known on both sides.

    record  of Pipedrive; None if it was never read
    report  of Hull, with its Account below `account`; None if nothing is known
    is_as_told  Hull has not reported it: the report consists of our last deliveries
    """

    entity: Entity
    pipedrive_id: int | None
    hull_id: str | None
    name: str
    record: Mapping[str, Any] | None
    report: Mapping[str, Any] | None
    is_as_told: bool = False


def find_sample(
    session: Session, connector_key: int, entity: Entity, direction: Direction, wanted: str = ""
) -> Sample | None:
    """Return the record with this Pipedrive id or Hull id; without one, a record with values in this direction.

    None if there is no such record, or none at all.
    """
    if wanted:
        found = _mapping(session, connector_key, entity, wanted[:LONGEST_ID])
        return _read(session, connector_key, entity, found) if found else None
    lately = sync_event.changed_lately(session, connector_key, entity)
    best: Sample | None = None
    for record_id in (str(lately) if lately else None, _any(session, connector_key, entity, direction)):
        found = _mapping(session, connector_key, entity, record_id) if record_id else None
        sample = _read(session, connector_key, entity, found) if found else None
        if sample and _says_something(sample, direction):
            return sample
        best = best or sample
    return best


def _says_something(sample: Sample, direction: Direction) -> bool:
    if direction is Direction.INCOMING:
        return sample.record is not None
    return sample.report is not None and not sample.is_as_told


def _any(session: Session, connector_key: int, entity: Entity, direction: Direction) -> str | None:
    side = "pipedrive" if direction is Direction.INCOMING else "hull"
    return snapshot.any_record(session, connector_key, entity, side)


def _mapping(session: Session, connector_key: int, entity: Entity, wanted: str) -> IdMapping | None:
    if wanted.isdigit() and not (wanted.isascii() and len(wanted) <= 18):
        return None
    found = id_mapping.find_mapping(session, connector_key, wanted)
    return next((each for each in found if each.entity == entity), None)


def _read(session: Session, connector_key: int, entity: Entity, mapping: IdMapping) -> Sample:
    record = _snapshot(session, connector_key, entity, "pipedrive", mapping.pipedrive_id)
    message = _snapshot(session, connector_key, entity, "hull", mapping.hull_id)
    report = message.get(entity.hull) if message else None
    if isinstance(report, dict) and entity is Entity.PERSON:
        report = {**report, "account": message.get("account") or {}} if message else report
    is_as_told = not isinstance(report, dict) and mapping.delivered is not None
    if is_as_told:
        report = read_lenient(mapping.delivered or b"{}")
    return Sample(
        entity=entity,
        pipedrive_id=mapping.pipedrive_id,
        hull_id=mapping.hull_id,
        name=_name(record, report),
        record=record,
        report=report if isinstance(report, dict) else None,
        is_as_told=is_as_told,
    )


def _snapshot(session: Session, connector_key: int, entity: Entity, side: str, record_id: Any) -> dict[str, Any] | None:
    if record_id is None:
        return None
    found = snapshot.read_snapshots(session, connector_key, entity, side, [str(record_id)])
    read = read_lenient(found[str(record_id)]) if found else None
    return read if isinstance(read, dict) else None


def _name(record: Mapping[str, Any] | None, report: Any) -> str:
    for source in (record, report):
        if isinstance(source, dict) and isinstance(source.get("name"), str):
            return str(source["name"])
    return ""
