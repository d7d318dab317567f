"""Identifiers: which record has which e-mail, domain or external id. Only this module writes the table.

holder    the record that is sent to Hull with the value: the first one that committed it
alias     a record that has the value and is not its holder: a secondary e-mail, or a value of another holder. Look-ups use it
reserved  a User or Account for which a record with the value is about to be created: a second one waits

A deleted record keeps its values until Pipedrive can no longer restore it: its User or Account in Hull has them too.
`db.identifier_search` finds records by their identifiers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import CheckConstraint, Index, Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base
from db.statement import Statement, bigints, texts

SEVERAL: Final = 3
"""From this number of Organizations with one domain, the domain is shared. Two are more often duplicates of one company."""
SHARED: Final = 0
"""Holder of a shared domain, which identifies no Organization."""

_KEY: Final = ("connector_key", "entity", "kind", "value")


class Identifier(Base):
    """One value in one role.

    kind          `email`, `domain`, `external_id`, …
    role          `holder`, `alias` or `reserved`
    pipedrive_id  the record; `SHARED` for a shared domain; None if reserved
    hull_id       the User or Account for which the value is reserved
    wanted_by     of a holder: the first other record that requested the value; it is delivered again once the value is free
    """

    __tablename__ = "identifiers"
    __table_args__ = (
        CheckConstraint(
            "CASE role WHEN 'holder' THEN pipedrive_id IS NOT NULL AND hull_id IS NULL"
            " WHEN 'alias' THEN pipedrive_id IS NOT NULL AND hull_id IS NULL AND wanted_by IS NULL"
            " WHEN 'reserved' THEN pipedrive_id IS NULL AND hull_id IS NOT NULL AND wanted_by IS NULL"
            " ELSE false END",
            name="role",
        ),
        Index("uq_identifiers_holder", *_KEY, unique=True, postgresql_where=text("role = 'holder'")),
        Index("uq_identifiers_alias", *_KEY, "pipedrive_id", unique=True, postgresql_where=text("role = 'alias'")),
        Index("uq_identifiers_reserved", *_KEY, unique=True, postgresql_where=text("role = 'reserved'")),
        Index("ix_identifiers_record", "pipedrive_id", "connector_key", "entity"),
        Index("ix_identifiers_reserved_for", "hull_id", postgresql_where=text("role = 'reserved'")),
    )
    """The last two have the id as their first column: with the connector first, a planner without statistics would use them
    for the look-up of a value too, and read every identifier of the entity. A statement names its role as a literal:
    PostgreSQL uses a partial index only if it can prove its condition."""

    connector_key: Mapped[int] = mapped_column(Integer)
    entity: Mapped[str]
    kind: Mapped[str]
    value: Mapped[str]
    role: Mapped[str]
    pipedrive_id: Mapped[int | None]
    hull_id: Mapped[str | None]
    wanted_by: Mapped[int | None]

    __mapper_args__ = {"primary_key": (*_KEY, "role", "pipedrive_id", "hull_id")}  # noqa: RUF012 - as SQLAlchemy reads it


RecordValue = tuple[str, str, int]
"""(kind, value, Pipedrive id)"""
Reservation = tuple[str, str, str]
"""(kind, value, Hull id)"""

OF_RECORDS: Final = """connector_key + 0 = :c AND entity || '' = :e AND role || '' = 'holder'
       AND pipedrive_id = ANY(ARRAY(SELECT unnest(CAST(:ids AS bigint[]))))"""
"""Condition for the values that these records hold. It has expressions instead of columns, so that only the index by record
fits, and an array that is not a constant: a planner without statistics would use an index by value, or read all identifiers for
a page of ids."""

_W: Final = "unnest(CAST(:kinds AS text[]), CAST(:vals AS text[]), CAST(:ids AS bigint[])) AS w(kind, value, id)"


@dataclass(frozen=True, slots=True)
class TakeResult:
    """Which records became holders.

    held   (kind, Pipedrive id) → the record that holds the value instead
    fresh  records that are the holder of a value since now
    """

    held: dict[tuple[str, int], int] = field(default_factory=dict)
    fresh: frozenset[int] = frozenset()


_TAKE = Statement(f"""
    WITH w AS (SELECT * FROM {_W}),
         taken AS (INSERT INTO identifiers (connector_key, entity, kind, value, role, pipedrive_id)
                   SELECT :c, :e, w.kind, w.value, 'holder', w.id FROM w ORDER BY w.kind, w.value, w.id
                   ON CONFLICT (connector_key, entity, kind, value) WHERE role = 'holder' DO NOTHING
                   RETURNING kind, pipedrive_id)
    SELECT w.kind, w.value, w.id FROM w
     WHERE NOT EXISTS (SELECT 1 FROM taken WHERE taken.kind = w.kind AND taken.pipedrive_id = w.id)""")  # noqa: S608 - constants
"""Returns the few values that have a holder already, perhaps the same record."""

_WAIT = text(f"""
    WITH w AS (SELECT DISTINCT ON (kind, value) * FROM {_W} ORDER BY kind, value, id),
         free AS MATERIALIZED (
                 SELECT w.id, i.ctid FROM w
                   CROSS JOIN LATERAL (SELECT ctid FROM identifiers i
                                        WHERE i.role = 'holder' AND i.connector_key = :c AND i.entity = :e
                                          AND i.kind = w.kind AND i.value = w.value AND i.wanted_by IS NULL
                                        LIMIT 1 FOR UPDATE SKIP LOCKED) i)
    UPDATE identifiers i SET wanted_by = free.id FROM free WHERE i.ctid = free.ctid""")  # noqa: S608 - a constant
"""Locked rows are skipped: a deadlock is worse than a late claim. Rows are joined by ctid: by their keys, a planner without
statistics would read all identifiers first."""

_HELD_BY_OTHERS = Statement(f"""
    SELECT w.kind, w.value, w.id, i.pipedrive_id AS holder, i.wanted_by
      FROM {_W}
     CROSS JOIN LATERAL (SELECT pipedrive_id, wanted_by FROM identifiers i
                          WHERE i.role = 'holder' AND i.connector_key = :c AND i.entity = :e
                            AND i.kind = w.kind AND i.value = w.value
                          LIMIT 1) i
     WHERE i.pipedrive_id <> w.id""")  # noqa: S608 - a constant
"""LATERAL with a limit forces one index look-up per row, even without current statistics of a table that grows fast."""


def take_values(session: Session, connector_key: int, entity: str, wanted: Sequence[RecordValue]) -> TakeResult:
    """Make each record the holder of its value if it is free; otherwise store that the record waits for it.

    SHARED becomes the holder of a domain of SEVERAL records.
    """
    if not wanted:
        return TakeResult()
    scope = {"c": connector_key, "e": entity}
    rest: list[Any] = _TAKE.rows(session, {**scope, **_columns(wanted)})
    fresh = frozenset(record_id for _, _, record_id in set(wanted).difference(rest))
    if not rest:
        return TakeResult(fresh=fresh)
    held = _HELD_BY_OTHERS.rows(session, {**scope, **_columns(rest)})
    if waiting := [(kind, value, record_id) for kind, value, record_id, _, wanted_by in held if wanted_by is None]:
        session.execute(_WAIT, {**scope, **_columns(waiting)})
    taken = TakeResult(held={(kind, record_id): holder for kind, _, record_id, holder, _ in held}, fresh=fresh)
    return _share_domains(session, connector_key, entity, wanted, taken)


def find_other_holders(
    session: Session, connector_key: int, entity: str, wanted: Sequence[RecordValue]
) -> dict[tuple[str, int], int]:
    """Return (kind, Pipedrive id) → the other record that holds the value; write nothing."""
    if not wanted:
        return {}
    rows = _HELD_BY_OTHERS.rows(session, {"c": connector_key, "e": entity, **_columns(wanted)})
    return {(kind, record_id): holder for kind, _, record_id, holder, _ in rows}


_HELD_BY = Statement(f"SELECT kind, value, pipedrive_id FROM identifiers WHERE {OF_RECORDS}")  # noqa: S608 - a constant


def list_held(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> list[RecordValue]:
    """Return the values that these records hold."""
    found: list[Any] = _HELD_BY.rows(session, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return found


_RELEASE = Statement(f"""
    DELETE FROM identifiers i
     WHERE {OF_RECORDS}
       AND EXISTS (SELECT 1 FROM {_W} WHERE w.kind = i.kind AND w.value = i.value AND w.id = i.pipedrive_id)
    RETURNING i.wanted_by""")  # noqa: S608 - constants


def release_replaced(
    session: Session, connector_key: int, entity: str, wanted: Sequence[RecordValue], *, changed: Iterable[int]
) -> list[int]:
    """Release values of the records in `changed` that another value has replaced. Return the records that waited for one.

    Hull never removes an e-mail or domain: a record without one keeps its last one in Hull, and still holds it. Call this when Hull
    has the new values: until then the old value identifies the record there, and Hull would merge another record with it.
    """
    if not (ids := sorted(changed)):
        return []
    held = list_held(session, connector_key, entity, ids)
    kept = set(wanted).intersection(held)
    replaced = {(kind, holder) for kind, _, holder in kept}
    old = sorted(each for each in held if each not in kept and (each[0], each[2]) in replaced)
    if not old:
        return []
    rows = _RELEASE.rows(session, {"c": connector_key, "e": entity, **_columns(old)})
    return sorted({wanted_by for (wanted_by,) in rows if wanted_by is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A released value.

    claim      `email`, `domain`, `external_id`
    holder     the record that held it
    wanted_by  the record that waited for it, or None
    """

    claim: str
    holder: int
    wanted_by: int | None


