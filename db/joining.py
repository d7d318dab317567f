"""The id map from Hull's side: create intents, matches, and the Hull ids that Hull's search returns.

A row in state `creating` is a create intent. It is committed before Pipedrive is called: after a crash, the record may exist. While
the intent exists, its reserved identifiers (`db.identifier`) prevent other workers from creating a record with the same ones.

Two records with the same User or Account are in state `conflict`. A conflict is checked again every hour, with every delivery
of its record, and when another record of its entity is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import func, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import identifier
from db.id_mapping import IdMapping
from db.id_mapping_writer import BY_HULL_ID, KNOWN_STAYS, mark_conflicts, set_hull_ids, transfer_attributes, upsert
from db.statement import bigints, byteas, texts


@dataclass(frozen=True, slots=True)
class Intent:
    """A create intent, or another mapping of the Hull id; if it is not new, its record may exist already."""

    hull_id: str
    state: str
    pipedrive_id: int | None
    made_at: datetime | None
    is_new: bool


_ADD_INTENTS: Final = upsert(
    "hull_id, state, matched_by, intent_at, resolve_at",
    "SELECT :c, :e, id, 'creating', 'created', now(), NULL FROM unnest(CAST(:ids AS text[])) AS id ORDER BY id",
    KNOWN_STAYS,
    key=BY_HULL_ID,
    returning="RETURNING hull_id, state, pipedrive_id, intent_at",
)
_WRITE_INTENTS = text(f"""
    WITH made AS ({_ADD_INTENTS})
    SELECT hull_id, state, pipedrive_id, intent_at, true AS is_new FROM made
     UNION ALL
    SELECT hull_id, state, pipedrive_id, intent_at, false FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:ids AS text[]))""")  # noqa: S608 - put together from constants


def write_intents(session: Session, connector_key: int, entity: str, hull_ids: Iterable[str]) -> dict[str, Intent]:
    """Store create intents. Return Hull id → its intent, or the mapping that it has already."""
    scope = {"c": connector_key, "e": entity, "ids": texts(sorted(hull_ids))}
    return {row.hull_id: Intent(*row) for row in session.execute(_WRITE_INTENTS, scope)}


_CANCEL_INTENTS = text("""
    DELETE FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:ids AS text[])) AND pipedrive_id IS NULL
       AND state IN ('creating', 'unknown')""")


def cancel_intents(session: Session, connector_key: int, entity: str, hull_ids: Iterable[str]) -> None:
    """Delete intents and their reservations: their records were refused, or found."""
    ids = sorted(hull_ids)
    identifier.cancel_reservations(session, connector_key, entity, ids)
    session.execute(_CANCEL_INTENTS, {"c": connector_key, "e": entity, "ids": texts(ids)})


def mark_unknown(session: Session, connector_key: int, entity: str, hull_ids: Iterable[str]) -> None:
    """Mark intents as `unknown`, because Pipedrive was called and its answer was lost.

    The record is looked up before it is created again.
    """
    mine = update(IdMapping).filter_by(connector_key=connector_key, entity=entity, state="creating")
    session.execute(
        mine.where(IdMapping.hull_id.in_(sorted(hull_ids)), IdMapping.pipedrive_id.is_(None)).values(
            state="unknown", updated_at=func.now()
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A Hull id and its Pipedrive id; `matched_by` is `created`, `report`, or the kind of identifier that matched."""

    hull_id: str
    pipedrive_id: int
    matched_by: str


SAME_HULL_ID: Final = """DO UPDATE
       SET hull_id = excluded.hull_id, matched_by = excluded.matched_by, intent_at = coalesce(m.intent_at, excluded.intent_at),
           resolve_at = NULL, updated_at = now(),
           state = CASE WHEN m.state <> 'conflict' THEN m.state WHEN m.digest IS NULL THEN 'shell' ELSE 'full' END
     WHERE m.hull_id IS NULL OR m.hull_id = excluded.hull_id"""
"""A record without a Hull id gets it; a record with another Hull id keeps its own."""
_JOIN = text(
    upsert(
        "pipedrive_id, hull_id, state, matched_by, intent_at, resolve_at",
        """
    SELECT :c, :e, w.pid, w.hid, 'full', w.how, CASE WHEN w.how = 'created' THEN now() END, NULL
      FROM unnest(CAST(:pids AS bigint[]), CAST(:hids AS text[]), CAST(:hows AS text[])) AS w(pid, hid, how)
     WHERE (SELECT o.id FROM id_mappings o
             WHERE o.connector_key = :c AND o.entity = :e AND o.hull_id = w.hid AND coalesce(o.pipedrive_id, w.pid) <> w.pid
             LIMIT 1) IS NULL
     ORDER BY w.pid""",
        SAME_HULL_ID,
        returning="RETURNING m.pipedrive_id",
    )
)


