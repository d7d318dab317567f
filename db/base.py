"""What all tables share: the metadata that Alembic compares, and column types.

Hot tables (id_mappings, identifiers, snapshots, sync_events) carry no foreign keys: a page of 500 records is merged into each of
them in one statement, and a row trigger per foreign key would cost more than the rows themselves.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast

from sqlalchemy import (
    BigInteger,
    CursorResult,
    DateTime,
    Executable,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads this as a class attribute
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        bytes: LargeBinary,
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
    }


RowId = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]
Created = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
Count = Annotated[int, mapped_column(Integer, server_default="0", default=0)]


def changed_rows(session: Session, statement: Executable, values: dict[str, Any] | None = None) -> int:
    """Execute a change; return how many rows it inserted, updated or deleted."""
    return cast("CursorResult[Any]", session.execute(statement, values)).rowcount