_RELEASE_ALL = text(f"""
    DELETE FROM identifiers WHERE {OF_RECORDS}
    RETURNING kind AS claim, pipedrive_id AS holder, wanted_by""")  # noqa: S608 - a constant


def release_all(session: Session, connector_key: int, entity: str, pipedrive_ids: Sequence[int]) -> list[Released]:
    """Release all values of these records: the next record that requests one becomes its holder."""
    if not pipedrive_ids:
        return []
    rows = session.execute(_RELEASE_ALL, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})
    return sorted((Released(**row._asdict()) for row in rows), key=lambda each: (each.holder, each.claim))


_TRANSFER = text(f"""
    UPDATE identifiers i SET pipedrive_id = w.survivor, wanted_by = nullif(i.wanted_by, w.survivor)
      FROM unnest(CAST(:ids AS bigint[]), CAST(:survivors AS bigint[])) AS w(id, survivor)
     WHERE {OF_RECORDS} AND i.pipedrive_id = w.id""")  # noqa: S608 - a constant


def transfer(session: Session, connector_key: int, entity: str, survivors: Mapping[int, int]) -> None:
    """Make the survivors of merges (Pipedrive id → survivor) the holders of the merged records' values."""
    if survivors:
        ids = {"ids": bigints(survivors), "survivors": bigints(survivors.values())}
        session.execute(_TRANSFER, {"c": connector_key, "e": entity, **ids})