def join(session: Session, connector_key: int, entity: str, joins: Sequence[Join]) -> list[Join]:
    """Map Hull ids to Pipedrive ids, and delete their intents. Return those that another worker has mapped otherwise."""
    if not joins:
        return []
    ids = [each.hull_id for each in joins]
    pending = session.execute(_PENDING, {"c": connector_key, "e": entity, "ids": texts(ids)}).all()
    cancel_intents(session, connector_key, entity, ids)
    scope = {
        "c": connector_key,
        "e": entity,
        "pids": bigints(each.pipedrive_id for each in joins),
        "hids": texts(each.hull_id for each in joins),
        "hows": texts(each.matched_by for each in joins),
    }
    done = _join(session, connector_key, entity, ids, scope)
    became = {each.hull_id: each.pipedrive_id for each in joins if each.pipedrive_id in done}
    left = {became[row.hull_id]: orjson.loads(row.delivered) for row in pending if row.hull_id in became}
    if left:
        transfer_attributes(session, connector_key, entity, left)
    return [each for each in joins if each.pipedrive_id not in done]


TRIES: Final = 5
"""A try fails if another worker commits an intent between the two statements; two failures in a row are rare."""


def _join(session: Session, connector_key: int, entity: str, ids: Sequence[str], scope: dict[str, Any]) -> set[int]:
    """Insert the mappings. Cancel an intent that another worker stores for the same Hull id at the same time."""
    for left in reversed(range(TRIES)):
        try:
            with session.begin_nested():
                return set(session.scalars(_JOIN, scope))
        except IntegrityError:
            if not left:
                raise
        cancel_intents(session, connector_key, entity, ids)
    raise AssertionError("the last try returns or raises")


_DETACH = text("""
    WITH detached AS (UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL, updated_at = now()
                     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:ids AS text[]))
                       AND state IN ('gone', 'deleted', 'merged') RETURNING id)
    SELECT m.hull_id, m.delivered FROM id_mappings m JOIN detached USING (id)""")
"""The outer query reads the rows as they were before."""


def detach_deleted(session: Session, connector_key: int, entity: str, hull_ids: Iterable[str]) -> dict[str, bytes]:
    """Delete the Hull ids of records that were deleted, or merged into a deleted one, so that they can be created again.

    Return Hull id → Hull's values of the old record as JSON, for records with values.
    """
    rows = session.execute(_DETACH, {"c": connector_key, "e": entity, "ids": texts(sorted(hull_ids))}).all()
    return {row.hull_id: bytes(row.delivered) for row in rows if row.delivered}


def store_pending_attributes(session: Session, connector_key: int, entity: str, pending: Mapping[str, bytes]) -> None:
    """Store Hull's values of deleted records (Hull id → JSON) in the intents of the records that replace them."""
    for hull_id, delivered in sorted(pending.items()):
        mine = update(IdMapping).filter_by(connector_key=connector_key, entity=entity, hull_id=hull_id)
        session.execute(mine.values(delivered=delivered))


_PENDING = text("""
    SELECT hull_id, delivered FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:ids AS text[])) AND pipedrive_id IS NULL
       AND delivered IS NOT NULL""")


_REMEMBER = text("""
    UPDATE id_mappings m SET outgoing = w.memory, awaits_account = nullif(w.awaits, '')
      FROM unnest(CAST(:pids AS bigint[]), CAST(:memories AS bytea[]), CAST(:awaits AS text[])) AS w(pid, memory, awaits)
     WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = w.pid AND m.pipedrive_id = ANY(CAST(:pids AS bigint[]))
       AND (m.outgoing IS DISTINCT FROM w.memory OR m.awaits_account IS DISTINCT FROM nullif(w.awaits, ''))""")


def remember(
    session: Session, connector_key: int, entity: str, memories: Mapping[int, tuple[bytes, str | None]]
) -> None:
    """Store Pipedrive id → (the data of its writes as JSON; the Account it waits for)."""
    if not memories:
        return
    scope = {
        "c": connector_key,
        "e": entity,
        "pids": bigints(memories),
        "memories": byteas(memory for memory, _ in memories.values()),
        "awaits": texts(awaits or "" for _, awaits in memories.values()),
    }
    session.execute(_REMEMBER, scope)


_AWAITING = text("""
    UPDATE id_mappings SET awaits_account = NULL
     WHERE connector_key = :c AND awaits_account = ANY(CAST(:ids AS text[])) RETURNING hull_id""")


def take_awaiting(session: Session, connector_key: int, account_ids: Iterable[str]) -> list[str]:
    """Return the Users of Persons that wait for one of these Accounts to have an Organization, and end their wait."""
    ids = sorted(account_ids)
    if not ids:
        return []
    found = session.scalars(_AWAITING, {"c": connector_key, "ids": texts(ids)})
    return sorted(hull_id for hull_id in found if hull_id is not None)


