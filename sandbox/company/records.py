"""The records of a company: a row for each in SQLite, and its body, the v2 JSON that `GET /api/v2/persons/{id}` has under
`data`.

An unchanged generated record is a row of 30 bytes without a body: the body is generated when it is read. A changed, created or
loaded record has its body. So one store serves a test with three records and a benchmark with a million (100 MB, five seconds).
The caller holds the company's lock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, cast

import orjson

from sandbox.company.fields import ENTITIES, FIRMOGRAPHICS, Entity, Field
from sandbox.company.generator import OrganizationGenerator, PersonGenerator, RecordFacts, Shares
from sandbox.company.model import Record
from sandbox.company.values import Range

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
    """One stored record. `body` None: as generated. `raw`: stored as it was sent, and never reshaped."""

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
    """The wanted records and their order. `after` is the last one of the previous page; times are epoch seconds."""

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


class RecordStore:
    """Persons and Organizations of one company. `fields` is the company's own dictionary: it shows every later change of a
    field.
    """

    def __init__(
        self,
        fields: dict[Entity, list[Field]],
        counts: dict[Entity, int],
        *,
        seed: int,
        users: tuple[int, ...],
        now_s: int,
        shares: Shares,
        firmographics: bool,
    ) -> None:
        self.connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._fields = fields
        self._counts = counts
        self._firmographics = firmographics
        self._shared: dict[str, Any] = {
            "seed": seed,
            "ids": Range(persons=counts["person"], organizations=counts["organization"], users=users),
            "shares": shares,
            "now_s": now_s,
        }
        self._gone: set[int] = set()  # deleted Organizations, which no generated Person belongs to
        self.use_fields()
        self._create_tables()
        for entity in reversed(ENTITIES):
            self._generate(entity)

    def use_fields(self) -> None:
        """Generate bodies with the fields as they are now."""
        self._generators: dict[Entity, PersonGenerator | OrganizationGenerator] = {
            "person": PersonGenerator(fields=self._fields["person"], gone=self._gone, **self._shared),
            "organization": OrganizationGenerator(
                fields=self._fields["organization"], firmographics=self._firmographics, **self._shared
            ),
        }
        self._prebuilt: dict[Entity, dict[tuple[Any, ...], bytes]] = {entity: {} for entity in ENTITIES}
        self._generated_codes = {entity: self._codes(entity) for entity in ENTITIES}

    def prebuild_bodies(self) -> None:
        """Generate every body now, so that reading one costs as little as in a system that stores its records."""
        for entity in ENTITIES:
            rows = self.page(entity, PageQuery(limit=self._counts[entity] + 1))
            self._prebuilt[entity] = dict(zip((row[:6] for row in rows), self.bodies(entity, rows), strict=True))

    def find(self, entity: Entity, record_id: int) -> Row | None:
        """Find one record, deleted or not."""
        if record_id >= 2**63:  # more than SQLite takes
            return None
        found = self.connection.execute(f"SELECT {_COLUMNS} FROM {entity} WHERE id = ?", (record_id,)).fetchone()  # noqa: S608
        return None if found is None else Row._make(found)

    def page(self, entity: Entity, query: PageQuery) -> list[Row]:
        """Read up to `limit` rows in keyset order: by the sort field, ties by id, both in the same direction."""
        conditions, values = _conditions(query)
        direction = "DESC" if query.descending else "ASC"
        order = f"id {direction}" if query.sort_by == "id" else f"{query.sort_by} {direction}, id {direction}"
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"SELECT {_COLUMNS} FROM {entity} {where} ORDER BY {order} LIMIT ?"  # noqa: S608 (names from our own tables)
        return [Row._make(found) for found in self.connection.execute(sql, (*values, query.limit))]

    def bodies(self, entity: Entity, rows: Iterable[Row]) -> list[bytes]:
        """Return the bodies of rows: stored or generated, with exactly the custom fields that the company has now."""
        generate, prebuilt = self._generators[entity].body, self._prebuilt[entity]
        # The first six columns are the facts that a generated row was stored with.
        bodies = [row.body or prebuilt.get(row[:6]) or generate(cast("RecordFacts", row[:6])) for row in rows]
        codes = self._codes(entity)
        if codes == self._generated_codes[entity]:
            return bodies
        return [body if row.raw else _reshape(body, codes) for row, body in zip(rows, bodies, strict=True)]

    def record(self, entity: Entity, row: Row) -> Record:
        """Return the record of a row."""
        return decode(self.bodies(entity, [row])[0])

    def write(
        self, entity: Entity, record: Record, *, update_time: int, body: bytes | None = None, raw: int = 0
    ) -> None:
        """Insert or replace one record. `body` is stored in place of the encoded record."""
        row = Row(
            record["id"],
            read_seconds(record.get("add_time"), update_time),
            update_time,
            _reference(record.get("owner_id")),
            _reference(record.get("org_id")),
            int(record.get("is_deleted") is True),
            body or encode(record),
            raw,
        )
        self.connection.execute(f"INSERT OR REPLACE INTO {entity} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608

    def next_id(self, entity: Entity) -> int:
        """Return the lowest id that was never used."""
        sql = (
            f"SELECT MAX(COALESCE((SELECT MAX(id) FROM {entity}), 0),"  # noqa: S608
            " COALESCE((SELECT highest FROM purged WHERE entity = ?), 0))"
        )
        return 1 + int(self.connection.execute(sql, (entity,)).fetchone()[0])

    def purge(self, entity: Entity, before: int) -> int:
        """Remove what was deleted at or before an epoch second; return how many records."""
        highest = self.next_id(entity) - 1
        self.connection.execute("INSERT OR REPLACE INTO purged VALUES (?, ?)", (entity, highest))
        sql = f"DELETE FROM {entity} WHERE is_deleted = 1 AND update_time <= ?"  # noqa: S608
        return self.connection.execute(sql, (before,)).rowcount

    def count(self, entity: Entity) -> int:
        """Count the records that are not deleted."""
        sql = f"SELECT COUNT(*) FROM {entity} WHERE is_deleted = 0"  # noqa: S608
        return int(self.connection.execute(sql).fetchone()[0])

    def persons_of(self, organization_id: int) -> list[int]:
        """List the Persons of an Organization that are not deleted."""
        sql = "SELECT id FROM person WHERE org_id = ? AND is_deleted = 0"
        return [person_id for (person_id,) in self.connection.execute(sql, (organization_id,))]

    def _create_tables(self) -> None:
        self.connection.execute("PRAGMA journal_mode = OFF")
        self.connection.execute("PRAGMA synchronous = OFF")
        for entity in ENTITIES:
            self.connection.execute(_TABLE.format(entity=entity))
        self.connection.execute(_PURGED)

    def _generate(self, entity: Entity) -> None:
        """Insert the generated records, then the indexes, which is faster than the other way round."""
        facts: Iterable[RecordFacts] = map(self._generators[entity].facts, range(1, self._counts[entity] + 1))
        if entity == "organization":
            facts = self._noting_gone(facts)
        self.connection.execute("BEGIN")
        self.connection.executemany(f"INSERT INTO {entity} VALUES (?, ?, ?, ?, ?, ?, NULL, 0)", facts)  # noqa: S608
        self.connection.execute("COMMIT")
        for column in _INDEXED:
            self.connection.execute(f"CREATE INDEX {entity}_{column} ON {entity} ({column}, id)")

    def _noting_gone(self, organizations: Iterable[RecordFacts]) -> Iterable[RecordFacts]:
        for facts in organizations:
            if facts.is_deleted:
                self._gone.add(facts.id)
            yield facts

    def _codes(self, entity: Entity) -> list[str]:
        return [field.code for field in self._fields[entity] if field.custom]


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


def decode(body: bytes) -> Record:
    """Read a body; the standard library's reader takes what orjson refuses, such as a lone surrogate."""
    try:
        record: Record = orjson.loads(body)
    except orjson.JSONDecodeError:
        record = json.loads(body)
    return record


