"""Prints, for each heading of the guide: sentence → test → how it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.guide.page import Promise, promises, sections

ORDER = ("failed", "skipped", "passed")
"""Of the cases of one test, the worst one counts."""


class Report:
    """A pytest plugin that remembers how each test function went, and what it said when it failed."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.words: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("/")[2].partition("[")[0]
        if report.when == "call" or report.outcome != "passed":
            before = self.outcomes.get(name, report.outcome)
            self.outcomes[name] = min(before, report.outcome, key=ORDER.index)
        if report.outcome == "failed":
            self.words[report.nodeid] = report.longreprtext

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome == "failed":
            self.words[report.nodeid] = report.longreprtext

    def show(self, say: Callable[[str], None] = print) -> Counter[str]:
        """Print everything; returns how many sentences went how."""
        totals: Counter[str] = Counter()
        given = promises()
        for heading in sections():
            mine = [promise for promise in given if promise.heading == heading]
            if mine:
                say(f"\n{heading}")
            for promise in mine:
                totals[self._show_promise(promise, say)] += 1
        for name, words in self.words.items():
            say(f"\n{name}\n{words}")
        say("\n" + ", ".join(f"{count} {outcome}" for outcome, count in sorted(totals.items())))
        return totals

    def _show_promise(self, promise: Promise, say: Callable[[str], None]) -> str:
        outcome = self.outcomes.get(promise.test, "not run")
        say(f"  {promise.sentence}\n    → {promise.test}: {outcome}")
        return outcome
