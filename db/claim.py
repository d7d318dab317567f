"""Claims: which record holds which e-mail, domain or external id. A value belongs to the record that committed it first.

A deleted record keeps the claims that its User or Account in Hull has, until Pipedrive can no longer restore it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Index, Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base
from db.copy import bigints, texts
from db.statement import Statement
from pipeline.domain.departures import DEPARTED


class ClaimHolder(Base):
    """wanted_by  the first other record that requested the value; it is delivered again once the value is free"""

    __tablename__ = "claims"
    __table_args__ = (Index("ix_claims_holder", "pipedrive_id", "connector_key", "entity"),)
    """The id is the first column: with the connector first, a planner without statistics would use this index for the
    look-up of a value too, and read every claim of the entity."""

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    claim: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    pipedrive_id: Mapped[int]
    wanted_by: Mapped[int | None]


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """held   (claim, Pipedrive id) → the record that holds the value instead
    fresh  records that hold a value now that they did not hold before
    """

    held: dict[tuple[str, int], int] = field(default_factory=dict)
    fresh: frozenset[int] = frozenset()


Wanted = tuple[str, str, int]

_HELD_BY = Statement("""
    SELECT claim, value, pipedrive_id FROM claims
     WHERE connector_key + 0 = :c AND entity || '' = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")
"""Expressions instead of columns, so that only the index by record fits: a planner without statistics would use the primary key
for these two columns and read every claim of the entity. The same below."""

_RELEASE = Statement("""
    DELETE FROM claims c
     WHERE c.connector_key + 0 = :c AND c.entity || '' = :e AND c.pipedrive_id = ANY(CAST(:holders AS bigint[]))
       AND EXISTS (SELECT 1
                     FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[]))
                          AS w(claim, value, id)
                    WHERE w.claim = c.claim AND w.value = c.value AND w.id = c.pipedrive_id)
    RETURNING c.wanted_by""")

_TAKE = Statement("""
    WITH w AS (SELECT * FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[]))
                             AS w(claim, value, id)),
         taken AS (INSERT INTO claims (connector_key, entity, claim, value, pipedrive_id)
                   SELECT :c, :e, w.claim, w.value, w.id FROM w ORDER BY w.claim, w.value, w.id
                   ON CONFLICT DO NOTHING RETURNING claim, pipedrive_id)
    SELECT w.claim, w.value, w.id FROM w
     WHERE NOT EXISTS (SELECT 1 FROM taken WHERE taken.claim = w.claim AND taken.pipedrive_id = w.id)""")
"""Returns the few claims that could not be taken, because a record (perhaps the same one) holds them."""

_HELD_BY_OTHERS = Statement("""
    SELECT w.claim, w.value, w.id, c.pipedrive_id AS holder, c.wanted_by
      FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[])) AS w(claim, value, id)
     CROSS JOIN LATERAL (SELECT pipedrive_id, wanted_by FROM claims c
                          WHERE c.connector_key = :c AND c.entity = :e AND c.claim = w.claim AND c.value = w.value
                          LIMIT 1) c
     WHERE c.pipedrive_id <> w.id""")
"""LATERAL with a limit forces one index look-up per row, even without current statistics of a table that grows fast."""

_WAIT = text("""
    WITH w AS (SELECT DISTINCT ON (claim, value) *
                 FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[])) AS w(claim, value, id)
                ORDER BY claim, value, id),
         free AS MATERIALIZED (
                 SELECT w.id, c.ctid FROM w
                   CROSS JOIN LATERAL (SELECT ctid FROM claims c
                                        WHERE c.connector_key = :c AND c.entity = :e AND c.claim = w.claim
                                          AND c.value = w.value AND c.wanted_by IS NULL
                                        LIMIT 1 FOR UPDATE SKIP LOCKED) c)
    UPDATE claims c SET wanted_by = free.id FROM free WHERE c.ctid = free.ctid""")