def encode(record: Mapping[str, Any]) -> bytes:
    """Write a body, escaping what orjson refuses to write."""
    try:
        return orjson.dumps(record)
    except (TypeError, orjson.JSONEncodeError):
        return json.dumps(record).encode()


def blank_record(entity: Entity, record_id: int, now: str, owner_id: int, *, firmographics: bool) -> Record:
    """Make a record with nothing but an id, an owner and times, its members in their usual order."""
    times = {"add_time": now, "update_time": now}
    shared = {"is_deleted": False, "visible_to": 3, "label_ids": [], "picture_id": None}
    if entity == "person":
        names = {"name": None, "first_name": None, "last_name": None}
        contacts: Record = {"emails": [], "phones": []}
        return {"id": record_id, **names, "owner_id": owner_id, "org_id": None, **times, **contacts, **shared}
    more = {code: None for code, _, _ in FIRMOGRAPHICS} if firmographics else {}
    return {"id": record_id, "name": None, "owner_id": owner_id, **times, **shared, "address": None, **more}


def merged_record(kept: Record, lost: Record) -> Record:
    """Fill the empty members and custom fields of one record from another; names are never mixed."""
    fixed = {"id", "name", "first_name", "last_name", "add_time", "update_time", "is_deleted", "custom_fields"}
    filled = {key: value for key, value in lost.items() if key not in fixed and _is_empty(kept.get(key))}
    held, given = kept.get("custom_fields"), lost.get("custom_fields")
    if isinstance(held, dict) and isinstance(given, dict):
        filled["custom_fields"] = held | {code: value for code, value in given.items() if _is_empty(held.get(code))}
    return {**kept, **filled}


def read_seconds(value: Any, default: int) -> int:
    """Read a time of a body as epoch seconds; `default` where it is no time."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return default
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def _reshape(body: bytes, codes: list[str]) -> bytes:
    """Give a body these custom fields: all of them, null where unset, and no others."""
    record = decode(body)
    held = record.get("custom_fields") or {}
    record["custom_fields"] = {code: held.get(code) for code in codes}
    return encode(record)


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [])


def _reference(value: Any) -> int | None:
    """Read the id that a body refers to; None where it is no id."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None
