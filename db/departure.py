"""Deletions in the id map: requested records that do not exist, restored records, merged records.

The version of a deleted record is later than any: no page in flight can restore it, and its worker finds that
the record has changed. Only a reading of that record does (`note_present`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from db.copy import bigints, texts
from db.id_mapping import IdMapping, follow_merges
from db.statement import Statement
from pipeline.domain.departures import DEPARTED, LIVING, Farewell

NEVER = 2**62
"""The version of a deleted record."""


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

_ABSENT = text("""
    UPDATE id_mappings SET absences = absences + 1
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
    RETURNING pipedrive_id, absences""")


def count_absent(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> dict[int, int]:
    """Another answer left these out: Pipedrive id → how many in a row have."""
    if not pipedrive_ids:
        return {}
    rows = session.execute(_ABSENT, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return {row.pipedrive_id: row.absences for row in rows}


_PRESENT = text("""
    UPDATE id_mappings SET absences = 0, merged_into = NULL, deleted_at = NULL, resolve_attempts = 0,
           version = CASE WHEN state = ANY(CAST(:departed AS text[])) THEN 0 ELSE version END,
           resolve_at = CASE WHEN state = ANY(CAST(:departed AS text[])) OR hull_id IS NULL
                             THEN CASE WHEN digest IS NOT NULL OR hull_id IS NOT NULL OR resolve_at IS NOT NULL THEN now() END
                        END,
           hull_id = CASE WHEN state = ANY(CAST(:departed AS text[])) THEN NULL ELSE hull_id END,
           state = CASE WHEN state <> ALL(CAST(:departed AS text[])) THEN state WHEN digest IS NULL THEN 'shell' ELSE 'full' END
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
       AND (absences > 0 OR state = ANY(CAST(:departed AS text[])))""")


def note_present(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> None:
    """Pipedrive has just returned these: reset their absences, and restore the deleted ones.

    Hull's values stay stored, including the deletion mark, so that the next delivery removes the mark. Hull is queried again
    for its User or Account, which may be merged by now.
    """
    scope = {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids), "departed": list(DEPARTED)}
    session.execute(_PRESENT, scope)


def depart(
    session: Session, connector_key: int, entity: str, farewells: Sequence[Farewell], seen: dict[int, DeletionTarget]
) -> set[int]:
    """Store what was sent. Return the ids that another worker wrote since they were `seen`: those are not changed.

    The digest is emptied, so that a restored record is delivered in any case.
    """
    by_id = {farewell.departure.pipedrive_id: farewell for farewell in farewells}
    query = select(IdMapping).filter_by(connector_key=connector_key, entity=entity).order_by(IdMapping.pipedrive_id)
    moved_on = set()
    for mapping in session.scalars(query.where(IdMapping.pipedrive_id.in_(by_id)).with_for_update()):
        farewell = by_id[mapping.pipedrive_id or 0]
        if mapping.updated_at != seen[farewell.departure.pipedrive_id].updated_at:
            moved_on.add(farewell.departure.pipedrive_id)
            continue
        mapping.state, mapping.version, mapping.absences = farewell.departure.state, NEVER, 0
        mapping.deleted_at = datetime.fromtimestamp(farewell.departure.at_ms / 1000, UTC)
        mapping.merged_into = farewell.departure.merged_into
        mapping.delivered = orjson.dumps(farewell.delivered) if farewell.delivered is not None else None
        mapping.digest = "" if mapping.digest is not None or farewell.delivered is not None else None
        mapping.resolve_at = None if farewell.joins else mapping.resolve_at
        mapping.updated_at = func.now()
    session.flush()
    return moved_on


def inherit(session: Session, connector_key: int, entity: str, left: dict[int, dict[str, Any]]) -> None:
    """Hull has merged others into these records: their values (`left`) remain where these have none.

    The digest is emptied, so that the next reading is delivered, including nulls for remaining values.
    """
    query = select(IdMapping).filter_by(connector_key=connector_key, entity=entity).order_by(IdMapping.pipedrive_id)
    for mapping in session.scalars(query.where(IdMapping.pipedrive_id.in_(left)).with_for_update()):
        own, more = orjson.loads(mapping.delivered) if mapping.delivered else {}, left[mapping.pipedrive_id or 0]
        if mapping.digest is not None or more:
            mapping.delivered, mapping.digest, mapping.updated_at = orjson.dumps(more | own), "", func.now()
    session.flush()


_RIVALS = text("""
    SELECT pipedrive_id, hull_id, state, delivered FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
    UNION
    SELECT pipedrive_id, hull_id, state, delivered FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:hull_ids AS text[])) AND coalesce(pipedrive_id, 0) <> 0""")
"""Each by its own index; an OR, or `IS NOT NULL` for an id, may read every mapping of the entity."""

_GIVE_WAY = text("""
    UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL, delivered = NULL, updated_at = now()
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")


def give_way(
    session: Session, connector_key: int, entity: str, found: dict[int, str]
) -> tuple[dict[int, str], dict[int, int]]:
    """Of records with the same User, the deleted ones yield it to the existing one, which gets Hull's values.

    found    Pipedrive id → Hull id, as Hull has just returned
    Returns  `found` without the deleted records that yielded, and deleted → existing: these are delivered again
    """
    living, departed = _rivals(session, connector_key, entity, found)
    left: dict[int, dict[str, Any]] = {}
    heirs: dict[int, int] = {}
    for hull_id in departed.keys() & living.keys():
        for pipedrive_id, held in departed[hull_id].items():
            heirs[pipedrive_id] = living[hull_id]
            left[living[hull_id]] = left.get(living[hull_id], {}) | held
    if heirs:
        session.execute(_GIVE_WAY, {"c": connector_key, "e": entity, "ids": bigints(heirs)})
        inherit(session, connector_key, entity, left)
    return {pipedrive_id: hull_id for pipedrive_id, hull_id in found.items() if pipedrive_id not in heirs}, heirs


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


_NEVER_SEEN = text("""
    INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, version, deleted_at, matched_by, resolve_at)
    SELECT :c, :e, id, 'deleted', :never, now(), 'report', NULL FROM unnest(CAST(:ids AS bigint[])) AS id ORDER BY id
    ON CONFLICT (connector_key, entity, pipedrive_id) WHERE pipedrive_id IS NOT NULL DO NOTHING""")


def note_never_seen(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Hull names these records, we have never seen them, and Pipedrive does not show them: they are deleted.

    A page that shows one all the same has it read by its id, and then it lives.
    """
    if ids := sorted(pipedrive_ids):
        session.execute(_NEVER_SEEN, {"c": connector_key, "e": entity, "ids": bigints(ids), "never": NEVER})


_FOREBEARS = text("""
    WITH RECURSIVE merged AS (
        SELECT entity, pipedrive_id FROM id_mappings WHERE connector_key = :c AND merged_into = :id
         UNION
        SELECT m.entity, m.pipedrive_id FROM id_mappings m JOIN merged
            ON m.entity = merged.entity AND m.merged_into = merged.pipedrive_id
         WHERE m.connector_key = :c)
    SELECT entity, pipedrive_id FROM merged""")


def forebears(session: Session, connector_key: int, pipedrive_id: int) -> list[tuple[str, int]]:
    """(entity, Pipedrive id) of every record that was merged into this one, at whatever remove."""
    rows = session.execute(_FOREBEARS, {"c": connector_key, "id": pipedrive_id})
    return [(row.entity, row.pipedrive_id) for row in rows]
