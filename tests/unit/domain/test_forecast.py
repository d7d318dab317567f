"""What fetches and schedules will cost, and when they will be done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.budget import (
    DAY_S,
    LIST_TOKENS,
    PAGE_S,
    ROUND_TOKENS,
    SLOWEST_PAGE_S,
    TOKEN_COSTS,
    FetchCost,
    ends_in_s,
    fetch_cost,
    page_pace_s,
    pages_left,
    rest_of_day,
    schedule_tokens,
    stretched_interval_s,
)


@pytest.mark.parametrize(
    ("records", "pages", "tokens"),
    [(0, 2, 30), (1, 2, 30), (500, 2, 30), (501, 4, 50), (1_000, 4, 50), (100_000, 202, 2_030)],
)
def test_a_full_fetch_costs_its_pages_the_overlap_the_catch_up_and_the_fields(
    records: int, pages: int, tokens: int
) -> None:
    assert fetch_cost(records, 500) == FetchCost(pages, tokens)


def test_the_ids_between_two_walks_show_what_is_left() -> None:
    assert pages_left(1_000, 3_001, 500, catching_up=False) == 4 + 1
    assert pages_left(1_000, 1_001, 500, catching_up=False) == 1
    assert pages_left(None, 3_001, 500, catching_up=False) is None
    assert pages_left(None, None, 500, catching_up=True) == 1


def test_a_pace_is_what_the_run_has_shown_unless_it_has_waited() -> None:
    assert page_pace_s(10.0, 20) == 0.5
    assert page_pace_s(DAY_S, 20) == SLOWEST_PAGE_S
    assert page_pace_s(0.0, 0) == PAGE_S


def test_a_fetch_that_fits_today_is_as_long_as_its_pages() -> None:
    assert ends_in_s(100, 0.5, left=1_000, a_day=1_000, reset_s=3_600) == 50
    assert ends_in_s(100, 0.5, left=None, a_day=0, reset_s=3_600) == 50


def test_what_does_not_fit_today_waits_for_the_next_day() -> None:
    assert ends_in_s(101, 0.5, left=1_000, a_day=1_000, reset_s=3_600) == 3_600 + 0.5


def test_a_large_fetch_takes_several_days() -> None:
    assert ends_in_s(350, 1.0, left=1_000, a_day=1_000, reset_s=3_600) == 3_600 + 2 * DAY_S + 50


def test_a_day_that_is_used_up_to_the_last_page_is_no_day_more() -> None:
    assert ends_in_s(200, 1.0, left=1_000, a_day=1_000, reset_s=3_600) == 3_600 + 100


def test_a_day_too_small_for_a_page_never_ends() -> None:
    assert ends_in_s(2, 1.0, left=10, a_day=9, reset_s=3_600) is None


def test_five_minutes_take_5760_tokens_a_day() -> None:
    assert schedule_tokens(300) == 5_760
    assert schedule_tokens(300, 3_600) == 240


def test_an_interval_that_fits_stays_as_it_is() -> None:
    assert stretched_interval_s(300, left=24_000, seconds_left=DAY_S) == 300
    assert stretched_interval_s(300, left=None, seconds_left=DAY_S) == 300


def test_an_interval_that_does_not_fit_is_stretched() -> None:
    assert stretched_interval_s(300, left=4_000, seconds_left=DAY_S) == DAY_S / 100


def test_with_nothing_left_the_next_round_is_tomorrow() -> None:
    assert stretched_interval_s(300, left=0, seconds_left=7_000) == 7_000
    assert stretched_interval_s(300, left=-50, seconds_left=7_000) == 7_000
    assert stretched_interval_s(300, left=0, seconds_left=100) == 300


@given(st.integers(60, 3_600), st.integers(0, 100_000), st.integers(1, DAY_S))
def test_a_stretched_interval_never_takes_more_than_its_share(interval_s: int, left: int, seconds_left: int) -> None:
    stretched = stretched_interval_s(interval_s, left=left, seconds_left=seconds_left)
    rounds = seconds_left / stretched

    assert stretched >= interval_s
    assert rounds * ROUND_TOKENS <= max(left / 2, ROUND_TOKENS) + 1e-6


def test_the_rest_of_the_day_has_the_same_pace() -> None:
    assert rest_of_day(300, seconds_gone=21_600, seconds_left=64_800) == 900
    assert rest_of_day(0, seconds_gone=0, seconds_left=DAY_S) == 0


def test_prices_are_those_the_calls_are_made_at() -> None:
    assert LIST_TOKENS == TOKEN_COSTS["list"] == TOKEN_COSTS["fields"]
    assert ROUND_TOKENS == 2 * LIST_TOKENS
