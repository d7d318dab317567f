"""Layers: `.importlinter` names them and `make lint` checks them. This file holds what import-linter cannot express."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
READS_ENVIRONMENT = {"pipeline/settings.py"}


def files() -> Iterator[Path]:
    for package in ("pipeline", "db", "sandbox"):
        yield from sorted((PROJECT / package).rglob("*.py"))
    yield PROJECT / "celeryconfig.py"


@cache
def trees() -> dict[str, ast.Module]:
    """Path → syntax tree, of every file."""
    return {str(path.relative_to(PROJECT)): ast.parse(path.read_text()) for path in files()}


def test_every_module_of_pipeline_belongs_to_a_layer() -> None:
    text = (PROJECT / ".importlinter").read_text()
    modules = {
        path.stem
        for path in (PROJECT / "pipeline").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    tasks = {path.stem for path in (PROJECT / "pipeline" / "tasks").glob("*.py")} - {"__init__"}
    no_layer = {
        "__init__": "imports nothing",
        "__main__": "calls pipeline.cli",
        "tasks": "its modules are in layers of their own",
    }
    used_by_the_app_alone = {"beat", "broker", "flower_access"}

    assert {name for name in modules if f"pipeline.{name}" not in text} == set(no_layer) - {"tasks"}
    assert {name for name in tasks if f"pipeline.tasks.{name}" not in text} == used_by_the_app_alone


def test_imports_are_absolute() -> None:
    relative = [
        f"{path}:{node.lineno}"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]

    assert relative == []


def test_the_package_itself_imports_nothing() -> None:
    assert (PROJECT / "pipeline" / "__init__.py").read_text().strip() == ""


def test_one_module_reads_the_environment() -> None:
    readers = {path for path, tree in trees().items() if reads_environment(tree)}

    assert readers == READS_ENVIRONMENT


def reads_environment(tree: ast.AST) -> bool:
    names = {"environ", "environb", "getenv"}
    return any(
        (
            isinstance(node, ast.Attribute)
            and node.attr in names
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
        )
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and names & {name.name for name in node.names})
        for node in ast.walk(tree)
    )
