"""The next step that `pipeline up` prints depends on what exists already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli.servers import next_step

REAL = {"sandbox": None, "sandbox_file": None, "has_example": True}
EXAMPLE = {"sandbox": {"hull_url": "x"}, "sandbox_file": "/data/sandbox.json", "has_example": True}
EMPTY = EXAMPLE | {"has_example": False}


@pytest.mark.parametrize(
    ("system", "names", "step"),
    [
        (REAL, [], "connectors add --help"),
        (REAL, ["acme"], "connectors status acme"),
        (REAL, ["acme", "globex"], "connectors list"),
        (EXAMPLE, ["demo"], "fetch all demo --wait"),
        (EMPTY, [], "add a connector; its credentials are in /data/sandbox.json"),
        (EMPTY, ["acme"], "connectors status acme"),
    ],
)
def test_the_next_step_depends_on_what_exists(system: dict[str, Any], names: list[str], step: str) -> None:
    given: Any = SimpleNamespace(**system)

    assert next_step(given, names).endswith(step)
