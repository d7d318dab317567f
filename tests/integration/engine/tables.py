"""The tables as they stand, to be compared before and after something that must change nothing."""

from __future__ import annotations

from sqlalchemy import text

from db.base import Base
from db.session import transaction

Tables = dict[str, list[str]]


def everything() -> Tables:
    """Table → its rows as text, in order."""
    with transaction() as session:
        return {
            table.name: sorted(session.scalars(text(f"SELECT t::text FROM {table.name} t")))  # noqa: S608 - our names
            for table in Base.metadata.sorted_tables
        }


def differences(before: Tables, after: Tables) -> dict[str, list[str]]:
    """Table → rows that came, went or changed."""
    return {name: sorted(set(before[name]) ^ set(after[name])) for name in before if before[name] != after[name]}
