"""Prints, for each defect: number, what was wrong → test → how it went; a number that nobody shows is `no test`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.defects.table import NUMBERS, defects
from tests.guide.report import Report as Outcomes


class Report(Outcomes):
    """Remembers how each test went, as the guide's report does."""

    def show(self, say: Callable[[str], None] = print) -> Counter[str]:
        """Print everything; returns how many tests went how, a number without any counted as one."""
        totals: Counter[str] = Counter()
        given = defects()
        for number in NUMBERS:
            mine = [defect for defect in given if defect.number == number]
            for defect in mine:
                outcome = self.outcomes.get(defect.test, "not run")
                totals[outcome] += 1
                say(f"{number:3}  {defect.wrong}\n     → {defect.test}: {outcome}")
            if not mine:
                totals["no test"] += 1
                say(f"{number:3}  → no test")
        for name, words in self.words.items():
            say(f"\n{name}\n{words}")
        say("\n" + ", ".join(f"{count} {outcome}" for outcome, count in sorted(totals.items())))
        return totals
