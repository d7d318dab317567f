"""A cursor that explains every statement before it executes it, and stores the plans."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import psycopg2.extensions  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy import Engine, event

_READS = re.compile(r"\s*(?:SET LOCAL [^;]*;)?\s*((?:SELECT|INSERT|UPDATE|DELETE|WITH)\b.*)", re.DOTALL | re.IGNORECASE)
_EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "


@dataclass(frozen=True, slots=True)
class Seen:
    """One executed statement, with the number of blocks and rows that it touched."""

    sql: str
    blocks: int
    rows: int
    plan: dict[str, Any] = field(repr=False)

    @property
    def touched(self) -> int:
        """Return the amount of work, independent of the machine: a block counts as much as a hundred rows."""
        return self.blocks + self.rows // 100


SEEN: list[Seen] = []


class ExplainingCursor(psycopg2.extensions.cursor):  # type: ignore[misc]  # as above
    def execute(self, sql: Any, values: Any = None) -> Any:
        given = sql.decode() if isinstance(sql, bytes) else sql
        found = _READS.fullmatch(given) if isinstance(given, str) else None
        if found:
            self._explain(given, found[1], values)
        return super().execute(sql, values)

    def _explain(self, given: str, statement: str, values: Any) -> None:
        """Explain a statement with another cursor: a server-side cursor executes one statement only."""
        with psycopg2.extensions.cursor(self.connection) as aside:
            aside.execute("SAVEPOINT explained")
            try:
                aside.execute(_EXPLAIN + statement, values)
                (answer,) = aside.fetchone()
                root = answer[0]["Plan"]
                SEEN.append(Seen(given, _blocks(root), _rows(root), root))
            finally:
                aside.execute("ROLLBACK TO SAVEPOINT explained")
                aside.execute("RELEASE SAVEPOINT explained")


def explain_everything(engine: Engine) -> None:
    """Explain every statement of this engine."""

    @event.listens_for(engine, "connect")
    def _explain(connection: Any, _record: object) -> None:
        connection.cursor_factory = ExplainingCursor


def _blocks(node: dict[str, Any]) -> int:
    kinds = ("Shared Hit", "Shared Read", "Local Hit", "Local Read", "Temp Read", "Temp Written")
    return sum(int(node.get(f"{kind} Blocks", 0)) for kind in kinds)


def _rows(node: dict[str, Any]) -> int:
    loops = int(node.get("Actual Loops", 1))
    removed = sum(int(node.get(f"Rows Removed by {kind}", 0)) for kind in ("Filter", "Join Filter", "Index Recheck"))
    own = (int(node.get("Actual Rows", 0)) + removed) * loops
    return own + sum(_rows(child) for child in node.get("Plans", ()))
