"""The customer's guide as a list of headings and what stands below them, and who promises what."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
HERE = Path(__file__).parent

ADVICE = (
    "This guide says how Hull and Pipedrive are joined, what travels between them, and what to look at when something is"
    " missing.",
    "Connect with an administrator of Pipedrive: a connector sees and changes only what the connected user may.",
    "Complete the settings, as described below.",
    "outgoing user segments:",
    "outgoing account segments:",
    "Hull Pipedrive",
    "User Person",
    "Account Organization",
    "Check the identifiers in the settings:",
    "Check the incoming attributes.",
    "Look at the connector's status:",
    "To fill in what is missing, fetch all:",
    "Check the incoming account attributes:",
)
"""What the guide says without promising anything: introductions, names, what people are to do."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A sentence of the guide, below its heading, and the test that holds us to it, as `file::function`."""

    heading: str
    sentence: str
    test: str


def plain(markdown: str) -> str:
    """Give the words alone: no marks of lists, tables, emphasis or code, and single spaces."""
    without = re.sub(r"^\s*(?:[-*]|\d+\.)\s+|\|[-|]+\||\|", " ", markdown, flags=re.MULTILINE)
    return " ".join(re.sub(r"[*`]", "", without).split())


def sections() -> dict[str, str]:
    """Heading → the words below it, up to the next heading."""
    parts = re.split(r"^#+ (.+)$", GUIDE.read_text(), flags=re.MULTILINE)
    return {heading: plain(below) for heading, below in zip(parts[1::2], parts[2::2], strict=True)}


def promises() -> list[Promise]:
    """What the tests of this folder are marked with."""
    return [promise for path in sorted(HERE.glob("test_*.py")) for promise in _promises_of(path)]


def _promises_of(path: Path) -> Iterator[Promise]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.guide":
                    heading, sentence = map(ast.literal_eval, mark.args)
                    yield Promise(heading, sentence, f"{path.name}::{node.name}")
