"""Find records by their texts, in an index that follows the records with a delay.

The index is a table beside the records. It is built for an entity and a kind of text at the first search for it (a second
for a hundred thousand records), then updated as records change, after the company's `search_delay_s`.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson

from sandbox.company.fields import SEARCHABLE_TYPES, Entity, Field

if TYPE_CHECKING:
    from sandbox.company.company import Company

Kind = Literal["name", "email", "phone", "address", "custom_fields", "notes"]
MAX_MEMBERS = 2000  # Persons of one Organization that are looked through


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """The search term and the kinds of text. `after` is the last id of the previous page."""

    term: str
    kinds: tuple[Kind, ...]
    exact: bool = False
    organization_id: int | None = None
    limit: int = 100
    after: int = 0


class SearchIndex:
    """The texts of one company's records."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._made: set[tuple[Entity, Kind]] = set()
        self._pending: deque[tuple[float, Entity, int]] = deque()
        connection.execute("CREATE TABLE text (entity TEXT, kind TEXT, id INTEGER, value TEXT)")

    def note(self, entity: Entity, record_id: int, moment: float) -> None:
        """Remember that a record changed, if any of its texts are indexed."""
        if any(made == entity for made, _ in self._made):
            self._pending.append((moment, entity, record_id))

    def prepare(self, entity: Entity, kinds: Iterable[Kind], company: Company) -> None:
        """Index the kinds of text that were never searched before."""
        missing = [kind for kind in kinds if (entity, kind) not in self._made]
        if not missing:
            return
        fields = company.custom_fields(entity)
        # A body with an escaped surrogate was put in raw; half a pair is no text a database would take.
        records = (orjson.loads(body) for body in company.export(entity) if b"\\ud" not in body)
        self._insert(entity, missing, records, fields)
        self._connection.execute("CREATE INDEX IF NOT EXISTS text_value ON text (entity, kind, value)")
        self._connection.execute("CREATE INDEX IF NOT EXISTS text_id ON text (entity, id)")
        self._made.update((entity, kind) for kind in missing)

    def catch_up(self, company: Company, *, before: float) -> None:
        """Index the changes made up to a moment."""
        while self._pending and self._pending[0][0] <= before:
            _, entity, record_id = self._pending.popleft()
            self._connection.execute("DELETE FROM text WHERE entity = ? AND id = ?", (entity, record_id))
            record = company.record(entity, record_id)
            if record is not None:
                kinds = [kind for made, kind in self._made if made == entity]
                self._insert(entity, kinds, [record | {"id": record_id}], company.custom_fields(entity))

    def find(self, entity: Entity, query: SearchQuery) -> list[int]:
        """Return the ids of records with a text that equals or contains the term, in any case."""
        marks = ", ".join("?" * len(query.kinds))
        matches = "value = ?" if query.exact else "instr(value, ?) > 0"
        sql = f"SELECT DISTINCT id FROM text WHERE entity = ? AND kind IN ({marks}) AND {matches} AND id > ?"  # noqa: S608
        values: list[Any] = [entity, *query.kinds, query.term.casefold(), query.after]
        if query.organization_id is not None:
            sql += " AND id IN (SELECT id FROM person WHERE org_id = ? AND is_deleted = 0 LIMIT ?)"
            values += [query.organization_id, MAX_MEMBERS]
        rows = self._connection.execute(f"{sql} ORDER BY id LIMIT ?", (*values, query.limit))
        return [record_id for (record_id,) in rows]

    def _insert(
        self, entity: Entity, kinds: list[Kind], records: Iterable[dict[str, Any]], fields: list[Field]
    ) -> None:
        rows = (
            (entity, kind, record["id"], text.casefold())
            for record in records
            if isinstance(record.get("id"), int)
            for kind in kinds
            for text in texts(record, kind, fields)
        )
        self._connection.executemany("INSERT INTO text VALUES (?, ?, ?, ?)", rows)


def texts(record: dict[str, Any], kind: Kind, fields: list[Field]) -> list[str]:
    """Collect a record's texts of one kind; a value of a wrong shape has no text."""
    if kind == "name":
        found: list[Any] = [record.get("name")]
    elif kind in {"email", "phone"}:
        items = record.get(f"{kind}s")
        found = [item.get("value") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    elif kind == "address":
        found = [_plain(record.get("address"))]
    elif kind == "custom_fields":
        held = record.get("custom_fields")
        searchable = [field.code for field in fields if field.type in SEARCHABLE_TYPES]
        found = [_plain(held.get(code)) for code in searchable] if isinstance(held, dict) else []
    else:
        found = []
    return [text for text in found if isinstance(text, str) and text]


def _plain(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("value")
    return None if value is None else str(value)
