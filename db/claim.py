"""Claims: which record holds which e-mail, domain or external id. A value belongs to one record; the first committed holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Index, Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.arrays import bigints, texts
from db.base import Base
from db.statement import Statement


class ClaimHolder(Base):
    __tablename__ = "claims"
    __table_args__ = (Index("ix_claims_holder", "pipedrive_id", "connector_key", "entity"),)
    """The id stands first: with the connector first, a planner that knows nothing of a new table takes this index for the
    look-up of a value too, and reads every claim of the entity."""

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    claim: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    pipedrive_id: Mapped[int]


Wanted = tuple[str, str, int]

_RELEASE = Statement("""
    DELETE FROM claims c
     WHERE c.connector_key = :c AND c.entity = :e AND c.pipedrive_id = ANY(CAST(:ids AS bigint[]))
       AND NOT EXISTS (SELECT 1
                         FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[]))
                              AS w(claim, value, id)
                        WHERE w.claim = c.claim AND w.value = c.value AND w.id = c.pipedrive_id)""")

_TAKE = Statement("""
    WITH w AS (SELECT * FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[]))
                             AS w(claim, value, id)),
         taken AS (INSERT INTO claims (connector_key, entity, claim, value, pipedrive_id)
                   SELECT :c, :e, w.claim, w.value, w.id FROM w ORDER BY w.claim, w.value, w.id
                   ON CONFLICT DO NOTHING RETURNING claim, pipedrive_id)
    SELECT w.claim, w.value, w.id FROM w
     WHERE NOT EXISTS (SELECT 1 FROM taken WHERE taken.claim = w.claim AND taken.pipedrive_id = w.id)""")
"""Returns what could not be taken, which is little: it is held by somebody, be it the record itself."""

_HELD_BY_OTHERS = Statement("""
    SELECT w.claim, w.id, c.pipedrive_id AS holder
      FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[])) AS w(claim, value, id)
     CROSS JOIN LATERAL (SELECT pipedrive_id FROM claims c
                          WHERE c.connector_key = :c AND c.entity = :e AND c.claim = w.claim AND c.value = w.value
                          LIMIT 1) c
     WHERE c.pipedrive_id <> w.id""")
"""LATERAL with a limit keeps the planner to one index look-up a row, however little it knows of a table that grows fast."""


def take_claims(
    session: Session, connector_key: int, entity: str, wanted: Sequence[Wanted]
) -> dict[tuple[str, int], int]:
    """Take each (claim, value, Pipedrive id) that is free.

    Returns (claim, Pipedrive id) → the record that holds the value instead.
    """
    if not wanted:
        return {}
    scope = {"c": connector_key, "e": entity}
    rest: list[Any] = _TAKE.rows(session, {**scope, **_columns(wanted)})
    if not rest:
        return {}
    held = _HELD_BY_OTHERS.rows(session, {**scope, **_columns(rest)})
    return {(claim, pipedrive_id): holder for claim, pipedrive_id, holder in held}


def release_claims(
    session: Session, connector_key: int, entity: str, wanted: Sequence[Wanted], *, changed: Iterable[int]
) -> None:
    """Records in `changed` let go of values that they do not want any more.

    To be called once Hull has their new ones: until then the old one names them there, and whoever were sent under it would
    become one with them.
    """
    if ids := sorted(changed):
        scope = {"c": connector_key, "e": entity}
        _RELEASE.run(session, {**scope, **_columns(wanted), "ids": bigints(ids)})


_LET_GO = text("""
    DELETE FROM claims WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")


def let_go(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """These records hold no claim any more: whoever asks next may have them."""
    session.execute(_LET_GO, {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)})


_HELD = text("""
    SELECT pipedrive_id, value FROM claims
     WHERE connector_key = :c AND entity = :e AND claim = :claim AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")


def held_values(
    session: Session, connector_key: int, entity: str, claim: str, pipedrive_ids: Iterable[int]
) -> dict[int, str]:
    """Pipedrive id → the value that the record holds of one claim."""
    rows = session.execute(_HELD, {"c": connector_key, "e": entity, "claim": claim, "ids": bigints(pipedrive_ids)})
    return {row.pipedrive_id: row.value for row in rows}


def _columns(wanted: Sequence[Wanted]) -> dict[str, str]:
    return {
        "claims": texts(claim for claim, _, _ in wanted),
        "vals": texts(value for _, value, _ in wanted),
        "holders": bigints(holder for _, _, holder in wanted),
    }
