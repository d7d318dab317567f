"""Snapshots: the last whole record read from one side, compressed, overwritten by the next."""

from __future__ import annotations

from collections.abc import Sequence

import zstandard
from sqlalchemy import Integer, LargeBinary, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.types import Text

from db.base import Base


class Snapshot(Base):
    __tablename__ = "snapshots"
    __table_args__ = ({"postgresql_with": {"fillfactor": "85"}},)

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    side: Mapped[str] = mapped_column(primary_key=True)
    """`pipedrive` or `hull`."""
    record_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)


_READ = text("""
    SELECT record_id, payload FROM snapshots
     WHERE connector_key = :c AND entity = :e AND side = :side AND record_id = ANY(:ids)""").bindparams(
    bindparam("ids", type_=ARRAY(Text))
)


def read_snapshots(
    session: Session, connector_key: int, entity: str, side: str, record_ids: Sequence[str]
) -> dict[str, bytes]:
    """Record id → the record as JSON."""
    rows = session.execute(_READ, {"c": connector_key, "e": entity, "side": side, "ids": list(record_ids)})
    unpack = zstandard.ZstdDecompressor().decompress
    return {row.record_id: unpack(bytes(row.payload)) for row in rows}