_FORGET_INTENTS = text("UPDATE id_mappings SET intent_at = NULL WHERE id = ANY(CAST(:ids AS bigint[]))")


def forget_intents(session: Session, mapping_ids: Iterable[int]) -> None:
    """Delete the time of create intents: their records were reported as possible duplicates."""
    session.execute(_FORGET_INTENTS, {"ids": bigints(mapping_ids)})


_BY_HULL = text("""
    SELECT hull_id, pipedrive_id, state, outgoing FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:ids AS text[]))""")


@dataclass(frozen=True, slots=True)
class MappingState:
    """The mapping of a Hull id."""

    hull_id: str
    pipedrive_id: int | None
    state: str
    outgoing: bytes | None


def find_joined(session: Session, connector_key: int, entity: str, hull_ids: Iterable[str]) -> dict[str, MappingState]:
    """Return Hull id → its mapping, in any state."""
    rows = session.execute(_BY_HULL, {"c": connector_key, "e": entity, "ids": texts(hull_ids)})
    return {row.hull_id: MappingState(*row) for row in rows}


_OWNERS = text("""
    SELECT pipedrive_id, hull_id, resolve_at IS NOT NULL OR state = 'conflict' AS awaits_hull_id,
           updated_at < now() - interval '10 minutes' AS is_old FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")


@dataclass(frozen=True, slots=True)
class RecordOwner:
    """The User or Account of a record.

    hull_id         None if it is not known
    awaits_hull_id  Hull received the record and has not returned its Hull id yet
    is_old          Hull received it so long ago that its search should return it
    """

    hull_id: str | None
    awaits_hull_id: bool
    is_old: bool


def find_owners(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]
) -> dict[int, RecordOwner]:
    """Return Pipedrive id → its User or Account, for records in the id map."""
    rows = session.execute(_OWNERS, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return {pipedrive_id: RecordOwner(*row) for pipedrive_id, *row in rows}


def find_memories(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> dict[int, bytes]:
    """Return Pipedrive id → the data of its writes, as JSON."""
    query = text(
        "SELECT pipedrive_id, outgoing FROM id_mappings WHERE connector_key = :c AND entity = :e"
        " AND pipedrive_id = ANY(CAST(:ids AS bigint[])) AND outgoing IS NOT NULL"
    )
    rows = session.execute(query, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return {row.pipedrive_id: bytes(row.outgoing) for row in rows}


IN_FLIGHT = "interval '15 minutes'"
"""How long a create may take; its worker then maps the record."""

_INTENDED = text(f"""
    SELECT m.hull_id, m.state = 'creating' AND m.intent_at > now() - {IN_FLIGHT} AS in_flight
      FROM unnest(CAST(:hull_ids AS text[])) AS w(hull_id)
     CROSS JOIN LATERAL (SELECT hull_id, state, intent_at, pipedrive_id FROM id_mappings m
                          WHERE m.connector_key = :c AND m.entity = :e AND m.hull_id = w.hull_id LIMIT 1) m
     WHERE m.pipedrive_id IS NULL""")  # noqa: S608 - a constant of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHullIds:
    """The result of `store_hull_ids`.

    conflicts  Pipedrive ids that are newly in conflict
    resolved   Pipedrive id → Hull id, of those no longer in conflict
    """

    conflicts: list[int] = field(default_factory=list)
    resolved: dict[int, str] = field(default_factory=dict)


def store_hull_ids(session: Session, connector_key: int, entity: str, found: Mapping[int, str]) -> StoredHullIds:
    """Store Hull ids. A record is in conflict if another one has its Hull id already.

    found  Pipedrive id → Hull id, as Hull has just returned

    A User with a record that is being created is not in conflict: the creating worker maps the record. An abandoned intent is
    completed with the record that Hull returned.
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
    join(session, connector_key, entity, fulfilled)
    first = {pipedrive_id: left[pipedrive_id] for pipedrive_id in first_with.values()}
    done = set_hull_ids(session, connector_key, entity, first)
    stored = StoredHullIds(resolved={each: left[each] for each, was_conflict in done.items() if was_conflict})
    rest = {each: hull_id for each, hull_id in left.items() if each not in done}
    if rest:
        stored.conflicts.extend(mark_conflicts(session, connector_key, entity, rest))
    return stored


def _intended(session: Session, connector_key: int, entity: str, found: Mapping[int, str]) -> dict[str, bool]:
    """Return Hull id → whether its record may be in creation at this moment, for those with an intent."""
    scope = {"c": connector_key, "e": entity, "hull_ids": texts(sorted(set(found.values())))}
    return {row.hull_id: row.in_flight for row in session.execute(_INTENDED, scope)}
