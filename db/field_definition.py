"""Pipedrive's field definitions of each connector as last read, and when they may be read again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ForeignKey, Integer, Text, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base


class FieldDefinitions(Base):
    """The rows of personFields or organizationFields as Pipedrive last returned them.

    refresh_began_at  when a worker last began to read them again
    unknown           keys of the codes and option ids that were not known then: looking up the same ones again rarely helps
    unchanged_reads   consecutive readings without a change: each doubles the pause before the same ones are looked up again
    """

    __tablename__ = "field_definitions"

    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"), primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    rows: Mapped[list[Any]]
    fetched_at: Mapped[datetime] = mapped_column(server_default=func.now())
    refresh_began_at: Mapped[datetime | None]
    unknown: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    unchanged_reads: Mapped[int] = mapped_column(Integer, server_default="0")


def find_fields(session: Session, connector_key: int, entity: str) -> FieldDefinitions | None:
    """Return the field definitions that were last read."""
    return session.get(FieldDefinitions, (connector_key, entity))


_BEFORE = text("SELECT rows FROM field_definitions WHERE connector_key = :c AND entity = :e FOR UPDATE")


def keep_fields(session: Session, connector_key: int, entity: str, rows: list[Any]) -> list[Any] | None:
    """Replace the field definitions of one entity; return the previous ones, None if there were none."""
    before: list[Any] | None = session.scalar(_BEFORE, {"c": connector_key, "e": entity})
    row = insert(FieldDefinitions).values(connector_key=connector_key, entity=entity, rows=rows, fetched_at=func.now())
    session.execute(
        row.on_conflict_do_update(
            index_elements=["connector_key", "entity"],
            set_={"rows": row.excluded.rows, "fetched_at": row.excluded.fetched_at},
        )
    )
    return before


MOST_UNKNOWN = 200
"""Up to this number of unknown codes and ids, each new one causes a new reading; further ones wait for the longer pause."""


_CLAIM_READING = text("""
    UPDATE field_definitions
       SET refresh_began_at = now(), unchanged_reads = least(unchanged_reads + 1, 20),
           unknown = CASE WHEN cardinality(unknown) >= :most OR unknown @> CAST(:unknown AS text[]) THEN unknown
                          ELSE (unknown || CAST(:unknown AS text[]))[1:2 * :most] END
     WHERE connector_key = :c AND entity = :e
       AND (refresh_began_at IS NULL
            OR refresh_began_at <= now() - make_interval(secs => least(:again_s, :burst_s * power(2, unchanged_reads)))
            OR refresh_began_at <= now() - make_interval(secs => :burst_s)
               AND cardinality(unknown) < :most AND NOT unknown @> CAST(:unknown AS text[]))
    RETURNING true""")


def claim_reading(
    session: Session, connector_key: int, entity: str, unknown: Sequence[str], *, burst_s: float, again_s: float
) -> bool:
    """Return whether this caller must read the definitions again: one of several that find an unknown code at the same time.

    burst_s  the pause between two readings if one of `unknown` was not looked up before; else it doubles each time
    again_s  the longest pause
    """
    scope = {"c": connector_key, "e": entity, "unknown": list(unknown), "most": MOST_UNKNOWN}
    return session.scalar(_CLAIM_READING, {**scope, "burst_s": burst_s, "again_s": again_s}) is True


_FORGET_UNKNOWN = text(
    "UPDATE field_definitions SET unknown = '{}', unchanged_reads = 0 WHERE connector_key = :c AND entity = :e"
)


def forget_unknown(session: Session, connector_key: int, entity: str) -> None:
    """Forget unknown codes and ids, because the definitions have changed."""
    session.execute(_FORGET_UNKNOWN, {"c": connector_key, "e": entity})


_HOLD_FIELDS = text("SELECT fetched_at FROM field_definitions WHERE connector_key = :c AND entity = :e FOR SHARE")


def hold_fields(session: Session, connector_key: int, entity: str) -> datetime | None:
    """Return when the definitions were read, and share-lock their row until the transaction ends."""
    read_at: datetime | None = session.scalar(_HOLD_FIELDS, {"c": connector_key, "e": entity})
    return read_at
