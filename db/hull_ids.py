"""Hull ids: the results of Hull's search are stored here, and two records with the same User or Account are a `conflict`.

A conflict is temporary: it is checked again every hour, with every delivery of its record, and when another
record of its entity is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import id_mapping_writer, joining
from db.joining import Join
from db.statement import texts

IN_FLIGHT = "interval '15 minutes'"
"""How long a create may be in flight: its worker then maps the record."""

_INTENDED = text(f"""
    SELECT m.hull_id, m.state = 'creating' AND m.intent_at > now() - {IN_FLIGHT} AS in_flight
      FROM unnest(CAST(:hull_ids AS text[])) AS w(hull_id)
     CROSS JOIN LATERAL (SELECT hull_id, state, intent_at, pipedrive_id FROM id_mappings m
                          WHERE m.connector_key = :c AND m.entity = :e AND m.hull_id = w.hull_id LIMIT 1) m
     WHERE m.pipedrive_id IS NULL""")  # noqa: S608 - a constant of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHullIds:
    """The result of storing Hull ids.

    conflicts  Pipedrive ids that are newly in conflict
    resolved    Pipedrive id → Hull id, of those no longer in conflict
    """

    conflicts: list[int] = field(default_factory=list)
    resolved: dict[int, str] = field(default_factory=dict)


def store_hull_ids(session: Session, connector_key: int, entity: str, found: Mapping[int, str]) -> StoredHullIds:
    """Store Hull ids. A Hull id that another Pipedrive record already has makes a `conflict`.

    found  Pipedrive id → Hull id, as Hull has just returned

    A User with a record in creation is not in conflict: the creating worker maps the record. An abandoned intent
    is fulfilled by the record that Hull names.
    """
    intended = _intended(session, connector_key, entity, found)
    left = {each: hull_id for each, hull_id in found.items() if not intended.get(hull_id, False)}
    first_with: dict[str, int] = {}
    for pipedrive_id in sorted(left):
        first_with.setdefault(left[pipedrive_id], pipedrive_id)
    fulfilled = [
        Join(hull_id=hull_id, pipedrive_id=pipedrive_id, matched_by="report")
        for hull_id, pipedrive_id in sorted(first_with.items())
        if hull_id in intended
    ]
    joining.join(session, connector_key, entity, fulfilled)
    first = {pipedrive_id: left[pipedrive_id] for pipedrive_id in first_with.values()}
    done = id_mapping_writer.set_hull_ids(session, connector_key, entity, first)
    stored = StoredHullIds(resolved={each: left[each] for each, was_conflict in done.items() if was_conflict})
    rest = {each: hull_id for each, hull_id in left.items() if each not in done}
    if rest:
        stored.conflicts.extend(id_mapping_writer.mark_conflicts(session, connector_key, entity, rest))
    return stored


def _intended(session: Session, connector_key: int, entity: str, found: Mapping[int, str]) -> dict[str, bool]:
    """Hull id of a record that is about to be made → whether it may be in flight at this moment."""
    scope = {"c": connector_key, "e": entity, "hull_ids": texts(sorted(set(found.values())))}
    return {row.hull_id: row.in_flight for row in session.execute(_INTENDED, scope)}
