"""The table of defects is whole, and says of each what was wrong."""

from __future__ import annotations

from tests.defects.report import Report
from tests.defects.table import NUMBERS, defects


def test_every_number_has_a_test() -> None:
    assert {defect.number for defect in defects()} == set(NUMBERS)


def test_every_test_says_something_else() -> None:
    wrong = [defect.wrong for defect in defects()]

    assert len(wrong) == len(set(wrong))
    assert [words for words in wrong if not (words[0].isupper() and words.endswith("."))] == []


def test_what_did_not_run_or_has_no_test_is_no_pass() -> None:
    lines: list[str] = []
    report = Report()
    report.outcomes = {defects()[0].test: "passed"}

    totals = report.show(lines.append)

    assert totals["passed"] == 1
    assert totals["not run"] == len(defects()) - 1
    assert lines[0].endswith(f"→ {defects()[0].test}: passed")
