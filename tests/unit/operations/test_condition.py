"""The first sentence of an overview, for every state of a connector."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.operations.condition import WatermarkShape, describe_freshness
from pipeline.operations.overview import course_of, times_until

NOW = datetime(2026, 11, 3, 14, 3, 40, tzinfo=UTC)
EARLIER = datetime(2026, 11, 3, 14, 3, 20, tzinfo=UTC)
YESTERDAY = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


def marks(person: datetime | None, organization: datetime | None, excepted: int = 0) -> tuple[WatermarkShape, ...]:
    return tuple(
        WatermarkShape(entity=entity, claimed=at, excepted=count, deletes_verified_at=None)
        for entity, at, count in (("person", person, excepted), ("organization", organization, 0))
    )


@pytest.mark.parametrize(
    ("level", "given", "is_behind", "text"),
    [
        (
            "ok",
            marks(EARLIER, NOW),
            False,
            "Up to date. Everything changed in Pipedrive up to 14:03:20 UTC is in Hull.",
        ),
        (
            "warning",
            marks(EARLIER, NOW, 3),
            False,
            "Up to date, with warnings. Everything changed in Pipedrive up to 14:03:20 UTC is in Hull, except 3 records.",
        ),
        (
            "warning",
            marks(YESTERDAY, NOW, 1),
            True,
            "Behind. Everything changed in Pipedrive up to 2026-11-02 09:00:00 UTC is in Hull, except 1 record.",
        ),
        (
            "paused",
            marks(EARLIER, NOW),
            True,
            "Paused: the work is kept and waits. Everything changed in Pipedrive up to 14:03:20 UTC is in Hull.",
        ),
        (
            "ok",
            marks(None, NOW, 2),
            False,
            "Not up to date yet. Persons were not fetched completely yet. Start a full fetch.",
        ),
    ],
)
def test_the_sentence_shows_the_state_of_hull(
    level: str, given: tuple[WatermarkShape, ...], is_behind: bool, text: str
) -> None:
    assert describe_freshness(level, given, is_behind=is_behind, now=NOW).text == text


def test_what_was_never_fetched_whole_is_not_called_in_order() -> None:
    assert describe_freshness("ok", marks(None, None), is_behind=False, now=NOW).level == "warning"


@pytest.mark.parametrize(
    ("event", "course"),
    [
        ("incoming.user.success", "incoming"),
        ("outgoing.account.success", "outgoing"),
        ("outgoing.user.skip", "skipped"),
        ("incoming.account.error", "failed"),
        ("outgoing.user.error", "failed"),
        ("incoming.job.error", None),
        ("incoming.job.success", None),
        ("incoming.user.retry", None),
        ("connector.settings.error", None),
        ("odd", None),
    ],
)
def test_events_belong_to_a_course_or_to_none(event: str, course: str | None) -> None:
    assert course_of(event) == course


def test_times_end_with_the_present_hour_or_minute() -> None:
    hours, minutes = times_until(NOW, "hour"), times_until(NOW, "minute")

    assert (len(hours), hours[0].hour, hours[-1]) == (24, 15, NOW.replace(minute=0, second=0))
    assert (len(minutes), minutes[-1]) == (60, NOW.replace(second=0))