_SHARED = Statement("""
    WITH v AS MATERIALIZED (SELECT DISTINCT value FROM unnest(CAST(:vals AS text[])) AS w(value))
    SELECT v.value FROM v
     CROSS JOIN LATERAL (
           SELECT count(*) AS records FROM (
                  SELECT i.pipedrive_id FROM identifiers i
                   WHERE i.role = 'holder' AND i.connector_key = :c AND i.entity = :e
                     AND i.kind = 'domain' AND i.value = v.value AND i.pipedrive_id <> 0
                   UNION
                  (SELECT i.pipedrive_id FROM identifiers i
                    WHERE i.role = 'alias' AND i.connector_key = :c AND i.entity = :e
                      AND i.kind = 'domain' AND i.value = v.value LIMIT :several)
                   UNION
                  SELECT w.id FROM unnest(CAST(:vals AS text[]), CAST(:ids AS bigint[])) AS w(value, id)
                   WHERE w.value = v.value) has_it) h
     WHERE h.records >= :several""")
"""LATERAL with a limit, as above."""

_SHARE = text("""
    WITH mine AS MATERIALIZED (
           SELECT i.ctid, v.value, i.pipedrive_id FROM unnest(CAST(:vals AS text[])) AS v(value)
            CROSS JOIN LATERAL (SELECT ctid, pipedrive_id FROM identifiers i
                                 WHERE i.role = 'holder' AND i.connector_key = :c AND i.entity = :e
                                   AND i.kind = 'domain' AND i.value = v.value AND i.pipedrive_id <> 0
                                 LIMIT 1 FOR UPDATE SKIP LOCKED) i),
         shared AS (UPDATE identifiers i SET pipedrive_id = 0, wanted_by = NULL FROM mine WHERE i.ctid = mine.ctid)
    INSERT INTO identifiers (connector_key, entity, kind, value, role, pipedrive_id)
    SELECT :c, :e, 'domain', value, 'alias', pipedrive_id FROM mine ORDER BY value
    ON CONFLICT (connector_key, entity, kind, value, pipedrive_id) WHERE role = 'alias' DO NOTHING""")
