"""Find records by their identifiers: e-mail, domain, external id, or an id of either side.

A look-up uses holders and aliases. See `db.identifier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import joining
from db.id_mapping import IdMapping
from db.identifier import OF_RECORDS
from db.snapshot import Snapshot
from db.statement import Statement, bigints, texts
from db.sync_event import LastSkip
from pipeline.domain.deletions import DELETED_STATES, LIVE_STATES
from pipeline.domain.kinds import Entity

MOST: Final = 20
"""Maximum of records for one value: if there are several, an operator must choose one."""
KINDS: Final = ("email", "external_id", "anonymous_id", "domain")

_ENTITIES: Final = tuple(Entity)


# Match records

_FIND = text(f"""
    SELECT w.kind, w.value, h.pipedrive_id
      FROM unnest(CAST(:kinds AS text[]), CAST(:vals AS text[])) AS w(kind, value)
     CROSS JOIN LATERAL (
           SELECT i.pipedrive_id FROM identifiers i
            WHERE i.role = 'holder' AND i.connector_key = :c AND i.entity = :e AND i.kind = w.kind AND i.value = w.value
            UNION
           SELECT i.pipedrive_id FROM identifiers i
            WHERE i.role = 'alias' AND i.connector_key = :c AND i.entity = :e AND i.kind = w.kind AND i.value = w.value
            LIMIT {MOST}) h
     CROSS JOIN LATERAL (
           SELECT FROM id_mappings m
            WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = h.pipedrive_id
              AND m.state = ANY(CAST(:living AS text[]))
            LIMIT 1) m
     WHERE (SELECT s.pipedrive_id FROM identifiers s
             WHERE s.role = 'holder' AND s.connector_key = :c AND s.entity = :e
               AND s.kind = w.kind AND s.value = w.value LIMIT 1) IS DISTINCT FROM 0
     ORDER BY h.pipedrive_id""")  # noqa: S608 - a number of ours
"""LATERAL with a limit, here and below, as in `db.identifier`: with another join, a new table was read whole for every value."""


def find_records(
    session: Session, connector_key: int, entity: str, wanted: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[int]]:
    """Return (kind, value) → the existing records with it in the local index; none for a shared domain."""
    pairs = sorted(set(wanted))
    if not pairs:
        return {}
    found: dict[tuple[str, str], list[int]] = {}
    for row in session.execute(_FIND, {**_pairs(connector_key, entity, pairs), "living": texts(LIVE_STATES)}):
        found.setdefault((row.kind, row.value), []).append(row.pipedrive_id)
    return found


_HELD_BY_NOBODY = Statement("""
    SELECT w.kind, w.value FROM unnest(CAST(:kinds AS text[]), CAST(:vals AS text[])) AS w(kind, value)
     WHERE (SELECT i.pipedrive_id FROM identifiers i
             WHERE i.role = 'holder' AND i.connector_key = :c AND i.entity = :e
               AND i.kind = w.kind AND i.value = w.value LIMIT 1) = 0""")


def find_shared(
    session: Session, connector_key: int, entity: str, pairs: Iterable[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return those of the (kind, value) pairs that identify no record, because several records share them."""
    wanted = sorted(set(pairs))
    if not wanted:
        return set()
    return {(kind, value) for kind, value in _HELD_BY_NOBODY.rows(session, _pairs(connector_key, entity, wanted))}


def _pairs(connector_key: int, entity: str, pairs: Sequence[tuple[str, str]]) -> dict[str, int | str]:
    return {
        "c": connector_key,
        "e": entity,
        "kinds": texts(kind for kind, _ in pairs),
        "vals": texts(value for _, value in pairs),
    }


_HELD = text(f"SELECT pipedrive_id, value FROM identifiers WHERE {OF_RECORDS} AND kind = :kind")  # noqa: S608 - a constant


def find_held_values(
    session: Session, connector_key: int, entity: str, kind: str, pipedrive_ids: Iterable[int]
) -> dict[int, str]:
    """Return Pipedrive id → the value of this kind that the record holds."""
    rows = session.execute(_HELD, {"c": connector_key, "e": entity, "kind": kind, "ids": bigints(pipedrive_ids)})
    return {row.pipedrive_id: row.value for row in rows}


# Deleted holders


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedHolder:
    """A deleted record that holds values; `state` and `since` are of its deletion."""

    connector_key: int
    entity: str
    pipedrive_id: int
    state: str
    since: datetime


_DELETED = text("""
    SELECT connector_key, entity, pipedrive_id, state, deleted_at AS since FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
       AND state = ANY(CAST(:deleted AS text[])) AND deleted_at IS NOT NULL""")


def find_deleted_holders(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]
) -> dict[int, DeletedHolder]:
    """Return those of the records that are deleted."""
    scope = {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids), "deleted": texts(DELETED_STATES)}
    return {row.pipedrive_id: DeletedHolder(**row._asdict()) for row in session.execute(_DELETED, scope)}


