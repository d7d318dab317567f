"""One module writes each of these tables, so that its conflict rules are in one place; one module records what happened."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from db.change import Change
from db.id_mapping import IdMapping
from db.identifier import Identifier

ROOT = Path(__file__).parents[2]
WRITERS: Final[dict[str, tuple[type, tuple[str, ...]]]] = {
    "changes": (Change, ("db/change_writer.py",)),
    "identifiers": (Identifier, ("db/identifier.py",)),
    "id_mappings": (IdMapping, ("db/id_mapping_writer.py", "db/joining.py")),
}
"""Table → its model, and the modules that write it: for `id_mappings` what is read, and what we make ourselves."""
REMOVES_A_CONNECTOR: Final = "db/connector.py"
"""Deletes the rows of every table, by their connector's key."""


def sources() -> dict[str, str]:
    paths = [path for package in ("db", "pipeline") for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths if "migrations" not in path.parts}


def writes(source: str, table: str, model: type) -> Iterator[int]:
    """Yield the lines of a module that write the table: in SQL, by COPY, through its model, or on a row of the model."""
    in_sql = re.compile(
        rf'\b(INSERT\s+INTO|UPDATE(\s+ONLY)?|DELETE\s+FROM(\s+ONLY)?|MERGE\s+INTO|COPY|TRUNCATE(\s+TABLE)?)\s+"?{table}\b',
        re.IGNORECASE,
    )
    tree = ast.parse(source)
    has_rows = any(
        isinstance(node, ast.ImportFrom) and any(name.name == model.__name__ for name in node.names)
        for node in ast.walk(tree)
    )
    columns = set(vars(model)["__table__"].columns.keys())
    for node in ast.walk(tree):
        is_sql = isinstance(node, ast.Constant) and isinstance(node.value, str) and in_sql.search(node.value)
        is_call = isinstance(node, ast.Call) and _writes_by_call(node, table, model.__name__)
        if is_sql or is_call or (has_rows and _sets_one_of(columns, node)):
            yield node.lineno  # type: ignore[attr-defined]  # all three kinds of nodes have one


def _sets_one_of(columns: Collection[str], node: ast.AST) -> bool:
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store) or node.attr not in columns:
        return False
    return not (isinstance(node.value, ast.Name) and node.value.id == "self")


def _writes_by_call(call: ast.Call, table: str, model: str) -> bool:
    name = _name(call.func)
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if name in ("insert", "update", "delete"):
        return any(_name(each) == model for each in arguments)
    return name == model or (
        name == "copy_rows" and any(isinstance(each, ast.Constant) and each.value == table for each in arguments)
    )


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def other_writers(modules: Mapping[str, str], table: str) -> list[str]:
    model, writers = WRITERS[table]
    allowed = {*writers, REMOVES_A_CONNECTOR}
    return [
        f"{path}:{line}"
        for path, source in modules.items()
        if path not in allowed
        for line in sorted(set(writes(source, table, model)))
    ]


@pytest.mark.parametrize("table", WRITERS)
def test_one_module_writes_the_table(table: str) -> None:
    assert other_writers(sources(), table) == []


@pytest.mark.parametrize("table", WRITERS)
def test_the_writers_are_found(table: str) -> None:
    model, writers = WRITERS[table]
    assert all(list(writes(sources()[writer], table, model)) for writer in writers)


PLANTED: Final = (
    'text("INSERT INTO {table} (id) VALUES (1)")',
    'text("""WITH one AS (\n  UPDATE {table} SET id = 1)""")',
    'text(f"delete from {table} WHERE id = {{number}}")',
    'copy_rows(session, "{table}", ("id",), rows)',
    "session.execute(update({model}).values(id=1))",
    "session.execute(postgresql.insert(module.{model}), [])",
    "session.add(module.{model}(id=1))",
    "from module import {model}\ndef change(row: {model}) -> None:\n    row.entity = 'person'",
)


@pytest.mark.parametrize("table", WRITERS)
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_writer_is_found(table: str, planted: str) -> None:
    source = "\n\n" + planted.format(table=table, model=WRITERS[table][0].__name__)
    assert other_writers({"db/other.py": source}, table) != []


@pytest.mark.parametrize("table", WRITERS)
def test_a_reader_is_no_writer(table: str) -> None:
    model = WRITERS[table][0].__name__
    read = f"SELECT id FROM {table} FOR UPDATE"  # noqa: S608 - never run
    source = f"from module import {model}\ntext('{read}')\nselect({model})\nrow.entity == 1"
    assert other_writers({"db/other.py": source}, table) == []


RECORDER: Final = "pipeline/sync/event_recorder.py"


def other_recorders(modules: Mapping[str, str]) -> list[str]:
    """List the calls that write an event or a failure, or put advice into a log line, outside the recorder."""
    return [
        f"{path}:{call.lineno}"
        for path, source in modules.items()
        if path.startswith("pipeline/") and path != RECORDER
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call)
        and (
            _name(call.func) in ("log_events", "keep_failures")
            or (
                _is_log_line(call)
                and any(each.arg == "advice" and isinstance(each.value, ast.Call) for each in call.keywords)
            )
        )
    ]


def _is_log_line(call: ast.Call) -> bool:
    """Whether the call is `logger().level(…)`."""
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    return isinstance(receiver, ast.Call) and _name(receiver.func) == "logger"


def test_one_module_records_what_happened() -> None:
    assert other_recorders(sources()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "events.log_events(session, [event])",
        "keep_failures(session, [failure])",
        'logger().warning("incoming.user.error", reason=reason, advice=describe(reason))',
    ],
)
def test_a_planted_recorder_is_found(planted: str) -> None:
    assert other_recorders({"pipeline/sync/other.py": planted}) == ["pipeline/sync/other.py:1"]