"""Locked rows are skipped: the next record with the domain shares it. The previous holder becomes an alias."""


def _share_domains(
    session: Session, connector_key: int, entity: str, wanted: Sequence[RecordValue], taken: TakeResult
) -> TakeResult:
    """Make SHARED the holder of domains that several Organizations have, including those of this page."""
    values = {value for kind, value, record_id in wanted if kind == "domain" and (kind, record_id) in taken.held}
    if not values:
        return taken
    with_domain = [each for each in wanted if each[0] == "domain" and each[1] in values]
    scope = {"c": connector_key, "e": entity}
    shared = {value for (value,) in _SHARED.rows(session, {**scope, **_columns(with_domain), "several": SEVERAL})}
    if not shared:
        return taken
    session.execute(_SHARE, {**scope, "vals": texts(sorted(shared))})
    shared_by = {(kind, record_id): SHARED for kind, value, record_id in with_domain if value in shared}
    return TakeResult(held={**taken.held, **shared_by}, fresh=taken.fresh)


_UNSHARE = text("""
    WITH single AS MATERIALIZED (
           SELECT i.ctid, i.connector_key, i.entity, i.value FROM identifiers i
            WHERE i.pipedrive_id = 0 AND i.role || '' = 'holder'
              AND (SELECT count(*) FROM (SELECT 1 FROM identifiers a
                                          WHERE a.role = 'alias' AND (a.connector_key, a.entity, a.kind, a.value)
                                              = (i.connector_key, i.entity, i.kind, i.value) LIMIT :several) a) < :several),
         freed AS (DELETE FROM identifiers i USING single s WHERE i.ctid = s.ctid AND i.pipedrive_id = 0 RETURNING s.*)
    SELECT f.connector_key, f.entity, a.pipedrive_id FROM freed f
      JOIN identifiers a ON a.role = 'alias'
       AND (a.connector_key, a.entity, a.kind, a.value) = (f.connector_key, f.entity, 'domain', f.value)
     ORDER BY 1, 2, 3""")


def unshare_domains(session: Session) -> dict[tuple[int, str], list[int]]:
    """Release shared domains of fewer than SEVERAL Organizations. Return (connector, entity) → records that may take one."""
    freed: dict[tuple[int, str], list[int]] = {}
    for row in session.execute(_UNSHARE, {"several": SEVERAL}):
        freed.setdefault((row.connector_key, row.entity), []).append(row.pipedrive_id)
    return freed


_DELETE_OTHER_ALIASES = text(f"""
    DELETE FROM identifiers i
     WHERE i.connector_key + 0 = :c AND i.entity || '' = :e AND i.role || '' = 'alias'
       AND i.pipedrive_id = ANY(ARRAY(SELECT unnest(CAST(:changed AS bigint[]))))
       AND (i.kind, i.value, i.pipedrive_id) NOT IN (SELECT kind, value, id FROM {_W})""")  # noqa: S608 - a constant

_ADD_ALIASES = text(f"""
    INSERT INTO identifiers (connector_key, entity, kind, value, role, pipedrive_id)
    SELECT :c, :e, w.kind, w.value, 'alias', w.id FROM {_W} ORDER BY w.kind, w.value, w.id
    ON CONFLICT (connector_key, entity, kind, value, pipedrive_id) WHERE role = 'alias' DO NOTHING""")  # noqa: S608 - a constant


