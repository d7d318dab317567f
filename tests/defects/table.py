"""The defects of the connector this one replaces, by number, and which test shows that we do not have each of them.

A test carries `@pytest.mark.defect(number, "what was wrong")`. A defect with several halves has a test for each.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE = Path(__file__).parent
NUMBERS: Final = range(1, 25)


@dataclass(frozen=True, slots=True)
class Defect:
    """What was wrong, under its number, and the test that shows it right here, as `file::function`."""

    number: int
    test: str
    wrong: str


def defects() -> list[Defect]:
    """All that the tests of this folder are marked with, by number; of one number, as they stand."""
    found = [defect for path in sorted(HERE.glob("test_*.py")) for defect in _defects_of(path)]
    return sorted(found, key=lambda defect: defect.number)


def _defects_of(path: Path) -> Iterator[Defect]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.defect":
                    number, wrong = map(ast.literal_eval, mark.args)
                    yield Defect(number, f"{path.name}::{node.name}", wrong)