_OVERDUE = text("""
    SELECT m.connector_key, m.entity, m.pipedrive_id, m.state, m.deleted_at AS since FROM id_mappings m
     WHERE m.state = ANY(CAST(:deleted AS text[])) AND m.deleted_at < now() - make_interval(days => :days)
       AND EXISTS (SELECT 1 FROM identifiers i WHERE i.pipedrive_id = m.pipedrive_id AND i.role || '' = 'holder'
                      AND i.connector_key = m.connector_key AND i.entity = m.entity)
     ORDER BY m.connector_key, m.entity, m.pipedrive_id LIMIT :limit""")


def find_overdue_holders(session: Session, days: int, limit: int) -> list[DeletedHolder]:
    """Return records that hold values and were deleted more than `days` days ago, so that Pipedrive cannot restore them."""
    scope = {"deleted": texts(DELETED_STATES), "days": days, "limit": limit}
    return [DeletedHolder(**row._asdict()) for row in session.execute(_OVERDUE, scope)]


# Possible duplicates

_DUPLICATES = text("""
    SELECT m.id, m.pipedrive_id, m.hull_id, a.pipedrive_id AS other, a.kind
      FROM id_mappings m
     CROSS JOIN LATERAL (SELECT kind, value FROM identifiers i
                          WHERE i.pipedrive_id = m.pipedrive_id AND i.role || '' = 'holder'
                            AND i.connector_key + 0 = :c AND i.entity || '' = :e OFFSET 0) i
     CROSS JOIN LATERAL (SELECT pipedrive_id, kind FROM identifiers a
                          WHERE a.role = 'alias' AND a.connector_key = :c AND a.entity = :e
                            AND a.kind = i.kind AND a.value = i.value OFFSET 0) a
     CROSS JOIN LATERAL (SELECT state, first_seen_at FROM id_mappings o
                          WHERE o.connector_key = :c AND o.entity = :e AND o.pipedrive_id = a.pipedrive_id LIMIT 1) o
     WHERE m.connector_key = :c AND m.entity = :e AND m.intent_at > now() - interval '1 day' AND m.state = 'full'
       AND a.pipedrive_id <> m.pipedrive_id AND o.state = ANY(CAST(:living AS text[]))
       AND o.first_seen_at BETWEEN m.intent_at AND m.intent_at + interval '1 hour'
     ORDER BY m.pipedrive_id, other LIMIT :limit""")


@dataclass(frozen=True, slots=True)
class PossibleDuplicate:
    """A record that we created, and another one with the same identifier that was first seen soon afterwards."""

    pipedrive_id: int
    hull_id: str
    other: int
    kind: str


def take_possible_duplicates(
    session: Session, connector_key: int, entity: str, limit: int = 100
) -> list[PossibleDuplicate]:
    """Return possible duplicates that were not returned before."""
    scope = {"c": connector_key, "e": entity, "living": texts(LIVE_STATES), "limit": limit}
    rows = session.execute(_DUPLICATES, scope).all()
    if rows:
        joining.forget_intents(session, [row.id for row in rows])
    return [PossibleDuplicate(row.pipedrive_id, row.hull_id, row.other, row.kind) for row in rows]


# Search by a user


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """A record that is known on both sides; `found_by` is a kind of identifier, `pipedrive id` or `hull id`."""

    hull_id: str
    pipedrive_id: int | None
    found_by: str


_JOINED = text("""
    SELECT DISTINCT ON (m.hull_id) m.hull_id, m.pipedrive_id, f.found_by
      FROM (SELECT pipedrive_id, kind AS found_by FROM identifiers
             WHERE role = 'holder' AND connector_key = :c AND entity = :e AND kind = ANY(CAST(:kinds AS text[])) AND value = :text
             UNION ALL
            SELECT pipedrive_id, kind FROM identifiers
             WHERE role = 'alias' AND connector_key = :c AND entity = :e AND kind = ANY(CAST(:kinds AS text[])) AND value = :text
             UNION ALL
            SELECT CAST(:number AS bigint), 'pipedrive id' WHERE CAST(:number AS bigint) IS NOT NULL
             UNION ALL
            SELECT pipedrive_id, 'hull id' FROM id_mappings
             WHERE connector_key = :c AND entity = :e AND hull_id = :text) f
     CROSS JOIN LATERAL (SELECT hull_id, pipedrive_id FROM id_mappings m
                          WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = f.pipedrive_id LIMIT 1) m
     WHERE m.hull_id IS NOT NULL
     ORDER BY m.hull_id LIMIT :limit""")


def find_joined(session: Session, connector_key: int, entity: str, wanted: str, limit: int = MOST) -> list[KnownRecord]:
    """Return records with a known Hull id, by the value of an identifier, a Pipedrive id or a Hull id."""
    number = int(wanted) if _is_number(wanted) else None
    scope = {"c": connector_key, "e": entity, "text": wanted, "number": number, "kinds": texts(KINDS), "limit": limit}
    return [KnownRecord(*row) for row in session.execute(_JOINED, scope)]


def _is_number(wanted: str) -> bool:
    return wanted.isascii() and wanted.isdigit() and len(wanted) <= 18


