"""Deletions in the id map: requested records that do not exist, restored records, merged records.

The version of a deleted record is later than any: no page in flight can restore it, and its worker finds that
the record has changed. Only a reading of that record does (`db.id_mapping_writer`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from db import id_mapping_writer
from db.copy import bigints, texts
from db.id_mapping import follow_merges
from db.statement import Statement
from pipeline.domain.departures import DEPARTED, LIVING


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionTarget:
    """The id map's row of a requested record.

    delivered   Hull's values, without nulls
    in_hull     whether Hull ever received it
    updated_at  when this was last written; another time later means that another worker wrote it
    """

    state: str
    delivered: dict[str, Any]
    in_hull: bool
    merged_into: int | None
    deleted_at: datetime | None
    updated_at: datetime


def standings(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]
) -> dict[int, DeletionTarget]:
    """Pipedrive id → what is known of it, for those that are known."""
    rows = session.execute(_STANDINGS, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return {
        row.pipedrive_id: DeletionTarget(
            state=row.state,
            delivered=orjson.loads(row.delivered) if row.delivered else {},
            in_hull=row.in_hull,
            merged_into=row.merged_into,
            deleted_at=row.deleted_at,
            updated_at=row.updated_at,
        )
        for row in rows
    }


def read_among(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> set[int]:
    """Return the records that were ever read, whatever their state: they are more than shells."""
    scope = {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)}
    return {pipedrive_id for (pipedrive_id,) in _READ_AMONG.rows(session, scope)}


_READ_AMONG = Statement("""
    SELECT pipedrive_id FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[])) AND state <> 'shell'""")


_STANDINGS = text("""
    SELECT pipedrive_id, state, delivered, merged_into, deleted_at, updated_at,
           delivered IS NOT NULL OR hull_id IS NOT NULL OR resolve_at IS NOT NULL AS in_hull
      FROM id_mappings WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")

_RIVALS = text("""
    SELECT pipedrive_id, hull_id, state, delivered FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
    UNION
    SELECT pipedrive_id, hull_id, state, delivered FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:hull_ids AS text[])) AND coalesce(pipedrive_id, 0) <> 0""")
"""Each by its own index; an OR, or `IS NOT NULL` for an id, may read every mapping of the entity."""


def yield_to_living(
    session: Session, connector_key: int, entity: str, found: dict[int, str]
) -> tuple[dict[int, str], dict[int, int]]:
    """Of records with the same User, the deleted ones yield it to the existing one, which gets Hull's values.

    found    Pipedrive id → Hull id, as Hull has just returned
    Returns  `found` without the deleted records that yielded, and deleted → existing: these are delivered again
    """
    living, departed = _rivals(session, connector_key, entity, found)
    left: dict[int, dict[str, Any]] = {}
    survivors: dict[int, int] = {}
    for hull_id in departed.keys() & living.keys():
        for pipedrive_id, held in departed[hull_id].items():
            survivors[pipedrive_id] = living[hull_id]
            left[living[hull_id]] = left.get(living[hull_id], {}) | held
    if survivors:
        id_mapping_writer.release_hull_ids(session, connector_key, entity, survivors)
        id_mapping_writer.transfer_attributes(session, connector_key, entity, left)
    return {
        pipedrive_id: hull_id for pipedrive_id, hull_id in found.items() if pipedrive_id not in survivors
    }, survivors


def _rivals(
    session: Session, connector_key: int, entity: str, found: dict[int, str]
) -> tuple[dict[str, int], dict[str, dict[int, dict[str, Any]]]]:
    """By Hull id: the existing record, and the deleted ones with Hull's values."""
    scope = {"c": connector_key, "e": entity, "ids": bigints(found), "hull_ids": texts(found.values())}
    living: dict[str, int] = {}
    departed: dict[str, dict[int, dict[str, Any]]] = {}
    for row in session.execute(_RIVALS, scope):
        hull_id = found.get(row.pipedrive_id, row.hull_id)
        if row.state in LIVING:
            living.setdefault(hull_id, row.pipedrive_id)
        elif row.state in DEPARTED:
            departed.setdefault(hull_id, {})[row.pipedrive_id] = orjson.loads(row.delivered) if row.delivered else {}
    return living, departed


def find_living(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]
) -> dict[int, int | None]:
    """Return Pipedrive id → the current record, itself or the one it was merged into; None for a deleted one.

    Unknown ids are left out.
    """
    became = follow_merges(session, connector_key, entity, pipedrive_ids)
    known = standings(session, connector_key, entity, became.values())
    return {
        first: last if known[last].state not in DEPARTED else None for first, last in became.items() if last in known
    }


_MERGE_SOURCES = text("""
    WITH RECURSIVE merged AS (
        SELECT entity, pipedrive_id FROM id_mappings WHERE connector_key = :c AND merged_into = :id
         UNION
        SELECT m.entity, m.pipedrive_id FROM id_mappings m JOIN merged
            ON m.entity = merged.entity AND m.merged_into = merged.pipedrive_id
         WHERE m.connector_key = :c)
    SELECT entity, pipedrive_id FROM merged""")


def find_merge_sources(session: Session, connector_key: int, pipedrive_id: int) -> list[tuple[str, int]]:
    """Return (entity, Pipedrive id) of every record that was merged into this one, directly or through others."""
    rows = session.execute(_MERGE_SOURCES, {"c": connector_key, "id": pipedrive_id})
    return [(row.entity, row.pipedrive_id) for row in rows]