def write_aliases(
    session: Session,
    connector_key: int,
    entity: str,
    aliases: Sequence[RecordValue],
    *,
    changed: Iterable[int],
    kept: Sequence[RecordValue] = (),
) -> None:
    """Add these aliases, and delete other ones of the records in `changed`.

    kept  further values of these records: not deleted if they are aliases, and not added
    """
    scope = {"c": connector_key, "e": entity}
    if ids := sorted(changed):
        session.execute(_DELETE_OTHER_ALIASES, {**scope, **_columns([*aliases, *kept]), "changed": bigints(ids)})
    if aliases:
        session.execute(_ADD_ALIASES, {**scope, **_columns(aliases)})


_DELETE_ABANDONED = text("""
    WITH abandoned AS (
        SELECT i.ctid
          FROM unnest(CAST(:kinds AS text[]), CAST(:vals AS text[])) AS w(kind, value)
         CROSS JOIN LATERAL (SELECT ctid, hull_id FROM identifiers i
                              WHERE i.role = 'reserved' AND i.connector_key = :c AND i.entity = :e
                                AND i.kind = w.kind AND i.value = w.value
                              LIMIT 1) i
          LEFT JOIN LATERAL (SELECT true AS exists FROM id_mappings m
                              WHERE m.connector_key = :c AND m.entity = :e AND m.hull_id = i.hull_id
                                AND m.state IN ('creating', 'unknown')
                              LIMIT 1) intent ON true
         WHERE intent.exists IS NULL)
    DELETE FROM identifiers i USING abandoned WHERE i.ctid = abandoned.ctid""")
"""Reservations without a create intent. LATERAL with a limit: reservations change too fast for the planner's statistics."""

_RESERVE = text("""
    INSERT INTO identifiers (connector_key, entity, kind, value, role, hull_id)
    SELECT :c, :e, w.kind, w.value, 'reserved', w.hull_id
      FROM unnest(CAST(:kinds AS text[]), CAST(:vals AS text[]), CAST(:hull_ids AS text[])) AS w(kind, value, hull_id)
     ORDER BY w.kind, w.value, w.hull_id
    ON CONFLICT (connector_key, entity, kind, value) WHERE role = 'reserved' DO NOTHING""")

_RESERVED_BY_OTHERS = text("""
    SELECT w.hull_id, i.hull_id AS first
      FROM unnest(CAST(:kinds AS text[]), CAST(:vals AS text[]), CAST(:hull_ids AS text[])) AS w(kind, value, hull_id)
     CROSS JOIN LATERAL (SELECT hull_id FROM identifiers i
                          WHERE i.role = 'reserved' AND i.connector_key = :c AND i.entity = :e
                            AND i.kind = w.kind AND i.value = w.value
                          LIMIT 1) i
     WHERE i.hull_id <> w.hull_id""")


def reserve(session: Session, connector_key: int, entity: str, wanted: Sequence[Reservation]) -> dict[str, str]:
    """Reserve values for records to be created. Return Hull id → the Hull id with the reservation, for those that must wait."""
    if not wanted:
        return {}
    kinds, values, hull_ids = map(texts, zip(*wanted, strict=True))
    scope = {"c": connector_key, "e": entity, "kinds": kinds, "vals": values, "hull_ids": hull_ids}
    session.execute(_DELETE_ABANDONED, scope)
    session.execute(_RESERVE, scope)
    return {row.hull_id: row.first for row in session.execute(_RESERVED_BY_OTHERS, scope)}


_CANCEL = text("""
    DELETE FROM identifiers i
     WHERE i.role = 'reserved' AND i.connector_key + 0 = :c AND i.entity || '' = :e AND i.hull_id = ANY(CAST(:ids AS text[]))""")


def cancel_reservations(session: Session, connector_key: int, entity: str, hull_ids: Iterable[str]) -> None:
    """Delete the reservations of these Hull ids: their records were created, found, or refused."""
    session.execute(_CANCEL, {"c": connector_key, "e": entity, "ids": texts(sorted(hull_ids))})


def _columns(values: Sequence[RecordValue]) -> dict[str, str]:
    """Return the parameters `kinds`, `vals` and `ids` of a statement."""
    return {
        "kinds": texts(kind for kind, _, _ in values),
        "vals": texts(value for _, value, _ in values),
        "ids": bigints(record_id for _, _, record_id in values),
    }
