"""Claims of departed records: held for as long as Pipedrive can restore them, or until a person releases them.

Hull's User or Account keeps its e-mail or domain when its record is deleted, and whoever were sent under it would become one
with it: that cannot be undone, while a restored record is to find what was its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.arrays import bigints, texts
from pipeline.domain.departures import DEPARTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A departed record that holds claims.

    state, since  of its departure
    """

    connector_key: int
    entity: str
    pipedrive_id: int
    state: str
    since: datetime


_HOLDERS = text("""
    SELECT connector_key, entity, pipedrive_id, state, deleted_at AS since FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
       AND state = ANY(CAST(:departed AS text[])) AND deleted_at IS NOT NULL""")


def departed_holders(
    session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]
) -> dict[int, Held]:
    """Those of these holders that are departed records."""
    scope = {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids), "departed": texts(DEPARTED)}
    return {row.pipedrive_id: Held(**row._asdict()) for row in session.execute(_HOLDERS, scope)}


_OVERDUE = text("""
    SELECT m.connector_key, m.entity, m.pipedrive_id, m.state, m.deleted_at AS since FROM id_mappings m
     WHERE m.state = ANY(CAST(:departed AS text[])) AND m.deleted_at < now() - make_interval(days => :days)
       AND EXISTS (SELECT 1 FROM claims c WHERE c.pipedrive_id = m.pipedrive_id
                      AND c.connector_key = m.connector_key AND c.entity = m.entity)
     ORDER BY m.connector_key, m.entity, m.pipedrive_id LIMIT :limit""")


def overdue(session: Session, days: int, limit: int) -> list[Held]:
    """Departed records that hold claims although Pipedrive cannot restore them any more."""
    scope = {"departed": texts(DEPARTED), "days": days, "limit": limit}
    return [Held(**row._asdict()) for row in session.execute(_OVERDUE, scope)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """claim      `email`, `domain`, `external_id`
    holder     who held it
    wanted_by  who waited for it, if anybody
    """

    claim: str
    holder: int
    wanted_by: int | None


_LET_GO = text("""
    DELETE FROM claims WHERE connector_key + 0 = :c AND entity || '' = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
    RETURNING claim, pipedrive_id AS holder, wanted_by""")


def let_go(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> list[Released]:
    """These records hold no claim any more: whoever asks next may have them."""
    if not pipedrive_ids:
        return []
    rows = session.execute(_LET_GO, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return sorted((Released(**row._asdict()) for row in rows), key=lambda each: (each.holder, each.claim))
