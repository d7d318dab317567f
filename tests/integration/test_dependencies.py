"""What setup.cfg declares is what the code imports, and the locks hold it."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions

import pytest

from tests.package.build import PROJECT, tracked_files

INSTALLED = ("pipeline", "db", "sandbox", "celeryconfig.py")
DEVELOPMENT = ("tests", "benchmarks", "deploy")
OURS = {"pipeline", "db", "sandbox", "celeryconfig", *DEVELOPMENT}
TOOLS = {"import-linter", "mypy", "pip-audit", "pytest-xdist", "ruff", "types-pyyaml", "types-requests"}
"""What the Makefile calls, and the types that mypy reads."""
OF_OTHERS = {"tornado", "jinja2"}
"""Come with flower and Flask; tests read the options and the templates there."""
NO_PACKAGE = {"_typeshed"}
"""Known to type checkers only."""


@cache
def declared(extra: str = "") -> frozenset[str]:
    """Return the distributions that setup.cfg names, for an extra or for everybody."""
    config = configparser.ConfigParser()
    config.read(PROJECT / "setup.cfg")
    text = config["options.extras_require"][extra] if extra else config["options"]["install_requires"]
    names = [re.match(r"[\w-]+", line) for line in text.split("\n") if line.strip()]
    return frozenset(normal(name[0]) for name in names if name)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules(places: tuple[str, ...]) -> Iterator[str]:
    """Yield the top-level name of every import in these packages and modules, at any place."""
    for path in tracked_files():
        if path.suffix == ".py" and path.parts[0] in places:
            for node in ast.walk(ast.parse((PROJECT / path).read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (each.name.partition(".")[0] for each in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.partition(".")[0]


def locked(name: str) -> dict[str, str]:
    """Return distribution → version of a lock."""
    text = (PROJECT / name).read_text()
    return {normal(package): version for package, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)}


def imported(places: tuple[str, ...]) -> frozenset[str]:
    """Return the distributions that these packages and modules import."""
    names = set(imported_modules(places)) - OURS - NO_PACKAGE - set(sys.stdlib_module_names)
    by_module = packages_distributions()
    return frozenset(normal(distribution) for name in names for distribution in by_module[name])


def test_what_is_declared_is_imported_and_what_is_imported_is_declared() -> None:
    assert imported(INSTALLED) == declared()


def test_what_is_declared_for_development_is_imported_by_tests_or_a_tool() -> None:
    assert imported(DEVELOPMENT) - declared() - OF_OTHERS == declared("dev") - TOOLS


def test_the_extra_for_embedded_servers_is_what_they_are_looked_up_by() -> None:
    text = (PROJECT / "pipeline" / "local" / "embedded.py").read_text()

    assert {normal(name) for name in re.findall(r'_package\("(\w+)"\)', text)} == declared("embedded")


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.lock", [""]),
        ("requirements-embedded.lock", ["", "embedded"]),
        ("requirements-dev.lock", ["", "embedded", "dev"]),
    ],
)
def test_each_lock_holds_what_it_is_for(lock: str, extras: list[str]) -> None:
    assert frozenset().union(*(declared(extra) for extra in extras)) - set(locked(lock)) == frozenset()


def test_production_installs_nothing_for_demo_and_tests() -> None:
    assert set(locked("requirements.lock")) & (declared("embedded") | declared("dev")) == set()
    assert set(locked("requirements-embedded.lock")) & declared("dev") == set()


def test_the_locks_agree() -> None:
    production, embedded, dev = (locked(f"requirements{name}.lock") for name in ("", "-embedded", "-dev"))

    assert production.items() <= embedded.items() <= dev.items()
    assert len(production) > 30
