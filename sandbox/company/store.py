"""Where records live: one SQLite table per entity, small columns for finding, bodies only for what differs from the generator.

In: `Facts` and bodies. Out: rows in keyset order. A pristine generated record is a row of 30 bytes with no body (a million
take about 100 MB and five seconds); an edited, created or loaded one carries its v2 JSON. The caller holds the lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sandbox.company.fields import ENTITIES, Entity
from sandbox.company.generated.draws import Facts

SortField = Literal["id", "update_time", "add_time"]
Bound = tuple[int, int]  # (value of the sort field, id)

_COLUMNS = "id, add_time, update_time, owner_id, org_id, is_deleted, body, raw"
_TABLE = """
CREATE TABLE {entity} (
    id INTEGER PRIMARY KEY,
    add_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL,
    owner_id INTEGER,
    org_id INTEGER,
    is_deleted INTEGER NOT NULL,
    body BLOB,
    raw INTEGER NOT NULL DEFAULT 0
);
"""
# Ids are never given twice, so the highest one that was purged is remembered.
_PURGED = "CREATE TABLE purged (entity TEXT PRIMARY KEY, highest INTEGER NOT NULL)"
_CHANGED = """(body IS NULL OR instr(body, CAST('"update_time":null' AS BLOB)) = 0)"""
_INDEXED = ("update_time", "add_time", "owner_id", "org_id")


class Row(NamedTuple):
    """One stored record. `body` None: as generated. `raw`: injected as is, to be left alone."""

    id: int
    add_time: int
    update_time: int
    owner_id: int | None
    org_id: int | None
    is_deleted: int
    body: bytes | None
    raw: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """Which records, in which order. `after` is the last one of the page before; times are epoch seconds."""

    sort_by: SortField = "id"
    descending: bool = False
    limit: int = 100
    after: Bound | None = None
    ids: tuple[int, ...] | None = None
    owner_id: int | None = None
    org_id: int | None = None
    updated_since: int | None = None
    updated_until: int | None = None
    with_deleted: bool = False
    with_unchanged: bool = True


def open_store() -> sqlite3.Connection:
    """Open an empty store in memory, usable from any thread that holds the company's lock."""
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    for entity in ENTITIES:
        connection.execute(_TABLE.format(entity=entity))
    connection.execute(_PURGED)
    return connection


def fill(connection: sqlite3.Connection, entity: Entity, facts: Iterable[Facts]) -> None:
    """Insert pristine records, then the indexes, which is faster than the other way round."""
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO {entity} VALUES (?, ?, ?, ?, ?, ?, NULL, 0)", facts)  # noqa: S608 (two names)
    connection.execute("COMMIT")
    for column in _INDEXED:
        connection.execute(f"CREATE INDEX {entity}_{column} ON {entity} ({column}, id)")


def find(connection: sqlite3.Connection, entity: Entity, record_id: int) -> Row | None:
    """Find one record, deleted or not."""
    if record_id >= 2**63:  # more than SQLite can be asked for
        return None
    found = connection.execute(f"SELECT {_COLUMNS} FROM {entity} WHERE id = ?", (record_id,)).fetchone()  # noqa: S608
    return None if found is None else Row._make(found)


def write(connection: sqlite3.Connection, entity: Entity, row: Row) -> None:
    """Insert or replace one record."""
    connection.execute(f"INSERT OR REPLACE INTO {entity} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608


def next_id(connection: sqlite3.Connection, entity: Entity) -> int:
    """Tell the lowest id never used."""
    sql = f"SELECT MAX(COALESCE((SELECT MAX(id) FROM {entity}), 0), COALESCE((SELECT highest FROM purged WHERE entity = ?), 0))"  # noqa: S608
    return 1 + int(connection.execute(sql, (entity,)).fetchone()[0])


def purge(connection: sqlite3.Connection, entity: Entity, before: int) -> int:
    """Drop what was deleted at or before an epoch second; tells how many."""
    highest = next_id(connection, entity) - 1
    connection.execute("INSERT OR REPLACE INTO purged VALUES (?, ?)", (entity, highest))
    sql = f"DELETE FROM {entity} WHERE is_deleted = 1 AND update_time <= ?"  # noqa: S608
    return connection.execute(sql, (before,)).rowcount


def count(connection: sqlite3.Connection, entity: Entity) -> int:
    """Count the live records."""
    return int(connection.execute(f"SELECT COUNT(*) FROM {entity} WHERE is_deleted = 0").fetchone()[0])  # noqa: S608


def members(connection: sqlite3.Connection, organization_id: int) -> list[int]:
    """List the live Persons of an Organization."""
    found = connection.execute("SELECT id FROM person WHERE org_id = ? AND is_deleted = 0", (organization_id,))
    return [person_id for (person_id,) in found]


def page(connection: sqlite3.Connection, entity: Entity, query: PageQuery) -> list[Row]:
    """Read up to `limit` rows in keyset order: by the sort field, ties by id, both in the same direction."""
    conditions, values = _conditions(query)
    way = "DESC" if query.descending else "ASC"
    order = f"id {way}" if query.sort_by == "id" else f"{query.sort_by} {way}, id {way}"
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    sql = f"SELECT {_COLUMNS} FROM {entity} {where} ORDER BY {order} LIMIT ?"  # noqa: S608 (names from our own tables)
    return [Row._make(found) for found in connection.execute(sql, (*values, query.limit))]


def _conditions(query: PageQuery) -> tuple[list[str], list[int]]:
    conditions = [] if query.with_deleted else ["is_deleted = 0"]
    if not query.with_unchanged:
        conditions.append(_CHANGED)
    values: list[int] = []
    compared = (
        ("owner_id = ?", query.owner_id),
        ("org_id = ?", query.org_id),
        ("update_time >= ?", query.updated_since),
        ("update_time < ?", query.updated_until),
    )
    for condition, value in compared:
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if query.ids is not None:
        conditions.append(f"id IN ({', '.join('?' * len(query.ids))})")
        values += query.ids
    if query.after is not None:
        sign = "<" if query.descending else ">"
        keyed = f"id {sign} ?" if query.sort_by == "id" else f"({query.sort_by}, id) {sign} (?, ?)"
        conditions.append(keyed)
        values += query.after[1:] if query.sort_by == "id" else query.after
    return conditions, values
