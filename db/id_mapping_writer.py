"""The writer of `id_mappings` for data that Pipedrive and Hull return.

`db.joining` writes the results of our own creates and matches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy import TextClause, func, select, text
from sqlalchemy.orm import Session

from db.id_mapping import NEVER, UNCERTAIN, IdMapping
from db.statement import Cell, Shared, Statement, bigints, copy_rows, texts
from pipeline.domain.deletions import DELETED_STATES, DeletionEffect

KNOWN_STAYS: Final = "DO NOTHING"
"""A row that exists stays as it is."""
NEWER_STATE: Final = """DO UPDATE
           SET version = excluded.version, digest = excluded.digest, delivered = excluded.delivered, updated_at = now(),
               state = CASE WHEN m.state IN ('shell', 'gone', 'deleted', 'unknown') THEN 'full' ELSE m.state END,
               resolve_at = CASE WHEN m.hull_id IS NOT NULL THEN NULL WHEN m.state = 'conflict' THEN now()
                             ELSE least(coalesce(m.resolve_at, now()), now() + interval '60 s') END,
               resolve_attempts = 0
         WHERE m.version <= excluded.version"""
"""The delivered state replaces an older or equal one, never a newer one."""

BY_PIPEDRIVE_ID: Final = "(connector_key, entity, pipedrive_id) WHERE pipedrive_id IS NOT NULL"
BY_HULL_ID: Final = "(connector_key, entity, hull_id) WHERE hull_id IS NOT NULL"
_IDS: Final = "connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))"


def upsert(columns: str, rows: str, rule: str, *, key: str = BY_PIPEDRIVE_ID, returning: str = "") -> str:
    """Return the statement that adds rows with these columns; `rule` applies to a row with the same `key`."""
    return (
        f"INSERT INTO id_mappings AS m (connector_key, entity, {columns}) {rows} ON CONFLICT {key} {rule} {returning}"
    )


def _update(assignments: str, *, of: str = _IDS, returning: str = "") -> TextClause:
    return text(f"UPDATE id_mappings SET {assignments} WHERE {of} {returning}")  # noqa: S608 - put together from constants


def _scope(connector_key: int, entity: str, ids: Iterable[int]) -> dict[str, Any]:
    return {"c": connector_key, "e": entity, "ids": bigints(ids)}


def _locked(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Collection[int]
) -> Iterator[tuple[int, IdMapping]]:
    """Yield (Pipedrive id, row), locked in the order of the ids; changes by the caller are written at the end."""
    if not pipedrive_ids:
        return
    mine = select(IdMapping).filter_by(connector_key=connector_key, entity=entity).order_by(IdMapping.pipedrive_id)
    for mapping in session.scalars(mine.where(IdMapping.pipedrive_id.in_(pipedrive_ids)).with_for_update()):
        yield mapping.pipedrive_id or 0, mapping
    session.flush()


def _delivered(mapping: IdMapping) -> dict[str, Any]:
    return orjson.loads(mapping.delivered) if mapping.delivered else {}


# Pages

_OF_PAGE: Final = ("pipedrive_id", "version", "digest", "delivered")


def append_page(session: Session, rows: Iterable[Sequence[Cell]], shared: Shared) -> None:
    """Append (Pipedrive id, version, digest, delivered) of new records, by one COPY. Raises IntegrityError if a record exists."""
    copy_rows(session, "id_mappings", _OF_PAGE, rows, shared)


_PAGE: Final = upsert(
    "pipedrive_id, state, version, digest, delivered, matched_by",
    """
        SELECT :connector_key, :entity, pipedrive_id, 'full', version, digest, delivered, :matched_by
          FROM incoming_page ORDER BY pipedrive_id""",
    NEWER_STATE,
    returning="RETURNING pipedrive_id",
)
_MERGE_PAGE = Statement(f"""
    WITH kept AS ({_PAGE})
    SELECT pipedrive_id FROM incoming_page EXCEPT SELECT pipedrive_id FROM kept""")  # noqa: S608 - put together from constants


def merge_page(session: Session, facts: dict[str, Any]) -> list[int]:
    """Merge the temporary table `incoming_page`; return the ids that are stored in a newer state."""
    return sorted(pipedrive_id for (pipedrive_id,) in _MERGE_PAGE.rows(session, facts))


# Shells

_ADD_SHELLS = Statement(
    upsert(
        "pipedrive_id, state, matched_by, resolve_at",
        """
    SELECT :c, :e, id, 'shell', 'referenced', CASE WHEN :in_hull THEN now() END
      FROM unnest(CAST(:ids AS bigint[])) AS id ORDER BY id""",
        KNOWN_STAYS,
        returning="RETURNING pipedrive_id",
    )
)


def add_shells(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int], *, in_hull: bool
) -> list[int]:
    """Add shells of referenced records that are not known yet; return their ids."""
    ids = sorted(set(pipedrive_ids))
    if not ids:
        return []
    rows = _ADD_SHELLS.rows(session, {**_scope(connector_key, entity, ids), "in_hull": in_hull})
    return [pipedrive_id for (pipedrive_id,) in rows]


REQUEST_AGAIN_S: Final = 3600
"""Seconds after which a shell is requested again: its change failed, or is in a failed batch."""
UNREQUESTED_SHELLS: Final = f"""connector_key = :c AND entity = :e AND state = 'shell'
       AND (requested_at IS NULL OR requested_at < now() - make_interval(secs => {REQUEST_AGAIN_S}))"""
_MARK_REQUESTED = _update("requested_at = now()", of=UNREQUESTED_SHELLS)
_CLAIM_UNREQUESTED = _update("requested_at = now()", of=UNREQUESTED_SHELLS, returning="RETURNING pipedrive_id")


def claim_unrequested_shells(session: Session, connector_key: int, entity: str) -> list[int]:
    """Claim the shells that were not requested recently, and return their ids."""
    return list(session.scalars(_CLAIM_UNREQUESTED, {"c": connector_key, "e": entity}))


def mark_shells_requested(session: Session, connector_key: int, entity: str) -> None:
    """Mark all shells as requested, because a fetch reads all records."""
    session.execute(_MARK_REQUESTED, {"c": connector_key, "e": entity})


# Hull ids

_TAKE_UNRESOLVED = text("""
    WITH due AS MATERIALIZED (
        SELECT id FROM id_mappings
         WHERE connector_key = :c AND hull_id IS NULL AND resolve_at <= now() AND pipedrive_id IS NOT NULL
         ORDER BY resolve_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE id_mappings SET resolve_at = now() + CASE WHEN state = 'conflict' THEN interval '1 hour' ELSE interval '60 s' END
     WHERE id = ANY(ARRAY(SELECT id FROM due))
    RETURNING entity, pipedrive_id""")
"""Materialized: a planner without statistics may search the due ones once per row, and claim more than the limit."""


def take_unresolved(session: Session, connector_key: int, limit: int) -> list[tuple[str, int]]:
    """Claim mappings without a Hull id that are due for a query; each is due again after a minute at the earliest."""
    rows = session.execute(_TAKE_UNRESOLVED, {"c": connector_key, "limit": limit})
    return [(row.entity, row.pipedrive_id) for row in rows]


RESOLVE_PAUSE_S: Final = 60
LONGEST_RESOLVE_PAUSE_S: Final = 86_400
_MOST_DOUBLINGS: Final = 11
_PAUSE: Final = f"least({LONGEST_RESOLVE_PAUSE_S}, {RESOLVE_PAUSE_S} * 2 ^ least(resolve_attempts, {_MOST_DOUBLINGS}))"

_NOTE_UNRESOLVED = _update(
    f"""resolve_at = now() + make_interval(secs => {_PAUSE}),
           resolve_attempts = least(resolve_attempts + 1, {_MOST_DOUBLINGS})""",
    of=f"{_IDS} AND hull_id IS NULL AND resolve_at IS NOT NULL",
)


def note_unresolved(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Postpone records that Hull's search did not return: each pause is twice as long as the last one.

    Hull's search lags by seconds to minutes; a record that it does not return after that may never be there.
    """
    if ids := sorted(pipedrive_ids):
        session.execute(_NOTE_UNRESOLVED, _scope(connector_key, entity, ids))


_QUERY_AGAIN = _update(
    "hull_id = NULL, resolve_attempts = 0, resolve_at = now() + make_interval(secs => :wait_s)",
    of=f"{_IDS} AND coalesce(hull_id, '') <> ''",
)
"""Not `IS NOT NULL`, which the index by Hull id fits as well: it would read every mapping of the entity."""


def query_hull_ids_again(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int], wait_s: float
) -> None:
    """Query the Hull ids of records again in `wait_s` seconds, because Hull may have merged them with others by a new claim."""
    if ids := sorted(pipedrive_ids):
        session.execute(_QUERY_AGAIN, {**_scope(connector_key, entity, ids), "wait_s": wait_s})


