"""Shells: Organizations known by their Pipedrive id alone, until they are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import change_writer, id_mapping_writer
from db.id_mapping_writer import REQUEST_AGAIN_S, UNREQUESTED_SHELLS

_COUNT = text(f"""
    SELECT count(*) FILTER (WHERE {UNREQUESTED_SHELLS}) AS waiting, count(*) FILTER (WHERE state = 'full') AS filled
      FROM id_mappings WHERE connector_key = :c AND entity = :e""")  # noqa: S608 - conditions of ours

_WITH_SHELLS = text(f"""
    SELECT key FROM connectors WHERE state = 'active' AND EXISTS (
           SELECT 1 FROM id_mappings WHERE connector_key = connectors.key AND state = 'shell'
              AND (requested_at IS NULL OR requested_at < now() - make_interval(secs => {REQUEST_AGAIN_S}))) ORDER BY key""")  # noqa: S608

_AGES = text("""
    SELECT c.name, count(*) AS shells, min(m.first_seen_at) AS oldest,
           count(*) FILTER (WHERE m.first_seen_at < now() - interval '2 minutes') AS late
      FROM id_mappings m JOIN connectors c ON c.key = m.connector_key
     WHERE m.state = 'shell' AND (CAST(:key AS integer) IS NULL OR c.key = :key) GROUP BY c.name ORDER BY c.name""")


@dataclass(frozen=True, slots=True)
class ShellAges:
    """Numbers of shells of one connector; `late` ones have waited longer than expected."""

    connector: str
    shells: int
    oldest: datetime
    late: int


def connectors_with_shells(session: Session) -> list[int]:
    """Return the active connectors with shells that were not requested recently."""
    return list(session.scalars(_WITH_SHELLS))


def count_shells(session: Session, connector_key: int, entity: str) -> tuple[int, int]:
    """Return (shells to request, records that are not shells)."""
    row = session.execute(_COUNT, {"c": connector_key, "e": entity}).one()
    return row.waiting, row.filled


def request_shells(session: Session, connector_key: int, entity: str) -> int:
    """Write a change of every waiting shell, so that it is read by its id; return how many."""
    ids = id_mapping_writer.claim_unrequested_shells(session, connector_key, entity)
    change_writer.write_shells(session, connector_key, entity, ids)
    return len(ids)


def shell_ages(session: Session, connector_key: int | None = None) -> list[ShellAges]:
    """Return the number and age of shells by connector."""
    return [ShellAges(*row) for row in session.execute(_AGES, {"key": connector_key})]
