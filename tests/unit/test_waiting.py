"""Tests wait for what happens, not for a while: a fixed pause is too long on one machine and too short on another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
POLL_S = 0.05
"""The longest pause between two looks at a condition."""
SLOW_FOLDERS = {"browser"}
"""Look twice a second only: each look asks a whole system."""
SHORTEST_LIMIT_S = 1
"""`wait` with less is a pause and no limit."""


def pauses(source: str) -> Iterator[str]:
    """Yield line and text of each fixed pause: a sleep outside a loop, or a long one, or a `wait` that is meant to run out."""
    tree = ast.parse(source)
    looped = {
        node
        for loop in ast.walk(tree)
        if isinstance(loop, ast.While | ast.For | ast.AsyncFor)
        for node in ast.walk(loop)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and is_pause(node, is_looped=node in looped):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def is_pause(call: ast.Call, *, is_looped: bool) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    seconds = call.args[0].value if isinstance(call.args[0], ast.Constant) else None
    if not isinstance(seconds, int | float):
        return name == "sleep"
    if name == "sleep":
        return seconds > (POLL_S if is_looped else 0)
    return name == "wait" and seconds < SHORTEST_LIMIT_S and not is_looped


def test_no_test_pauses() -> None:
    files = [path for path in sorted(TESTS.rglob("*.py")) if path.relative_to(TESTS).parts[0] not in SLOW_FOLDERS]
    found = {str(path.relative_to(TESTS)): lines for path in files if (lines := [*pauses(path.read_text())])}

    assert found == {}


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("time.sleep(0.1)", True),
        ("sleep(2)", True),
        ("await asyncio.sleep(0.01)", True),
        ("await asyncio.sleep(0)", False),
        ("time.sleep(PAUSE_S)", True),
        ("while not done:\n    time.sleep(0.01)", False),
        ("while not done:\n    time.sleep(0.5)", True),
        ("bell.wait(0.2)", True),
        ("assert bell.wait(10)", False),
        ("while not done():\n    bell.wait(0.2)", False),
        ("process.wait(timeout=60)", False),
    ],
)
def test_a_pause_is_seen(source: str, is_found: bool) -> None:
    assert bool([*pauses(source)]) is is_found