"""Locked rows are skipped: a deadlock would be worse than a late claim. Rows are joined by ctid: by their keys, a planner without
statistics would read all claims first."""


def take_claims(session: Session, connector_key: int, entity: str, wanted: Sequence[Wanted]) -> ClaimResult:
    """Take each (claim, value, Pipedrive id) that is free; otherwise store the record as waiting for the value.

    A domain that SEVERAL records have is held by NOBODY.
    """
    if not wanted:
        return ClaimResult()
    scope = {"c": connector_key, "e": entity}
    rest: list[Any] = _TAKE.rows(session, {**scope, **columns_of(wanted)})
    fresh = frozenset(record_id for _, _, record_id in set(wanted).difference(rest))
    if not rest:
        return ClaimResult(fresh=fresh)
    held = _HELD_BY_OTHERS.rows(session, {**scope, **columns_of(rest)})
    if waiting := [(claim, value, record_id) for claim, value, record_id, _, wanted_by in held if wanted_by is None]:
        session.execute(_WAIT, {**scope, **columns_of(waiting)})
    taken = ClaimResult(held={(claim, record_id): holder for claim, _, record_id, holder, _ in held}, fresh=fresh)
    return _share_domains(session, connector_key, entity, wanted, taken)


SEVERAL = 3
"""From this number of Organizations with one domain, the domain is shared. Two are more often duplicates of one company."""
NOBODY = 0
"""Holder of a shared domain: it identifies no Organization."""

_SHARED = Statement("""
    WITH v AS MATERIALIZED (SELECT DISTINCT value FROM unnest(CAST(:vals AS text[])) AS w(value))
    SELECT v.value FROM v
     CROSS JOIN LATERAL (
           SELECT count(*) AS givers FROM (
                  SELECT c.pipedrive_id FROM claims c
                   WHERE c.connector_key = :c AND c.entity = :e AND c.claim = 'domain' AND c.value = v.value
                     AND c.pipedrive_id <> 0
                   UNION
                  (SELECT k.pipedrive_id FROM known_as k
                    WHERE k.connector_key = :c AND k.entity = :e AND k.claim = 'domain' AND k.value = v.value LIMIT :several)
                   UNION
                  SELECT w.id FROM unnest(CAST(:vals AS text[]), CAST(:holders AS bigint[])) AS w(value, id)
                   WHERE w.value = v.value) given) g
     WHERE g.givers >= :several""")
"""LATERAL with a limit, as above."""

_SHARE = text("""
    WITH mine AS MATERIALIZED (
           SELECT c.ctid, v.value, c.pipedrive_id FROM unnest(CAST(:vals AS text[])) AS v(value)
            CROSS JOIN LATERAL (SELECT ctid, pipedrive_id FROM claims c
                                 WHERE c.connector_key = :c AND c.entity = :e AND c.claim = 'domain' AND c.value = v.value
                                   AND c.pipedrive_id <> 0
                                 LIMIT 1 FOR UPDATE SKIP LOCKED) c),
         let_go AS (UPDATE claims c SET pipedrive_id = 0, wanted_by = NULL FROM mine WHERE c.ctid = mine.ctid)
    INSERT INTO known_as (connector_key, entity, claim, value, pipedrive_id)
    SELECT :c, :e, 'domain', value, pipedrive_id FROM mine ORDER BY value ON CONFLICT DO NOTHING""")
"""Locked rows are skipped: the next record with the domain shares it. The previous holder keeps the domain as an alias."""


def _share_domains(
    session: Session, connector_key: int, entity: str, wanted: Sequence[Wanted], taken: ClaimResult
) -> ClaimResult:
    """Release the domains that several Organizations have, including those of this page: NOBODY holds a shared domain."""
    held = {
        (value, record_id)
        for claim, value, record_id in wanted
        if claim == "domain" and (claim, record_id) in taken.held
    }
    values = {value for value, _ in held}
    if not values:
        return taken
    givers = [each for each in wanted if each[0] == "domain" and each[1] in values]
    scope = {"c": connector_key, "e": entity}
    shared = {value for (value,) in _SHARED.rows(session, {**scope, **columns_of(givers), "several": SEVERAL})}
    if not shared:
        return taken
    session.execute(_SHARE, {**scope, "vals": texts(sorted(shared))})
    nobody = {(claim, record_id): NOBODY for claim, value, record_id in givers if value in shared}
    return ClaimResult(held={**taken.held, **nobody}, fresh=taken.fresh)


