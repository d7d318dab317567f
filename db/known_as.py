"""Aliases for look-ups: secondary e-mails, and claims that another record holds.

`claims` says which record is sent with a value; both together say which records have a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Index, Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import joining
from db.base import Base
from db.claim import Wanted, columns_of
from db.copy import bigints, texts
from pipeline.domain.departures import LIVING

FOUND_AT_MOST = 20
"""Maximum of records per look-up: more than one already needs a person."""


class KnownAs(Base):
    __tablename__ = "known_as"
    __table_args__ = (Index("ix_known_as_record", "pipedrive_id", "connector_key", "entity"),)

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    claim: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    pipedrive_id: Mapped[int] = mapped_column(primary_key=True)


_FORGET = text("""
    DELETE FROM known_as k
     WHERE k.connector_key = :c AND k.entity = :e AND k.pipedrive_id = ANY(CAST(:ids AS bigint[]))
       AND (k.claim, k.value, k.pipedrive_id) NOT IN (
           SELECT claim, value, id FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[]))
                                        AS w(claim, value, id))""")

_NOTE = text("""
    INSERT INTO known_as (connector_key, entity, claim, value, pipedrive_id)
    SELECT :c, :e, w.claim, w.value, w.id
      FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[])) AS w(claim, value, id)
     ORDER BY w.claim, w.value, w.id
    ON CONFLICT DO NOTHING""")


def note_values(
    session: Session,
    connector_key: int,
    entity: str,
    values: Sequence[Wanted],
    *,
    changed: Iterable[int],
    true: Sequence[Wanted] = (),
) -> None:
    """Store (claim, value, Pipedrive id) as given; delete other ones of the records in `changed`.

    true  further values of these records: kept if they exist, and not added
    """
    scope = {"c": connector_key, "e": entity}
    if ids := sorted(changed):
        session.execute(_FORGET, {**scope, **columns_of([*values, *true]), "ids": bigints(ids)})
    if values:
        session.execute(_NOTE, {**scope, **columns_of(values)})


_FIND = text(f"""
    SELECT w.claim, w.value, h.pipedrive_id
      FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[])) AS w(claim, value)
     CROSS JOIN LATERAL (
           SELECT c.pipedrive_id FROM claims c
            WHERE c.connector_key = :c AND c.entity = :e AND c.claim = w.claim AND c.value = w.value
            UNION
           SELECT k.pipedrive_id FROM known_as k
            WHERE k.connector_key = :c AND k.entity = :e AND k.claim = w.claim AND k.value = w.value
            LIMIT {FOUND_AT_MOST}) h
     CROSS JOIN LATERAL (
           SELECT FROM id_mappings m
            WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = h.pipedrive_id
              AND m.state = ANY(CAST(:living AS text[]))
            LIMIT 1) m
     WHERE (SELECT s.pipedrive_id FROM claims s
             WHERE s.connector_key = :c AND s.entity = :e AND s.claim = w.claim AND s.value = w.value LIMIT 1) IS DISTINCT FROM 0
     ORDER BY h.pipedrive_id""")  # noqa: S608 - a number of ours
"""LATERAL with a limit, as in `db.claim`: joined otherwise, a new table was read whole for every value."""


def find_records(
    session: Session, connector_key: int, entity: str, wanted: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[int]]:
    """Return (claim, value) → the existing records with it, by the local index.

    A shared domain finds none of its Organizations.
    """
    pairs = sorted(set(wanted))
    if not pairs:
        return {}
    scope = {
        "c": connector_key,
        "e": entity,
        "claims": texts(claim for claim, _ in pairs),
        "vals": texts(value for _, value in pairs),
        "living": texts(LIVING),
    }
    found: dict[tuple[str, str], list[int]] = {}
    for row in session.execute(_FIND, scope):
        found.setdefault((row.claim, row.value), []).append(row.pipedrive_id)
    return found


_TWINS = text("""
    SELECT m.id, m.pipedrive_id, m.hull_id, k.pipedrive_id AS other, k.claim
      FROM id_mappings m
     CROSS JOIN LATERAL (SELECT claim, value FROM claims c
                          WHERE c.pipedrive_id = m.pipedrive_id AND c.connector_key + 0 = :c AND c.entity || '' = :e OFFSET 0) c
     CROSS JOIN LATERAL (SELECT pipedrive_id, claim FROM known_as k
                          WHERE k.connector_key = :c AND k.entity = :e AND k.claim = c.claim AND k.value = c.value OFFSET 0) k
     CROSS JOIN LATERAL (SELECT state, first_seen_at FROM id_mappings o
                          WHERE o.connector_key = :c AND o.entity = :e AND o.pipedrive_id = k.pipedrive_id LIMIT 1) o
     WHERE m.connector_key = :c AND m.entity = :e AND m.intent_at > now() - interval '1 day' AND m.state = 'full'
       AND k.pipedrive_id <> m.pipedrive_id AND o.state = ANY(CAST(:living AS text[]))
       AND o.first_seen_at BETWEEN m.intent_at AND m.intent_at + interval '1 hour'
     ORDER BY m.pipedrive_id, other LIMIT :limit""")


@dataclass(frozen=True, slots=True)
class Twins:
    """A record that was made here, and another one that came up soon afterwards under the same claim."""

    pipedrive_id: int
    hull_id: str
    other: int
    claim: str


def take_twins(session: Session, connector_key: int, entity: str, limit: int = 100) -> list[Twins]:
    """Possible duplicates, each reported once."""
    scope = {"c": connector_key, "e": entity, "living": texts(LIVING), "limit": limit}
    rows = session.execute(_TWINS, scope).all()
    if rows:
        joining.forget_intents(session, [row.id for row in rows])
    return [Twins(row.pipedrive_id, row.hull_id, row.other, row.claim) for row in rows]


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """A record that is known on both sides, and by what it was found: a claim, `pipedrive id` or `hull id`."""

    hull_id: str
    pipedrive_id: int | None
    found_by: str


_JOINED = text("""
    SELECT DISTINCT ON (m.hull_id) m.hull_id, m.pipedrive_id, f.found_by
      FROM (SELECT pipedrive_id, claim AS found_by FROM claims
             WHERE connector_key = :c AND entity = :e AND claim = ANY(CAST(:claims AS text[])) AND value = :said
             UNION ALL
            SELECT pipedrive_id, claim FROM known_as
             WHERE connector_key = :c AND entity = :e AND claim = ANY(CAST(:claims AS text[])) AND value = :said
             UNION ALL
            SELECT CAST(:number AS bigint), 'pipedrive id' WHERE CAST(:number AS bigint) IS NOT NULL
             UNION ALL
            SELECT pipedrive_id, 'hull id' FROM id_mappings
             WHERE connector_key = :c AND entity = :e AND hull_id = :said) f
     CROSS JOIN LATERAL (SELECT hull_id, pipedrive_id FROM id_mappings m
                          WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = f.pipedrive_id LIMIT 1) m
     WHERE m.hull_id IS NOT NULL
     ORDER BY m.hull_id LIMIT :limit""")
CLAIMS = ("email", "external_id", "anonymous_id", "domain")


def find_joined(session: Session, connector_key: int, entity: str, said: str, limit: int = 20) -> list[KnownRecord]:
    """Return records with a known Hull id, by a claim's value, a Pipedrive id or a Hull id."""
    number = int(said) if said.isascii() and said.isdigit() and len(said) <= 18 else None
    scope = {"c": connector_key, "e": entity, "said": said, "number": number, "claims": texts(CLAIMS), "limit": limit}
    return [KnownRecord(*row) for row in session.execute(_JOINED, scope)]


_BY_EMAIL = text("""
    SELECT DISTINCT w.value, m.hull_id
      FROM unnest(CAST(:emails AS text[])) AS w(value)
     CROSS JOIN LATERAL (
           (SELECT pipedrive_id FROM claims
             WHERE connector_key = :c AND entity = :e AND claim = 'email' AND value = w.value LIMIT 2)
           UNION
           (SELECT pipedrive_id FROM known_as
             WHERE connector_key = :c AND entity = :e AND claim = 'email' AND value = w.value LIMIT 2)) f
     CROSS JOIN LATERAL (SELECT hull_id FROM id_mappings m
                          WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id = f.pipedrive_id LIMIT 1) m
     WHERE m.hull_id IS NOT NULL""")


def find_by_emails(session: Session, connector_key: int, entity: str, emails: Iterable[str]) -> dict[str, set[str]]:
    """E-mail → the Hull ids of records that are known by it, more than one where several are; in one statement."""
    found: dict[str, set[str]] = {}
    for row in session.execute(_BY_EMAIL, {"c": connector_key, "e": entity, "emails": texts(emails)}):
        found.setdefault(row.value, set()).add(row.hull_id)
    return found
