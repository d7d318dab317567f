"""Read all tables, to compare them before and after an action that must change nothing."""

from __future__ import annotations

from sqlalchemy import text

from db.base import Base
from db.session import transaction

Tables = dict[str, list[str]]


def everything() -> Tables:
    """Return table → its rows as text, in order."""
    with transaction() as session:
        return {
            table.name: sorted(session.scalars(text(f"SELECT t::text FROM {table.name} t")))  # noqa: S608 - our names
            for table in Base.metadata.sorted_tables
        }


def differences(before: Tables, after: Tables) -> dict[str, list[str]]:
    """Return table → rows that were added, deleted or changed."""
    return {name: sorted(set(before[name]) ^ set(after[name])) for name in before if before[name] != after[name]}