_HELD_BY_NOBODY = Statement("""
    SELECT w.claim, w.value FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[])) AS w(claim, value)
     WHERE (SELECT c.pipedrive_id FROM claims c
             WHERE c.connector_key = :c AND c.entity = :e AND c.claim = w.claim AND c.value = w.value LIMIT 1) = 0""")


def shared_among(
    session: Session, connector_key: int, entity: str, pairs: Iterable[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return those of these (claim, value) pairs that several records share, so that they identify none."""
    asked = sorted(set(pairs))
    if not asked:
        return set()
    scope = {
        "c": connector_key,
        "e": entity,
        "claims": texts(each for each, _ in asked),
        "vals": texts(each for _, each in asked),
    }
    return {(claim, value) for claim, value in _HELD_BY_NOBODY.rows(session, scope)}


_UNSHARE = text("""
    WITH single AS MATERIALIZED (
           SELECT c.ctid, c.connector_key, c.entity, c.value FROM claims c
            WHERE c.pipedrive_id = 0
              AND (SELECT count(*) FROM (SELECT 1 FROM known_as k
                                          WHERE (k.connector_key, k.entity, k.claim, k.value)
                                              = (c.connector_key, c.entity, c.claim, c.value) LIMIT :several) k) < :several),
         gone AS (DELETE FROM claims c USING single s WHERE c.ctid = s.ctid AND c.pipedrive_id = 0 RETURNING s.*)
    SELECT g.connector_key, g.entity, k.pipedrive_id FROM gone g
      JOIN known_as k ON (k.connector_key, k.entity, k.claim, k.value) = (g.connector_key, g.entity, 'domain', g.value)
     ORDER BY 1, 2, 3""")


def unshare_domains(session: Session) -> dict[tuple[int, str], list[int]]:
    """End the sharing of domains that no longer several give. Returns (connector, entity) → the records that may take theirs."""
    freed: dict[tuple[int, str], list[int]] = {}
    for row in session.execute(_UNSHARE, {"several": SEVERAL}):
        freed.setdefault((row.connector_key, row.entity), []).append(row.pipedrive_id)
    return freed


def release_claims(
    session: Session, connector_key: int, entity: str, wanted: Sequence[Wanted], *, changed: Iterable[int]
) -> list[int]:
    """Release values of the records in `changed` that another value has replaced. Return the records that waited for one.

    Hull never removes an e-mail or domain: a record without one keeps the last one in Hull, and still holds it.

    Call it once Hull has the new values: until then the old value names the record there, and another record sent with it would
    be merged with it.
    """
    if not (ids := sorted(changed)):
        return []
    scope = {"c": connector_key, "e": entity}
    held: list[Wanted] = _HELD_BY.rows(session, {**scope, "ids": bigints(ids)})
    kept = set(wanted).intersection(held)
    replaced = {(claim, holder) for claim, _, holder in kept}
    given_up = sorted(each for each in held if each not in kept and (each[0], each[2]) in replaced)
    if not given_up:
        return []
    return sorted({each for (each,) in _RELEASE.rows(session, {**scope, **columns_of(given_up)}) if each is not None})


_HAND_ON = text("""
    UPDATE claims c SET pipedrive_id = heirs.id, wanted_by = nullif(c.wanted_by, heirs.id)
      FROM unnest(CAST(:ids AS bigint[]), CAST(:heirs AS bigint[])) AS heirs(of_id, id)
     WHERE c.connector_key + 0 = :c AND c.entity || '' = :e AND c.pipedrive_id = heirs.of_id
       AND c.pipedrive_id = ANY(CAST(:ids AS bigint[]))""")


def hand_on(session: Session, connector_key: int, entity: str, heirs: Mapping[int, int]) -> None:
    """Hull has joined records with others: what they held (Pipedrive id → heir) is their heirs', with the User or Account."""
    if heirs:
        scope = {"c": connector_key, "e": entity, "ids": bigints(heirs), "heirs": bigints(heirs.values())}
        session.execute(_HAND_ON, scope)


def claims_of(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> list[Wanted]:
    """(claim, value, Pipedrive id) that these records hold."""
    found: list[Wanted] = _HELD_BY.rows(session, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return found


def holders(session: Session, connector_key: int, entity: str, wanted: Sequence[Wanted]) -> dict[tuple[str, int], int]:
    """Return (claim, Pipedrive id) → the other record that holds the value, without taking anything."""
    if not wanted:
        return {}
    rows = _HELD_BY_OTHERS.rows(session, {"c": connector_key, "e": entity, **columns_of(wanted)})
    return {(claim, record_id): holder for claim, _, record_id, holder, _ in rows}


_HELD = text("""
    SELECT pipedrive_id, value FROM claims
     WHERE connector_key + 0 = :c AND entity || '' = :e AND claim = :claim AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")


def held_values(
    session: Session, connector_key: int, entity: str, claim: str, pipedrive_ids: Iterable[int]
) -> dict[int, str]:
    """Return Pipedrive id → the value that the record holds of one claim."""
    rows = session.execute(_HELD, {"c": connector_key, "e": entity, "claim": claim, "ids": bigints(pipedrive_ids)})
    return {row.pipedrive_id: row.value for row in rows}


def columns_of(wanted: Sequence[Wanted]) -> dict[str, str]:
    """Return the parameters `claims`, `vals` and `holders` of a statement."""
    return {
        "claims": texts(claim for claim, _, _ in wanted),
        "vals": texts(value for _, value, _ in wanted),
        "holders": bigints(holder for _, _, holder in wanted),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClaim:
    """A deleted record that holds claims.

    state, since  of its deletion
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
) -> dict[int, HeldClaim]:
    """Return the holders that are deleted records."""
    scope = {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids), "departed": texts(DEPARTED)}
    return {row.pipedrive_id: HeldClaim(**row._asdict()) for row in session.execute(_HOLDERS, scope)}


_OVERDUE = text("""
    SELECT m.connector_key, m.entity, m.pipedrive_id, m.state, m.deleted_at AS since FROM id_mappings m
     WHERE m.state = ANY(CAST(:departed AS text[])) AND m.deleted_at < now() - make_interval(days => :days)
       AND EXISTS (SELECT 1 FROM claims c WHERE c.pipedrive_id = m.pipedrive_id
                      AND c.connector_key = m.connector_key AND c.entity = m.entity)
     ORDER BY m.connector_key, m.entity, m.pipedrive_id LIMIT :limit""")


def overdue(session: Session, days: int, limit: int) -> list[HeldClaim]:
    """Return deleted records that hold claims although Pipedrive can no longer restore them."""
    scope = {"departed": texts(DEPARTED), "days": days, "limit": limit}
    return [HeldClaim(**row._asdict()) for row in session.execute(_OVERDUE, scope)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """claim      `email`, `domain`, `external_id`
    holder     the record that held it
    wanted_by  the record that waited for it, or None
    """

    claim: str
    holder: int
    wanted_by: int | None


_LET_GO = text("""
    DELETE FROM claims WHERE connector_key + 0 = :c AND entity || '' = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
    RETURNING claim, pipedrive_id AS holder, wanted_by""")


def let_go(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> list[Released]:
    """Release all claims of these records: the next record that requests one gets it."""
    if not pipedrive_ids:
        return []
    rows = session.execute(_LET_GO, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return sorted((Released(**row._asdict()) for row in rows), key=lambda each: (each.holder, each.claim))
