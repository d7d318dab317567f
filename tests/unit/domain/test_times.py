from __future__ import annotations

import pytest

from pipeline.domain.times import epoch_milliseconds, epoch_seconds, iso_day, iso_moment, iso_time


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-02-01T09:30:00Z", 1769938200),
        ("2026-02-01T09:30:00.999Z", 1769938200),
        ("2026-02-01T09:30:00+00:00", 1769938200),
        ("2026-02-01T04:00:00-05:30", 1769938200),
        ("2026-02-01 09:30:00", 1769938200),
        ("1969-12-31T23:59:59.500Z", -1),
        ("2026-02-30T09:30:00Z", None),
        ("2026-02-01", None),
        ("\ud800" * 20, None),
        (1769938200, None),
        (None, None),
    ],
)
def test_a_moment_is_a_whole_second(text: object, expected: int | None) -> None:
    assert epoch_seconds(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-02-01T09:30:00.616Z", 1769938200616),
        (1769938200, 1769938200000),
        (1769938200616, 1769938200616),
        ("1769938200", 1769938200000),
        (-1, None),
        (True, None),
        (1.5, None),
        (10**20, None),
        ("soon", None),
    ],
)
def test_a_webhook_is_dated_in_milliseconds(value: object, expected: int | None) -> None:
    assert epoch_milliseconds(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-01T09:30:00Z", "2026-02-01T09:30:00Z"),
        ("2026-02-01T09:30:00.123Z", "2026-02-01T09:30:00Z"),
        ("2026-02-01T11:30:00+02:00", "2026-02-01T09:30:00Z"),
        ("2026-02-01 09:30:00", "2026-02-01T09:30:00Z"),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("yesterday", None),
    ],
)
def test_a_moment_is_spelled_one_way(text: str, expected: str | None) -> None:
    assert iso_moment(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-01", "2026-02-01"),
        ("20260201", "2026-02-01"),
        ("2026-W05-7", "2026-02-01"),
        ("2026-02-01 09:30:00", "2026-02-01T09:30:00Z"),
        ("2026-05-01T00:30:00+02:00", "2026-05-01"),
        ("2026-05-01T23:30:00-05:00", "2026-05-01"),
        ("2026-02-30", None),
        ("", None),
    ],
)
def test_a_day_is_spelled_one_way(text: str, expected: str | None) -> None:
    assert iso_day(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("09:30:00", "09:30:00"),
        ("09:30", "09:30:00"),
        ("T09:30:00", "09:30:00"),
        ("09:30:00.5", "09:30:00"),
        ("09:30:00Z", "09:30:00"),
        ("24:30:00", None),
        ("noon", None),
    ],
)
def test_a_time_of_day_is_spelled_one_way(text: str, expected: str | None) -> None:
    assert iso_time(text) == expected
