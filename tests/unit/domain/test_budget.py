"""Who may spend how much of the day."""

from __future__ import annotations

import pytest

from pipeline.domain.budget import Allowance, Lane


@pytest.mark.parametrize(
    ("lane", "ceiling"), [(Lane.LIVE, None), (Lane.CONTROL, 27_000), (Lane.BULK, 24_000), (Lane.VERIFY, 24_000)]
)
def test_fetches_leave_a_fifth_control_a_tenth_and_live_work_nothing(lane: Lane, ceiling: int | None) -> None:
    assert Allowance().ceiling(lane) == ceiling


@pytest.mark.parametrize("lane", list(Lane))
def test_nothing_is_kept_of_a_day_without_limit(lane: Lane) -> None:
    assert Allowance(daily_tokens=0).ceiling(lane) is None


def test_without_a_reserve_fetches_may_take_the_whole_day() -> None:
    assert Allowance(1_000, 0.0).ceiling(Lane.BULK) == 1_000
