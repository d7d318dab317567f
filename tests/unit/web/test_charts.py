"""What a chart promises: an axis from zero, its last value in words, and nothing that the content policy would refuse."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.web.console.charts import Series, ceiling, chart, short, spark, spread

HOURS = [datetime(2026, 11, 3, tzinfo=UTC) + timedelta(hours=n) for n in range(24)]


def drawn(values: list[float], **more: str) -> ElementTree.Element:
    return ElementTree.fromstring(spark(values, **more))  # noqa: S314 - ours


def heights(path: str) -> list[float]:
    return [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.-]+)", path)]


def test_a_spark_is_scaled_from_zero_to_its_highest_value() -> None:
    line = drawn([0, 5, 10]).findall("path")[1]

    assert heights(line.attrib["d"]) == [18, 10, 2]


def test_a_spark_of_zeros_is_at_the_bottom() -> None:
    assert set(heights(drawn([0, 0, 0]).findall("path")[1].attrib["d"])) == {18}


def test_no_values_draw_nothing() -> None:
    assert spark([]) == ""
    assert chart([], [], words="x") == ""


def test_a_chart_shows_its_last_value_and_the_ends_of_its_axis() -> None:
    lines = (Series(name="in", outcome="success", values=(*[0.0] * 23, 1_204.0)),)
    texts = [each.text for each in ElementTree.fromstring(chart(HOURS, lines, words="By the hour")).iter("text")]  # noqa: S314

    assert texts[:3] == ["0", "1k", "2k"]
    assert texts[-1] == "1.2k in"
    assert {"00:00", "11:00", "23:00"} <= set(texts)


def test_labels_that_would_meet_are_moved_apart() -> None:
    lines = [Series(name=str(n), outcome="skip", values=(0.0, 10.0)) for n in range(3)]
    root = ElementTree.fromstring(chart(HOURS[:2], lines, words="x"))  # noqa: S314
    ends = sorted(float(each.attrib["y"]) for each in root.iter("text") if each.get("class"))

    assert all(after - before >= 13 for before, after in itertools.pairwise(ends))


def test_names_are_escaped_and_nothing_carries_a_style() -> None:
    made = chart(HOURS[:2], [Series(name="<script>", outcome="error", values=(1, 2))], words='"><script>')

    assert "<script>" not in made
    assert "style=" not in made + spark([1, 2], words='"x')


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (950, "950"), (1_204, "1.2k"), (30_000, "30k"), (3.4e6, "3.4M")]
)
def test_numbers_are_short(value: float, words: str) -> None:
    assert short(value) == words


@given(st.floats(min_value=0, max_value=1e9))
def test_an_axis_ends_above_the_highest_value_and_not_far_above(highest: float) -> None:
    assert highest <= ceiling(highest) <= max(1, 2.5 * highest)


@given(st.lists(st.integers(min_value=0, max_value=10**9), min_size=1, max_size=48))
def test_every_spark_stays_within_its_frame(values: list[int]) -> None:
    for path in drawn([float(each) for each in values]).findall("path"):
        assert all(0 <= y <= 20 for y in heights(path.attrib["d"]))


@pytest.mark.parametrize(
    ("heights", "moved"),
    [
        ([], []),
        ([10, 50], [10, 50]),
        ([10, 12], [10, 23]),
        ([100, 100, 100], [74, 87, 100]),
        ([90, 95, 100], [74, 87, 100]),
        ([10, 99, 100], [10, 87, 100]),
    ],
)
def test_labels_stay_above_the_axis(heights: list[float], moved: list[float]) -> None:
    assert spread(heights, apart=13, lowest=100) == moved
