"""Finds records by what people know of them: an id of either side, an e-mail, a domain, an external id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.claim import ClaimHolder
from db.copy import texts
from db.id_mapping import IdMapping
from db.known_as import KnownAs
from db.skip import LastSkip
from db.snapshot import Snapshot
from pipeline.domain.kinds import Entity

MOST: Final = 20


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record, and the identifier that matched; `pipedrive_id` is None for a User or Account that was never matched."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    by: str


_BY_CLAIM = text(f"""
    SELECT e.entity, h.pipedrive_id, w.claim, h.holds
      FROM unnest(CAST(:entities AS text[])) AS e(entity)
     CROSS JOIN unnest(CAST(:claims AS text[]), CAST(:vals AS text[])) AS w(claim, value)
     CROSS JOIN LATERAL (
           SELECT c.pipedrive_id, true AS holds FROM claims c
            WHERE c.connector_key = :c AND c.entity = e.entity AND c.claim = w.claim AND c.value = w.value
              AND c.pipedrive_id <> 0
            UNION ALL
           SELECT k.pipedrive_id, false FROM known_as k
            WHERE k.connector_key = :c AND k.entity = e.entity AND k.claim = w.claim AND k.value = w.value
            LIMIT {MOST}) h""")  # noqa: S608 - a number of ours


def find_by_ids(session: Session, connector_key: int, asked: str) -> list[FoundRecord]:
    """By a Pipedrive id or a Hull id, joined or not."""
    query = select(IdMapping).filter_by(connector_key=connector_key)
    found: list[FoundRecord] = []
    if asked.isascii() and asked.isdigit() and len(asked) <= 18:
        rows = session.scalars(query.where(IdMapping.pipedrive_id == int(asked), IdMapping.entity.in_(_ENTITIES)))
        found += [FoundRecord(row.entity, row.pipedrive_id, row.hull_id, "Pipedrive id") for row in rows]
    rows = session.scalars(query.where(IdMapping.hull_id == asked, IdMapping.entity.in_(_ENTITIES)))
    found += [FoundRecord(row.entity, row.pipedrive_id, row.hull_id, "Hull id") for row in rows]
    return found or _heard_of(session, connector_key, asked)


_ENTITIES: Final = tuple(Entity)


def _heard_of(session: Session, connector_key: int, hull_id: str) -> list[FoundRecord]:
    """Return reported Users and Accounts that were never matched."""
    entities = set(session.scalars(select(LastSkip.entity).filter_by(connector_key=connector_key, hull_id=hull_id)))
    for entity in _ENTITIES:
        if session.get(Snapshot, (connector_key, entity.value, "hull", hull_id)) is not None:
            entities.add(entity.value)
    return [FoundRecord(entity, None, hull_id, "Hull id") for entity in sorted(entities)]


def find_by_claims(session: Session, connector_key: int, wanted: Sequence[tuple[str, str]]) -> list[FoundRecord]:
    """Return records by normalised (claim, value) pairs: holders first, then aliases."""
    if not wanted:
        return []
    scope = {
        "c": connector_key,
        "entities": texts(_ENTITIES),
        "claims": texts(claim for claim, _ in wanted),
        "vals": texts(value for _, value in wanted),
    }
    rows = sorted(session.execute(_BY_CLAIM, scope), key=lambda row: not row.holds)
    found = {(row.entity, row.pipedrive_id): row.claim for row in reversed(rows)}
    return [FoundRecord(entity, pipedrive_id, None, claim) for (entity, pipedrive_id), claim in sorted(found.items())][
        :MOST
    ]


@dataclass(frozen=True, slots=True)
class KnownBy:
    """A value that identifies a record; `holds` when it travels under it, `wanted_by` the record that waits for it."""

    claim: str
    value: str
    holds: bool
    wanted_by: int | None


def known_by(session: Session, connector_key: int, entity: str, pipedrive_id: int) -> list[KnownBy]:
    """By what a record is known: what it holds first."""
    scope = {"connector_key": connector_key, "entity": entity, "pipedrive_id": pipedrive_id}
    held = session.scalars(select(ClaimHolder).filter_by(**scope).limit(MOST))
    found = [KnownBy(row.claim, row.value, holds=True, wanted_by=row.wanted_by) for row in held]
    others = session.scalars(select(KnownAs).filter_by(**scope).limit(MOST))
    return found + [KnownBy(row.claim, row.value, holds=False, wanted_by=None) for row in others]
