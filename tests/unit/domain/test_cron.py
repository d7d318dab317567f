"""Cron expressions: when they are due next, and which are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.cron import cron_of, next_time, nightly

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("15 2 * * *", "2026-03-01T00:00:00", "2026-03-01T02:15:00"),
        ("15 2 * * *", "2026-03-01T02:14:59.5", "2026-03-01T02:15:00"),
        ("15 2 * * *", "2026-03-01T02:15:00", "2026-03-02T02:15:00"),
        ("15 2 * * *", "2026-03-01T02:15:30", "2026-03-02T02:15:00"),
        ("15 2 * * *", "2026-03-29T00:30:00", "2026-03-29T02:15:00"),  # the clocks change in Europe: UTC does not
        ("*/20 * * * *", "2026-03-01T23:59:59", "2026-03-02T00:00:00"),
        ("0 0 1 * *", "2026-12-15T00:00:00", "2027-01-01T00:00:00"),
        ("0 0 29 2 *", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
        ("30 4 * * 1", "2026-03-01T00:00:00", "2026-03-02T04:30:00"),
        ("30 4 * * mon", "2026-03-01T00:00:00", "2026-03-02T04:30:00"),
        ("0 6 13 * 5", "2026-03-01T00:00:00", "2026-03-06T06:00:00"),  # a 13th or a Friday
    ],
)
def test_the_next_time_follows_the_five_fields(cron: str, after: str, expected: str) -> None:
    found = next_time(cron, datetime.fromisoformat(after).replace(tzinfo=UTC))

    assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_the_fields_are_utc_whatever_zone_the_moment_is_in() -> None:
    berlin = timezone(timedelta(hours=2))

    found = next_time("15 2 * * *", datetime(2026, 3, 1, 4, 14, tzinfo=berlin))

    assert (found, found.tzinfo) == (datetime(2026, 3, 1, 2, 15, tzinfo=UTC), UTC)


@pytest.mark.parametrize("cron", ["", "never", "* * * *", "61 * * * *", "* * * * * *", "0 0 31 2 *", "0 0 * 2 0#9"])
def test_an_invalid_expression_is_refused(cron: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are CronSim's
        next_time(cron, NEW_YEAR)


@given(st.text("0123456789*/-,#LW SUNMONJAN²\t", max_size=40) | st.text(max_size=40))
def test_any_text_is_a_later_minute_or_refused(text: str) -> None:
    try:
        found = next_time(text, NEW_YEAR)
    except ValueError:
        return
    assert found > NEW_YEAR
    assert (found.second, found.microsecond) == (0, 0)


def test_nightly_is_a_minute_before_five_that_depends_on_the_connector() -> None:
    nights = {nightly(f"{number:024x}") for number in range(50)}

    assert len(nights) > 40
    assert all(0 <= int(night.split()[1]) < 5 for night in nights)
    assert cron_of("nightly", f"{7:024x}") == nightly(f"{7:024x}")
    assert (cron_of("15 2 * * *", "x"), cron_of("", "x")) == ("15 2 * * *", "")
