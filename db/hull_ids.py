"""Hull ids: the results of Hull's search are stored here, and two records with the same User or Account are a `conflict`.

A conflict is temporary: it is checked again every hour, with every delivery of its record, and when another
record of its entity is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import joining
from db.copy import bigints, texts
from db.joining import Join

IN_FLIGHT = "interval '15 minutes'"
"""How long a create may be in flight: its worker then maps the record."""

_INTENDED = text(f"""
    SELECT m.hull_id, m.state = 'creating' AND m.intent_at > now() - {IN_FLIGHT} AS in_flight
      FROM unnest(CAST(:hull_ids AS text[])) AS w(hull_id)
     CROSS JOIN LATERAL (SELECT hull_id, state, intent_at, pipedrive_id FROM id_mappings m
                          WHERE m.connector_key = :c AND m.entity = :e AND m.hull_id = w.hull_id LIMIT 1) m
     WHERE m.pipedrive_id IS NULL""")  # noqa: S608 - a constant of ours

_RESOLVE = text("""
    WITH found AS MATERIALIZED (
        SELECT m.id, m.state, w.hull_id
          FROM unnest(CAST(:ids AS bigint[]), CAST(:hull_ids AS text[])) AS w(pipedrive_id, hull_id)
         CROSS JOIN LATERAL (SELECT id, state FROM id_mappings m
                              WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = w.pipedrive_id
                              LIMIT 1 FOR UPDATE) m
          LEFT JOIN LATERAL (SELECT id FROM id_mappings o
                              WHERE o.connector_key = :c AND o.entity = :e AND o.hull_id = w.hull_id LIMIT 1) o ON true
         WHERE o.id IS NULL OR o.id = m.id)
    UPDATE id_mappings m SET hull_id = found.hull_id, resolve_at = NULL, updated_at = now(),
           state = CASE WHEN m.state <> 'conflict' THEN m.state WHEN m.digest IS NULL THEN 'shell' ELSE 'full' END
      FROM found WHERE m.id = found.id AND m.id = ANY(ARRAY(SELECT id FROM found))
    RETURNING m.pipedrive_id, m.hull_id, found.state = 'conflict' AS was_conflict""")
"""The array keeps a planner that knows nothing of the table to its primary key."""

_CONFLICT = text("""
    WITH before AS MATERIALIZED (
        SELECT m.id, m.state
          FROM unnest(CAST(:ids AS bigint[]), CAST(:hull_ids AS text[])) AS w(pipedrive_id, hull_id)
         CROSS JOIN LATERAL (SELECT id, state, hull_id FROM id_mappings m
                              WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = w.pipedrive_id
                              LIMIT 1 FOR UPDATE) m
         CROSS JOIN LATERAL (SELECT pipedrive_id FROM id_mappings o
                              WHERE o.connector_key = :c AND o.entity = :e AND o.hull_id = w.hull_id LIMIT 1) o
         WHERE m.hull_id IS NULL AND m.state NOT IN ('gone', 'deleted', 'merged')
           AND o.pipedrive_id IS NOT NULL AND o.pipedrive_id <> w.pipedrive_id)
    UPDATE id_mappings m SET state = 'conflict', resolve_at = now() + interval '1 hour', updated_at = now()
      FROM before WHERE m.id = before.id AND m.id = ANY(ARRAY(SELECT id FROM before))
    RETURNING m.pipedrive_id, before.state""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """The result of storing Hull ids.

    conflicts  Pipedrive ids that are newly in conflict
    settled    Pipedrive id → Hull id, of those no longer in conflict
    """

    conflicts: list[int] = field(default_factory=list)
    settled: dict[int, str] = field(default_factory=dict)


def learn_hull_ids(session: Session, connector_key: int, entity: str, found: Mapping[int, str]) -> Learnt:
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
    learnt = Learnt()
    done: set[int] = set()
    for row in session.execute(_RESOLVE, _scope(connector_key, entity, {i: left[i] for i in first_with.values()})):
        done.add(row.pipedrive_id)
        if row.was_conflict:
            learnt.settled[row.pipedrive_id] = row.hull_id
    rest = {each: hull_id for each, hull_id in left.items() if each not in done}
    if rest:
        rows = session.execute(_CONFLICT, _scope(connector_key, entity, rest))
        learnt.conflicts.extend(sorted(row.pipedrive_id for row in rows if row.state != "conflict"))
    return learnt


def _intended(session: Session, connector_key: int, entity: str, found: Mapping[int, str]) -> dict[str, bool]:
    """Hull id of a record that is about to be made → whether it may be in flight at this moment."""
    scope = {"c": connector_key, "e": entity, "hull_ids": texts(sorted(set(found.values())))}
    return {row.hull_id: row.in_flight for row in session.execute(_INTENDED, scope)}


def _scope(connector_key: int, entity: str, ids: Mapping[int, str]) -> dict[str, object]:
    pairs = sorted(ids.items())
    return {
        "c": connector_key,
        "e": entity,
        "ids": bigints(pipedrive_id for pipedrive_id, _ in pairs),
        "hull_ids": texts(hull_id for _, hull_id in pairs),
    }


_ASK_AGAIN = text("""
    UPDATE id_mappings SET resolve_at = now(), resolve_attempts = 0
     WHERE connector_key = :c AND entity = :e AND state = 'conflict' AND hull_id IS NULL AND resolve_at > now()""")


def ask_for_conflicts(session: Session, connector_key: int, entity: str) -> None:
    """A record was deleted that may share its User with another one: query Hull for that one again."""
    session.execute(_ASK_AGAIN, {"c": connector_key, "e": entity})
