"""What leaves the house calculates nothing; moments are read as people write them; filters know how they are found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.event_log import SUCCESSES, EventFilter
from pipeline.domain.times import read_moment
from pipeline.jobs.log_exports import FORMULAS, _safe

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)


@pytest.mark.parametrize("start", FORMULAS)
def test_a_cell_that_would_calculate_is_text(start: str) -> None:
    assert _safe(f"{start}1+1") == f"'{start}1+1"


@pytest.mark.parametrize(("value", "cell"), [(None, ""), (5, 5), ("Ada", "Ada"), ("1-1", "1-1")])
def test_other_cells_stay_as_they_are(value: Any, cell: Any) -> None:
    assert _safe(value) == cell


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("15 min", NOW - timedelta(minutes=15)),
        ("3d", NOW - timedelta(days=3)),
        ("2026-08-31", datetime(2026, 8, 31, tzinfo=UTC)),
        ("2026-08-31T12:00+02:00", datetime(2026, 8, 31, 10, tzinfo=UTC)),
        (" 2026-08-31T12:00 ", datetime(2026, 8, 31, 12, tzinfo=UTC)),
    ],
)
def test_moments_are_read_as_people_write_them(text: str, moment: datetime) -> None:
    assert read_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2h ago", "-1d", "2026-13-01", "9999999d"])
def test_an_invalid_moment_is_refused_with_the_format(text: str) -> None:
    with pytest.raises(ValueError, match="write 2026-08-31"):
        read_moment(text, NOW)


def test_an_outcome_leaves_the_events_that_end_with_it() -> None:
    names = EventFilter(outcome="error").names

    assert names is not None
    assert {name.rpartition(".")[2] for name in names} == {"error"}
    assert not SUCCESSES.intersection(names)


@pytest.mark.parametrize(
    ("wanted", "soon"),
    [
        (EventFilter(), True),
        (EventFilter(direction="outgoing"), True),
        (EventFilter(reason="too_long", cause="webhook"), True),
        (EventFilter(cause="replay"), False),
        (EventFilter(cause="replay", since=NOW), True),
        (EventFilter(event="*.park"), False),
    ],
)
def test_only_what_an_index_or_its_number_brings_is_looked_for_in_all(wanted: EventFilter, soon: bool) -> None:
    assert wanted.is_found_soon is soon
