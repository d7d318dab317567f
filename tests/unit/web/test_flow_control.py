"""Hull sends immediately while few messages wait, and more slowly the more wait."""

from __future__ import annotations

import pytest

from pipeline.web.notifications import MOST, STEPS, flow_control


@pytest.mark.parametrize(
    ("waiting", "answer"),
    [
        (0, {"type": "next"}),
        (1_000, {"type": "next"}),
        (1_001, {"type": "next", "size": 100, "in": 1_000}),
        (5_001, {"type": "next", "size": 100, "in": 5_000}),
        (20_001, {"type": "next", "size": 100, "in": 15_000}),
        (50_001, {"type": "next", "size": 100, "in": 60_000}),
        (10_000_000, {"type": "next", "size": 100, "in": 60_000}),
    ],
)
def test_the_pause_depends_on_the_waiting_messages(waiting: int, answer: dict[str, object]) -> None:
    assert flow_control(waiting) == answer


def test_more_never_makes_it_faster_and_counting_reaches_the_last_step() -> None:
    rates = [size / in_ms for _, size, in_ms in STEPS]

    assert rates == sorted(rates)
    assert flow_control(MOST) == flow_control(10 * MOST)