_BY_EMAIL = text("""
    SELECT DISTINCT w.value, m.hull_id
      FROM unnest(CAST(:emails AS text[])) AS w(value)
     CROSS JOIN LATERAL (
           (SELECT pipedrive_id FROM identifiers
             WHERE role = 'holder' AND connector_key = :c AND entity = :e AND kind = 'email' AND value = w.value LIMIT 2)
           UNION
           (SELECT pipedrive_id FROM identifiers
             WHERE role = 'alias' AND connector_key = :c AND entity = :e AND kind = 'email' AND value = w.value LIMIT 2)) f
     CROSS JOIN LATERAL (SELECT hull_id FROM id_mappings m
                          WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = f.pipedrive_id LIMIT 1) m
     WHERE m.hull_id IS NOT NULL""")


def find_by_emails(session: Session, connector_key: int, entity: str, emails: Iterable[str]) -> dict[str, set[str]]:
    """Return e-mail → the Hull ids of the records with it."""
    found: dict[str, set[str]] = {}
    for row in session.execute(_BY_EMAIL, {"c": connector_key, "e": entity, "emails": texts(emails)}):
        found.setdefault(row.value, set()).add(row.hull_id)
    return found


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record, and the identifier that matched; a User or Account that was never matched has no `pipedrive_id`."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    by: str


def find_by_ids(session: Session, connector_key: int, wanted: str) -> list[FoundRecord]:
    """Return records by a Pipedrive id or a Hull id, joined or not."""
    query = select(IdMapping).filter_by(connector_key=connector_key)
    found: list[FoundRecord] = []
    if _is_number(wanted):
        rows = session.scalars(query.where(IdMapping.pipedrive_id == int(wanted), IdMapping.entity.in_(_ENTITIES)))
        found += [FoundRecord(row.entity, row.pipedrive_id, row.hull_id, "Pipedrive id") for row in rows]
    rows = session.scalars(query.where(IdMapping.hull_id == wanted, IdMapping.entity.in_(_ENTITIES)))
    found += [FoundRecord(row.entity, row.pipedrive_id, row.hull_id, "Hull id") for row in rows]
    return found or _find_reported(session, connector_key, wanted)


def _find_reported(session: Session, connector_key: int, hull_id: str) -> list[FoundRecord]:
    """Return reported Users and Accounts that were never matched."""
    entities = set(session.scalars(select(LastSkip.entity).filter_by(connector_key=connector_key, hull_id=hull_id)))
    for entity in _ENTITIES:
        if session.get(Snapshot, (connector_key, entity.value, "hull", hull_id)) is not None:
            entities.add(entity.value)
    return [FoundRecord(entity, None, hull_id, "Hull id") for entity in sorted(entities)]


_BY_VALUE = text(f"""
    SELECT e.entity, h.pipedrive_id, w.kind, h.holds
      FROM unnest(CAST(:entities AS text[])) AS e(entity)
     CROSS JOIN unnest(CAST(:kinds AS text[]), CAST(:vals AS text[])) AS w(kind, value)
     CROSS JOIN LATERAL (
           SELECT i.pipedrive_id, true AS holds FROM identifiers i
            WHERE i.role = 'holder' AND i.connector_key = :c AND i.entity = e.entity AND i.kind = w.kind AND i.value = w.value
              AND i.pipedrive_id <> 0
            UNION ALL
           SELECT i.pipedrive_id, false FROM identifiers i
            WHERE i.role = 'alias' AND i.connector_key = :c AND i.entity = e.entity AND i.kind = w.kind AND i.value = w.value
            LIMIT {MOST}) h""")  # noqa: S608 - a number of ours


def find_by_values(session: Session, connector_key: int, wanted: Sequence[tuple[str, str]]) -> list[FoundRecord]:
    """Return records by normalised (kind, value) pairs."""
    if not wanted:
        return []
    scope = {
        "c": connector_key,
        "entities": texts(_ENTITIES),
        "kinds": texts(kind for kind, _ in wanted),
        "vals": texts(value for _, value in wanted),
    }
    rows = sorted(session.execute(_BY_VALUE, scope), key=lambda row: not row.holds)
    found = {(row.entity, row.pipedrive_id): row.kind for row in reversed(rows)}
    return [FoundRecord(entity, pipedrive_id, None, kind) for (entity, pipedrive_id), kind in sorted(found.items())][
        :MOST
    ]


@dataclass(frozen=True, slots=True)
class IdentifierOfRecord:
    """A value that identifies a record; `holds` if it is sent with it, `wanted_by` the record that waits for it."""

    claim: str
    value: str
    holds: bool
    wanted_by: int | None


_OF_RECORD = text("""
    SELECT kind AS claim, value, role = 'holder' AS holds, wanted_by FROM identifiers
     WHERE connector_key + 0 = :c AND entity || '' = :e AND pipedrive_id = :id
     ORDER BY role <> 'holder', kind, value LIMIT :limit""")


def list_identifiers(session: Session, connector_key: int, entity: str, pipedrive_id: int) -> list[IdentifierOfRecord]:
    """Return the identifiers of a record: what it holds first."""
    scope = {"c": connector_key, "e": entity, "id": pipedrive_id, "limit": 2 * MOST}
    return [IdentifierOfRecord(*row) for row in session.execute(_OF_RECORD, scope)]
