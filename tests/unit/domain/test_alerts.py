"""Tables of the alert rules: facts in, alerts out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline.domain.alerts import RULES, Bounds, BudgetFacts, Facts, check_connector, check_installation, unknown_rules

BOUNDS = Bounds(late_minutes=15, failures_per_hour=25, silence_minutes=60, overdue_s=120, volume_factor=5)
OFF = Bounds(late_minutes=0, failures_per_hour=0, silence_minutes=0, overdue_s=0, volume_factor=0)
WELL = Facts(
    paused_by=None,
    late_s=300.0,
    late_bound_s=900.0,
    late_since=datetime(2026, 11, 3, 14, 3, tzinfo=UTC),
    failures=3,
    unhealthy_webhooks={},
    budget=BudgetFacts(is_closed=False, share=0.4, forecast=0.9),
    silent_s=60.0,
    events=200,
    usual=(180, 210, 190, 220, 205),
)


def rules_of(**changes: object) -> list[str]:
    return [trouble.rule for trouble in check_connector(replace(WELL, **changes), BOUNDS)]


def test_nothing_is_wrong() -> None:
    assert check_connector(WELL, BOUNDS) == []
    assert check_installation(20.0, 5.0, BOUNDS) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"late_s": 901.0}, "watermark_late"),
        ({"failures": 25}, "failures"),
        ({"unhealthy_webhooks": {"Persons": 1_201.0}}, "webhook_unhealthy"),
        ({"budget": BudgetFacts(is_closed=True, share=0.1, forecast=0.2)}, "budget_short"),
        ({"budget": BudgetFacts(is_closed=False, share=1.0, forecast=1.1)}, "budget_short"),
        ({"budget": BudgetFacts(is_closed=False, share=0.6, forecast=1.0)}, "budget_short"),
        ({"silent_s": 3_601.0}, "silence"),
        ({"events": 30}, "volume_unusual"),
        ({"events": 1_200}, "volume_unusual"),
        ({"paused_by": "unauthorized"}, "auth_lost"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], rule: str) -> None:
    assert rules_of(**changes) == [rule]


@pytest.mark.parametrize(
    "changes",
    [
        {"late_s": None, "late_since": None},
        {"late_s": 2_000.0, "late_bound_s": 3_600.0},  # a long interval was chosen, or the budget stretches it
        {"failures": 24},
        {"unhealthy_webhooks": {"Persons": 900.0}},
        {"budget": None},
        {
            "budget": BudgetFacts(is_closed=False, share=0.1, forecast=3.0)
        },  # a few calls in the night say nothing of the day
        {"budget": BudgetFacts(is_closed=False, share=0.0, forecast=0.0)},
        {"silent_s": None},
        {"events": None},
        {"events": 0, "usual": (180, 210, 190)},  # too few days
        {"events": 0, "usual": (3, 5, 40, 2, 0)},  # a quiet hour
        {"events": 0, "usual": (180, 0, 190, 220, 205)},  # such an hour has been before
        {"events": 400, "usual": (1, 2, 0, 3, 1)},  # many more, and still few
        {"events": 1_200, "usual": (180, 210, 190, 900, 205)},
        {"paused_by": "connector_paused"},
        {"paused_by": "not_connected"},
    ],
)
def test_usual_facts_cause_no_alert(changes: dict[str, object]) -> None:
    assert rules_of(**changes) == []


def test_a_paused_connector_is_judged_by_its_pause_alone() -> None:
    facts = replace(WELL, paused_by="uninstalled", late_s=90_000.0, failures=500, silent_s=90_000.0)

    assert [trouble.rule for trouble in check_connector(facts, BOUNDS)] == ["auth_lost"]
    assert unknown_rules(facts) == set(RULES) - {"auth_lost"}


def test_what_is_not_known_is_neither_raised_nor_over() -> None:
    assert unknown_rules(WELL) == set()
    assert unknown_rules(replace(WELL, budget=None)) == {"budget_short"}
    unknown = BudgetFacts(is_closed=None, share=0.4, forecast=0.9)
    assert unknown_rules(replace(WELL, budget=unknown)) == {"budget_short"}


def test_every_threshold_can_be_switched_off() -> None:
    worst = replace(WELL, late_s=90_000.0, failures=500, silent_s=900_000.0, events=0)

    assert check_connector(worst, OFF) == []
    assert check_installation(9_000.0, 9_000.0, OFF) == []


def test_work_that_waits_and_ticks_that_do_not_come_are_the_houses() -> None:
    assert [trouble.rule for trouble in check_installation(121.0, 121.0, BOUNDS)] == ["work_overdue", "no_ticks"]
    assert check_installation(0.0, None, BOUNDS) == []


def test_a_beat_that_never_ticked_is_missed() -> None:
    (trouble,) = check_installation(0.0, 7_300.0, BOUNDS, ever_ticked=False)

    assert trouble.rule == "no_ticks"
    assert trouble.sentence == "No tick of beat was ever processed; the first connector was added 2 hours ago."


def test_sentences_carry_figures_and_moments() -> None:
    (late,) = check_connector(replace(WELL, late_s=7_260.0), BOUNDS)

    assert late.sentence == "What changed since 2026-11-03 14:03 UTC, 2 hours ago, may not be in Hull."


def test_every_rule_has_advice() -> None:
    assert all(rule.title and rule.meaning.endswith(".") and rule.advice.endswith(".") for rule in RULES.values())