_FORGET_HULL_IDS = _update("hull_id = NULL, resolve_at = now(), resolve_attempts = 0, updated_at = now()")


def forget_hull_ids(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Delete the Hull ids of records, and query Hull for them immediately."""
    session.execute(_FORGET_HULL_IDS, _scope(connector_key, entity, pipedrive_ids))


_RELEASE = _update("hull_id = NULL, resolve_at = NULL, delivered = NULL, updated_at = now()")


def release_hull_ids(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Delete the Hull ids and Hull's values of deleted records; Hull is not queried for them again."""
    session.execute(_RELEASE, _scope(connector_key, entity, pipedrive_ids))


_SET_HULL_IDS = text("""
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
    RETURNING m.pipedrive_id, found.state = 'conflict' AS was_conflict""")
"""With the array, a planner without statistics uses the primary key."""


def set_hull_ids(session: Session, connector_key: int, entity: str, found: Mapping[int, str]) -> dict[int, bool]:
    """Store Hull ids that no other record has. Return Pipedrive id → whether it was in conflict."""
    rows = session.execute(_SET_HULL_IDS, _pairs(connector_key, entity, found))
    return {row.pipedrive_id: row.was_conflict for row in rows}


_MARK_CONFLICTS = text("""
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


def mark_conflicts(session: Session, connector_key: int, entity: str, found: Mapping[int, str]) -> list[int]:
    """Mark records as in conflict, because another one has their Hull id. Return those that were not in conflict before."""
    rows = session.execute(_MARK_CONFLICTS, _pairs(connector_key, entity, found))
    return sorted(row.pipedrive_id for row in rows if row.state != "conflict")


def _pairs(connector_key: int, entity: str, found: Mapping[int, str]) -> dict[str, Any]:
    ids = sorted(found)
    return {**_scope(connector_key, entity, ids), "hull_ids": texts(found[each] for each in ids)}


_QUERY_CONFLICTS = _update(
    "resolve_at = now(), resolve_attempts = 0",
    of="connector_key = :c AND entity = :e AND state = 'conflict' AND hull_id IS NULL AND resolve_at > now()",
)


def query_conflicts_again(session: Session, connector_key: int, entity: str) -> None:
    """Query the Hull ids of records in conflict again, because the other record may have been deleted."""
    session.execute(_QUERY_CONFLICTS, {"c": connector_key, "e": entity})


# What Hull holds


def mark_uncertain(
    session: Session, connector_key: int, entity: str, sent: dict[int, bytes], *, digest: str = UNCERTAIN
) -> None:
    """Store that Hull received an older state last: the attributes in `sent` (by Pipedrive id) override the stored ones.

    The digest is replaced, so that the next reading is delivered in any case, with nulls for values that only the older state had.
    """
    for pipedrive_id, mapping in _locked(session, connector_key, entity, sent):
        mapping.delivered = orjson.dumps(_delivered(mapping) | orjson.loads(sent[pipedrive_id]))
        mapping.digest = digest


def note_held(
    session: Session, connector_key: int, entity: str, held: Mapping[int, tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> None:
    """Store values that Hull has by itself: they need not be delivered.

    held  Pipedrive id → (the values delivered when Hull sent this report, attribute → Hull's own value); an attribute with a newer
          delivery is left as it is
    """
    for pipedrive_id, mapping in _locked(session, connector_key, entity, held):
        before, values = held[pipedrive_id]
        delivered = _delivered(mapping)
        news = {name: value for name, value in values.items() if delivered.get(name) == before.get(name)}
        kept = {name: value for name, value in (delivered | news).items() if value is not None}
        mapping.delivered = orjson.dumps(kept)


def transfer_attributes(session: Session, connector_key: int, entity: str, left: dict[int, dict[str, Any]]) -> None:
    """Add the attributes of merged records to the survivors: `left` has them by the survivor's id, and a survivor keeps its own
    values.

    The digest is emptied, so that the next reading is delivered, with nulls for values that remain in Hull only.
    """
    for pipedrive_id, mapping in _locked(session, connector_key, entity, left):
        if mapping.digest is not None or left[pipedrive_id]:
            mapping.delivered = orjson.dumps(left[pipedrive_id] | _delivered(mapping))
            mapping.digest, mapping.updated_at = "", func.now()


# Deletions

_COUNT_ABSENT = _update("absences = absences + 1", returning="RETURNING pipedrive_id, absences")


def count_absent(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> dict[int, int]:
    """Count an answer without these records; return Pipedrive id → the number of consecutive ones."""
    if not pipedrive_ids:
        return {}
    rows = session.execute(_COUNT_ABSENT, _scope(connector_key, entity, pipedrive_ids))
    return {row.pipedrive_id: row.absences for row in rows}


_NOTE_PRESENT = _update(
    """absences = 0, merged_into = NULL, deleted_at = NULL, resolve_attempts = 0,
           version = CASE WHEN state = ANY(CAST(:deleted AS text[])) THEN 0 ELSE version END,
           resolve_at = CASE WHEN state = ANY(CAST(:deleted AS text[])) OR hull_id IS NULL
                             THEN CASE WHEN digest IS NOT NULL OR hull_id IS NOT NULL OR resolve_at IS NOT NULL THEN now() END
                        END,
           hull_id = CASE WHEN state = ANY(CAST(:deleted AS text[])) THEN NULL ELSE hull_id END,
           state = CASE WHEN state <> ALL(CAST(:deleted AS text[])) THEN state WHEN digest IS NULL THEN 'shell' ELSE 'full' END""",
    of=f"{_IDS} AND (absences > 0 OR state = ANY(CAST(:deleted AS text[])))",
)


def note_present(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> None:
    """Reset the absences of records that Pipedrive has just returned, and restore the deleted ones.

    Hull's values stay stored, with the deletion mark, so that the next delivery removes the mark. Hull is queried for the User or
    Account again, because it may have merged it.
    """
    session.execute(_NOTE_PRESENT, {**_scope(connector_key, entity, pipedrive_ids), "deleted": list(DELETED_STATES)})


def mark_deleted(
    session: Session,
    connector_key: int,
    entity: str,
    effects: Sequence[DeletionEffect],
    written_at: Mapping[int, datetime],
) -> set[int]:
    """Store deletions and the values that Hull received with them. Leave out rows that another worker wrote since `written_at`.

    The digest is emptied, so that a restored record is delivered in any case. Returns the ids that were left out.
    """
    by_id = {effect.deletion.pipedrive_id: effect for effect in effects}
    changed = set()
    for pipedrive_id, mapping in _locked(session, connector_key, entity, by_id):
        effect = by_id[pipedrive_id]
        if mapping.updated_at != written_at[pipedrive_id]:
            changed.add(pipedrive_id)
            continue
        mapping.state, mapping.version, mapping.absences = effect.deletion.state, NEVER, 0
        mapping.deleted_at = datetime.fromtimestamp(effect.deletion.at_ms / 1000, UTC)
        mapping.merged_into = effect.deletion.merged_into
        mapping.delivered = orjson.dumps(effect.delivered) if effect.delivered is not None else None
        mapping.digest = "" if mapping.digest is not None or effect.delivered is not None else None
        mapping.resolve_at = None if effect.joins else mapping.resolve_at
        mapping.updated_at = func.now()
    return changed


_ADD_DELETED = text(
    upsert(
        "pipedrive_id, state, version, deleted_at, matched_by, resolve_at",
        "SELECT :c, :e, id, 'deleted', :never, now(), 'report', NULL FROM unnest(CAST(:ids AS bigint[])) AS id ORDER BY id",
        KNOWN_STAYS,
    )
)


def add_deleted(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Add records as deleted that Hull refers to, that we have never read, and that Pipedrive does not return.

    If a page lists one later, it is read by its id and restored.
    """
    if ids := sorted(pipedrive_ids):
        session.execute(_ADD_DELETED, {**_scope(connector_key, entity, ids), "never": NEVER})


_ADD_UNMAPPED = text(
    upsert(
        "pipedrive_id, state, digest, matched_by",
        "SELECT :c, :e, id, 'full', '', 'verify' FROM unnest(CAST(:ids AS bigint[])) AS id ORDER BY id",
        KNOWN_STAYS,
    )
)


def add_unmapped(session: Session, connector_key: int, entity: str, ids: Collection[int]) -> None:
    """Add records that only Hull has, so that their deletion has a row."""
    session.execute(_ADD_UNMAPPED, _scope(connector_key, entity, ids))
