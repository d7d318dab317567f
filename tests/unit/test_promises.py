"""Every sentence of the customer's guide and every known defect has a test."""

from __future__ import annotations

import pytest

from pipeline.cli.troubleshooting import HEADINGS
from tests.promises import DEFECTS, Kind, Outcomes, promises, report, sections, unproved


def test_every_promise_is_a_sentence_of_the_guide_below_its_heading() -> None:
    astray = [promise for promise in promises("guide") if promise.text not in sections().get(str(promise.group), "")]

    assert astray == []


def test_every_sentence_of_the_guide_has_a_test() -> None:
    assert unproved(promises("guide")) == {}


def test_a_sentence_without_a_test_is_found() -> None:
    (first, *others) = promises("guide")
    others = [each for each in others if each.text != first.text]

    assert unproved(others) == {first.group: first.text}


def test_the_doctor_answers_headings_of_the_guide() -> None:
    assert set(HEADINGS) <= set(sections())
    assert len(HEADINGS) == 4


def test_every_defect_has_a_test() -> None:
    assert {promise.group for promise in promises("defect")} == set(DEFECTS)


def test_each_defect_is_described_by_a_sentence() -> None:
    texts = [promise.text for promise in promises("defect")]

    assert [text for text in texts if not (text[0].isupper() and text.endswith("."))] == []


@pytest.mark.parametrize("kind", ["guide", "defect"])
def test_no_test_carries_a_mark_twice(kind: Kind) -> None:
    given = promises(kind)

    assert len(given) == len(set(given))
    assert len(given) > 40


def test_a_promise_without_a_test_run_has_not_passed() -> None:
    outcomes, given = Outcomes(), promises("defect")
    outcomes.by_test = {given[0].test: "passed"}

    *lines, totals = report([1, 2], given, outcomes)

    assert lines[:3] == ["\n1", f"  {given[0].text}", f"    → {given[0].test}: passed"]
    assert "not run" in totals
