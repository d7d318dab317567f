"""Statements that claim rows take no more than their limit, whatever plan they get.

A planner may look for the rows to claim once for each row of the table (a nested loop with the sub-select inside). With
`FOR UPDATE SKIP LOCKED` each look finds other rows, so such a statement takes more than its limit. A materialized CTE runs once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from db import alert, batch_queue, change_writer, delivery, id_mapping_writer, job
from db.session import transaction
from tests.system import SyncSystem

ROWS = 40
LIMIT = 10
NESTED_LOOPS_ONLY = (
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_material",
    "enable_memoize",
    "enable_hashagg",
    "enable_sort",
    "enable_indexscan",
    "enable_indexonlyscan",
    "enable_bitmapscan",
)

FILL = {
    "alerts": "INSERT INTO alerts (connector_key, rule, sentence) SELECT :c, 'rule ' || n, '' FROM generate_series(1, :n) n",
    "jobs": "INSERT INTO jobs (connector_key, kind, dedupe_key) SELECT :c, 'status', n FROM generate_series(1, :n) n",
    "changes": "INSERT INTO changes (connector_key, direction, entity, record_id, cause)"
    " SELECT :c, 'incoming', 'person', n, 'test' FROM generate_series(1, :n) n",
    "id_mappings": "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by)"
    " SELECT :c, 'person', n, 'full', 'fetched' FROM generate_series(1, :n) n",
    "deliveries": "INSERT INTO deliveries (connector_key, source, key, body) SELECT :c, 'hull', n, ''"
    " FROM generate_series(1, :n) n",
    "runs": "INSERT INTO runs (id, connector_key, entity, kind, cause, settings_version)"
    " VALUES (1, :c, 'person', 'full', 'test', 1)",
    "batches": "INSERT INTO batches (connector_key, direction, entity, queue, state, run_id)"
    " SELECT :c, 'incoming', 'person', 'bulk', 'waiting', 1 FROM generate_series(1, :n) n",
}

CLAIMS: dict[str, tuple[str, Callable[[Session, int], int]]] = {
    "alert": ("alerts", lambda session, _: len(alert.claim_unsent(session, limit=LIMIT))),
    "job": ("jobs", lambda session, _: len(job.take_due(session, patience_s=60, limit=LIMIT))),
    "change": (
        "changes",
        lambda session, key: change_writer.claim_changes(session, key, "incoming", "person", batch_id=1, limit=LIMIT),
    ),
    "id_mapping": ("id_mappings", lambda session, key: len(id_mapping_writer.take_unresolved(session, key, LIMIT))),
    "delivery": ("deliveries", lambda session, _: len(delivery.claim_new_deliveries(session, LIMIT, most_bytes=10**6))),
    "batch": ("batches", lambda session, _: len(batch_queue.release_waiting(session, 1, LIMIT))),
}


@pytest.fixture
def filled(system: SyncSystem) -> Iterator[SyncSystem]:
    with transaction() as session:
        for sql in FILL.values():
            session.execute(text(sql), {"c": system.connector_key, "n": ROWS})
    return system


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_takes_no_more_than_its_limit_under_a_nested_loop(filled: SyncSystem, name: str) -> None:
    _, claim = CLAIMS[name]
    with transaction() as session:
        for setting in NESTED_LOOPS_ONLY:
            session.execute(text(f"SET LOCAL {setting} = off"))
        assert claim(session, filled.connector_key) == LIMIT


def test_the_sweep_takes_no_more_than_its_limit_under_a_nested_loop(filled: SyncSystem) -> None:
    with transaction() as session:
        scope = {"c": filled.connector_key}
        session.execute(
            text(
                "INSERT INTO batches (connector_key, direction, entity, queue, state, enqueued_at)"
                " SELECT :c, 'incoming', 'person', 'bulk', 'ready', NULL FROM generate_series(1, 300)"
            ),
            scope,
        )
    with transaction() as session:
        for setting in NESTED_LOOPS_ONLY:
            session.execute(text(f"SET LOCAL {setting} = off"))
        assert len(batch_queue.sweep(session)) == 200


ROOT = Path(__file__).parents[3]
SOURCES = [
    path
    for package in ("db", "pipeline")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "migrations" not in path.parts
]


def _sql_of(path: Path) -> Iterator[str]:
    """Yield each string of a module that may be SQL; a value of an f-string is a space."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else " " for part in node.values]
            yield "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _openings(sql: str, at: int) -> list[str]:
    """Return the text before each open parenthesis at this place, the outermost one first."""
    opened: list[int] = []
    for position, char in enumerate(sql[:at]):
        if char == "(":
            opened.append(position)
        elif char == ")" and opened:
            opened.pop()
    return [sql[:position].rstrip() for position in opened]


def _found_at(word: str, sql: str) -> Iterator[list[str]]:
    return (_openings(sql, found.start()) for found in re.finditer(word, sql))


def test_rows_are_claimed_in_a_materialized_cte_everywhere() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {sql.strip()[:80]}"
        for path in SOURCES
        for sql in _sql_of(path)
        for openings in _found_at(r"FOR UPDATE[\w ]*SKIP LOCKED", sql)
        if openings and not any(before.endswith("AS MATERIALIZED") for before in openings)
    ]
    assert wrong == []


def test_no_change_uses_a_sub_select_with_a_limit() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {sql.strip()[:80]}"
        for path in SOURCES
        for sql in _sql_of(path)
        if re.search(r"\b(UPDATE|DELETE FROM)\b", sql)
        for openings in _found_at(r"\bLIMIT\b", sql)
        if any(re.search(r"(?<!DISTINCT )\b(IN|FROM|USING)$", before) for before in openings)
        and not any(before.endswith(("AS MATERIALIZED", "LATERAL")) for before in openings)
    ]
    assert wrong == []


def test_statements_built_by_sqlalchemy_claim_in_a_cte_too() -> None:
    """`.cte(…)` follows `with_for_update(skip_locked=True)`, unless the statement is no sub-select."""
    plain = {"db/schedule.py"}
    wrong = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if re.search(r"skip_locked=True\)(?!\s*\.cte\()", path.read_text()) and str(path.relative_to(ROOT)) not in plain
    ]
    assert wrong == []
