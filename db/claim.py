"""Claims: which record holds which e-mail, domain or external id. A value belongs to one record; the first committed holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import BigInteger, Index, Integer, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base


class ClaimHolder(Base):
    __tablename__ = "claims"
    __table_args__ = (Index("ix_claims_holder", "connector_key", "entity", "pipedrive_id"),)

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    claim: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    pipedrive_id: Mapped[int]


Wanted = tuple[str, str, int]

_RELEASE = text("""
    DELETE FROM claims c
     WHERE c.connector_key = :c AND c.entity = :e AND c.pipedrive_id = ANY(:ids)
       AND NOT EXISTS (SELECT 1
                         FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[]))
                              AS w(claim, value, id)
                        WHERE w.claim = c.claim AND w.value = c.value AND w.id = c.pipedrive_id)""").bindparams(
    bindparam("ids", type_=ARRAY(BigInteger))
)

_TAKE = text("""
    INSERT INTO claims (connector_key, entity, claim, value, pipedrive_id)
    SELECT :c, :e, w.claim, w.value, w.id
      FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[])) AS w(claim, value, id)
     ORDER BY w.claim, w.value, w.id
    ON CONFLICT DO NOTHING""")

_HELD_BY_OTHERS = text("""
    SELECT w.claim, w.value, w.id, c.pipedrive_id
      FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:holders AS bigint[])) AS w(claim, value, id)
      JOIN claims c ON c.connector_key = :c AND c.entity = :e AND c.claim = w.claim AND c.value = w.value
     WHERE c.pipedrive_id <> w.id""")


def take_claims(
    session: Session, connector_key: int, entity: str, wanted: Sequence[Wanted], *, changed: Iterable[int]
) -> dict[tuple[str, int], int]:
    """Take each (claim, value, Pipedrive id) that is free; records in `changed` first let go of values they no longer have.

    Returns (claim, Pipedrive id) → the record that holds the value instead.
    """
    columns = {
        "c": connector_key,
        "e": entity,
        "claims": [claim for claim, _, _ in wanted],
        "vals": [value for _, value, _ in wanted],
        "holders": [holder for _, _, holder in wanted],
    }
    if ids := sorted(changed):
        session.execute(_RELEASE, {**columns, "ids": ids})
    if not wanted:
        return {}
    session.execute(_TAKE, columns)
    return {(row[0], row[2]): row[3] for row in session.execute(_HELD_BY_OTHERS, columns)}
