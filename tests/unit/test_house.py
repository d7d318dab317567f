"""The house as docs draw it, drawn again from the imports: a room that reaches where it may not fails here by name.

A room is a folder or a module directly below `pipeline`; `db`, `sandbox` and `celeryconfig.py` are rooms of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
OURS = ("pipeline", "db", "sandbox", "tests", "benchmarks")
GROUND = {
    "data_dir",
    "environment_values",
    "errors",
    "fencing",
    "library_log",
    "masking",
    "settings",
    "slow_work",
    "telemetry",
    "vault",
}
"""What every room may stand on, and what stands on nothing of ours but `errors`."""

MAY_IMPORT: dict[str, set[str]] = {
    "domain": set(),
    "errors": set(),
    "fencing": {"errors"},
    "data_dir": set(),
    "environment_values": set(),
    "settings": {"data_dir", "environment_values"},
    "library_log": {"masking"},
    "masking": set(),
    "telemetry": {"library_log"},
    "vault": {"errors"},
    "transform": {"domain", "errors"},
    "slow_work": set(),
    "clients": {"domain", "errors", "fencing", "masking", "slow_work"},
    "db": {"domain", *GROUND},
    "extract": {"clients", "db", "domain", *GROUND},
    "load": {"clients", "db", "domain", *GROUND},
    "outages": {"db", *GROUND},
    "wiring": {"clients", "db", "domain", "outages", *GROUND},
    "tasks": {"accounts", "extract", "transform", "load", "db", "wiring", "domain", "outages", *GROUND},
    "accounts": {"db", "domain", *GROUND},
    "insight": {"tasks", "transform", "db", "wiring", "domain", *GROUND},
    "web": {"insight", "accounts", "tasks", "db", "wiring", "domain", "environment", *GROUND},
    "cli": {
        "insight",
        "accounts",
        "tasks",
        "db",
        "wiring",
        "domain",
        "environment",
        "embedded",
        "up",
        "sandbox",
        *GROUND,
    },
    "up": {"accounts", "tasks", "db", "wiring", "domain", "environment", "embedded", "sandbox", *GROUND},
    "embedded": {"data_dir", "settings", "telemetry"},
    "environment": {"embedded", "db", "settings", "telemetry"},
    "celery": {"environment", "tasks"},
    "celeryconfig": {"settings"},
    "__main__": {"cli"},
    "sandbox": set(),
}

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(file, room) → why this one file may reach there all the same. Empty is how it should stay."""

CELERY = {"celery", "kombu", "billiard", "flower"}
KNOWS_CELERY = {"tasks", "celery", "celeryconfig"}
READS_ENVIRONMENT = {"pipeline/settings.py"}


def files() -> list[Path]:
    found = [path for room in ("pipeline", "db", "sandbox") for path in (PROJECT / room).rglob("*.py")]
    return sorted([*found, PROJECT / "celeryconfig.py"])


def room_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    if parts[0] != "pipeline":
        return parts[0]
    return parts[1] if parts[1] != "__init__" else "pipeline"


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def rooms_reached(path: Path) -> set[str]:
    reached = set()
    for module in imports(path):
        top, *below = module.split(".")
        if top == "pipeline" and below:
            reached.add(below[0])
        elif top in OURS:
            reached.add(top)
    return reached - {room_of(path)}


def trespasses(path: Path) -> set[str]:
    name = str(path.relative_to(PROJECT))
    excused = {room for (file, room) in EXCEPTIONS if file == name}
    return rooms_reached(path) - MAY_IMPORT[room_of(path)] - excused


def test_every_room_is_on_the_drawing() -> None:
    assert {room_of(path) for path in files()} - set(MAY_IMPORT) <= {"pipeline"}


def test_the_package_itself_imports_nothing() -> None:
    assert list(imports(PROJECT / "pipeline" / "__init__.py")) == []


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_reaches_only_where_it_may(room: str) -> None:
    mine = [path for path in files() if room_of(path) == room]

    assert {str(path.relative_to(PROJECT)): found for path in mine if (found := trespasses(path))} == {}


def test_sees_a_room_that_reaches_too_far(tmp_path: Path) -> None:
    """The drawing is worth nothing if it would accept anything."""
    stray = PROJECT / "pipeline" / "transform" / "stray.py"
    seen = rooms_in("from db import batch\nfrom pipeline.clients import hull\n", stray)

    assert seen - MAY_IMPORT["transform"] == {"db", "clients"}


def rooms_in(source: str, path: Path) -> set[str]:
    modules = [
        f"{node.module}.{name.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]
    return {module.split(".")[1] if module.startswith("pipeline.") else module.split(".")[0] for module in modules}


def test_only_the_tasks_know_celery() -> None:
    knowing = {
        str(path.relative_to(PROJECT)): room_of(path)
        for path in files()
        if any(module.split(".")[0] in CELERY for module in imports(path))
    }

    assert {name for name, room in knowing.items() if room not in KNOWS_CELERY} == set()


def test_the_hands_never_meet() -> None:
    """extract and load, clients and db: said once more, because everything else follows from it."""
    for one, other in (("extract", "load"), ("clients", "db")):
        assert other not in MAY_IMPORT[one]
        assert one not in MAY_IMPORT[other]


def test_one_module_reads_the_environment() -> None:
    readers = {str(path.relative_to(PROJECT)) for path in files() if reads_environment(ast.parse(path.read_text()))}

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


def test_every_exception_is_still_needed() -> None:
    unused = [
        (file, room)
        for (file, room) in EXCEPTIONS
        if room not in rooms_reached(PROJECT / file) or room in MAY_IMPORT[room_of(PROJECT / file)]
    ]

    assert unused == []
