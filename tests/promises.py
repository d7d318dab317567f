"""What the tests promise: the sentences of docs/guide.md, and the defects of the connector that this one replaces.

A test carries `@pytest.mark.guide(heading, sentence)` or `@pytest.mark.defect(number, text)`, where `text` describes the defect.
One test may carry several marks, and several tests may prove one sentence.

    python -m tests.promises guide|defects

runs the marked tests and prints promise → test: outcome. Exit code 0 if every promise has a test and every test passed.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

TESTS = Path(__file__).parent
GUIDE = TESTS.parent / "docs" / "guide.md"
DEFECTS = range(1, 25)
"""Numbers of all known defects."""

Kind = Literal["guide", "defect"]
ORDER = ("failed", "not run", "skipped", "passed")
"""The worst outcome first: it counts where one test has several cases."""
OPTIONS = ("-p", "no:terminal", "-o", "addopts=--strict-markers --strict-config -p no:cacheprovider", "-m", "")

ADVICE = (
    "This guide describes how Hull and Pipedrive are connected, what is synchronized, and what to check when something is"
    " missing.",
    "Connect with an administrator of Pipedrive: a connector sees and changes only what the connected user may.",
    "Complete the settings, as described below.",
    "Outgoing user segments:",
    "Outgoing account segments:",
    "Hull Pipedrive",
    "User Person",
    "Account Organization",
    "Check the identifiers in the settings:",
    "Check the incoming attributes.",
    "Look at the connector's status:",
    "To send what is missing, fetch all:",
    "Check the incoming account attributes:",
)
"""Sentences of the guide that promise nothing: introductions, names, and what people should do."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A sentence below a heading of the guide or a defect by its number, and the id of a test that proves it."""

    group: str | int
    text: str
    test: str


def promises(kind: Kind) -> list[Promise]:
    """Return what the tests are marked with, in the order of the files."""
    found = [each for path in sorted(TESTS.rglob("test_*.py")) for each in _promises_in(path, kind)]
    return sorted(found, key=lambda promise: promise.group) if kind == "defect" else found


def _promises_in(path: Path, kind: Kind) -> Iterator[Promise]:
    source = path.read_text()
    if f"pytest.mark.{kind}(" in source:
        yield from _promises_of(ast.parse(source).body, path.relative_to(TESTS.parent).as_posix(), kind)


def _promises_of(body: Iterable[ast.stmt], prefix: str, kind: Kind) -> Iterator[Promise]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _promises_of(node.body, f"{prefix}::{node.name}", kind)
        elif isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == f"pytest.mark.{kind}":
                    group, text = map(ast.literal_eval, mark.args)
                    yield Promise(group, text, f"{prefix}::{node.name}")


def sections() -> dict[str, str]:
    """Return heading → plain text below it, up to the next heading."""
    parts = re.split(r"^#+ (.+)$", GUIDE.read_text(), flags=re.MULTILINE)
    return {heading: _plain(below) for heading, below in zip(parts[1::2], parts[2::2], strict=True)}


def _plain(markdown: str) -> str:
    """Remove the marks of lists, tables, emphasis and code, and make all spaces single."""
    without = re.sub(r"^\s*(?:[-*]|\d+\.)\s+|\|[-|]+\||\|", " ", markdown, flags=re.MULTILINE)
    return " ".join(re.sub(r"[*`]", "", without).split())


def unproved(given: Iterable[Promise]) -> dict[str, str]:
    """Return heading → the words of the guide that neither a promise nor the advice holds."""
    texts: dict[str | int, list[str]] = {}
    for promise in given:
        texts.setdefault(promise.group, []).append(promise.text)
    left = {}
    for heading, words in sections().items():
        rest = words
        for known in sorted([*texts.get(heading, ()), *ADVICE], key=len, reverse=True):
            rest = rest.replace(known, " ")
        if re.search(r"\w", rest):
            left[heading] = " ".join(rest.split())
    return left


class Outcomes:
    """A pytest plugin that keeps the outcome of each test function, and the report of each failure."""

    def __init__(self) -> None:
        self.by_test: dict[str, str] = {}
        self.failures: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid.partition("[")[0]
        if report.when == "call" or report.outcome != "passed":
            self.by_test[test] = min(self.by_test.get(test, "passed"), report.outcome, key=ORDER.index)
        if report.outcome == "failed":
            self.failures[report.nodeid] = report.longreprtext

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome == "failed":
            self.failures[report.nodeid] = report.longreprtext


def report(groups: Iterable[str | int], given: Iterable[Promise], outcomes: Outcomes) -> Iterator[str]:
    """Give the lines of a report; the last one counts the promises by their outcome."""
    totals: Counter[str] = Counter()
    by_text: dict[tuple[str | int, str], list[str]] = {}
    for promise in given:
        by_text.setdefault((promise.group, promise.text), []).append(promise.test)
    for wanted in groups:
        mine = {text: tests for (group, text), tests in by_text.items() if group == wanted}
        if mine:
            yield f"\n{wanted}"
        for text, tests in mine.items():
            found = {test: outcomes.by_test.get(test, "not run") for test in tests}
            totals[min(found.values(), key=ORDER.index)] += 1
            yield f"  {text}"
            yield from (f"    → {test}: {outcome}" for test, outcome in found.items())
    yield from (f"\n{test}\n{words}" for test, words in outcomes.failures.items())
    yield "\n" + ", ".join(f"{count} {outcome}" for outcome, count in sorted(totals.items()))


def main(kind: Kind) -> int:
    given = promises(kind)
    groups = [*sections()] if kind == "guide" else [*DEFECTS]
    without = unproved(given) if kind == "guide" else {f"{n}": "no test" for n in {*DEFECTS} - {p.group for p in given}}
    outcomes = Outcomes()
    pytest.main([*OPTIONS, *dict.fromkeys(promise.test for promise in given)], plugins=[outcomes])
    print(*report(groups, given, outcomes), sep="\n")
    for group, words in without.items():
        print(f"No test proves, of {group}: {words}")
    passed = {outcomes.by_test.get(promise.test) for promise in given} == {"passed"}
    return 0 if passed and not outcomes.failures and not without else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the tests of the guide's sentences or of the known defects.")
    parser.add_argument("of", choices=("guide", "defects"))
    sys.exit(main("guide" if parser.parse_args().of == "guide" else "defect"))
