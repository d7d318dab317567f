"""Charts as SVG. Pure.

Each outcome has one hue, by class; the axis begins at zero; the last value is shown at the end of its line. There are no
inline styles, because the content policy forbids them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup

SPARK_WIDTH, SPARK_HEIGHT = 96, 20
WIDTH, HEIGHT = 960, 180
LEFT, RIGHT, TOP, BOTTOM = 48, 96, 12, 22
"""Margins for the axis labels, the last value, the highest point, and the times."""
NICE: Final = (1, 2, 5, 10)
LABEL_APART: Final = 13.0
"""A line of text, in the units of the drawing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart.

    name     in the table, and at the end of the line
    outcome  `success`, `skip`, `retry` or `error`: the hue
    """

    name: str
    outcome: str
    values: tuple[float, ...]


def spark(values: Sequence[float], *, outcome: str = "success", words: str = "") -> Markup:
    """Return a line of text height; its last point is marked. `words` describe it for screen readers."""
    if not values:
        return Markup("")
    points = _points(values, max(values), SPARK_WIDTH - 4, SPARK_HEIGHT - 4, left=2, top_y=2)
    end_x, end_y = points[-1]
    return Markup(
        '<svg class="spark {}" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><path class="area" d="{}"/>'
        '<path class="line" d="{}"/><circle class="end" cx="{}" cy="{}" r="1.8"/></svg>'
    ).format(
        outcome,
        SPARK_WIDTH,
        SPARK_HEIGHT,
        words,
        words,
        _area(points, SPARK_HEIGHT - 2),
        _line(points),
        _n(end_x),
        _n(end_y),
    )


def chart(times: Sequence[datetime], series: Sequence[Series], *, words: str, times_as: str = "%H:%M") -> Markup:
    """Return lines over time with an axis from zero. `words` are the chart's title, also for screen readers."""
    if not times or not series:
        return Markup("")
    top = ceiling(max((max(each.values, default=0) for each in series), default=0))
    high, wide = HEIGHT - TOP - BOTTOM, WIDTH - LEFT - RIGHT
    lines = Markup("").join(_drawn(each, top, wide, high) for each in series)
    labels = Markup("").join(_end_labels(series, top, high))
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}{}</svg>').format(
        WIDTH, HEIGHT, words, _axis(top, wide, high), _times(times, times_as, wide), lines, labels
    )


def ceiling(highest: float) -> float:
    """Return the end of an axis: 1, 2 or 5 times a power of ten, not below the highest value."""
    power = 1.0
    while power * NICE[-1] < highest:
        power *= 10
    return next(power * nice for nice in NICE if power * nice >= highest)


def _drawn(series: Series, top: float, wide: float, high: float) -> Markup:
    points = _points(series.values, top, wide, high, left=LEFT, top_y=TOP)
    return Markup('<g class="{}"><path class="area" d="{}"/><path class="line" d="{}"/></g>').format(
        series.outcome, _area(points, TOP + high), _line(points)
    )


def _end_labels(series: Sequence[Series], top: float, high: float) -> list[Markup]:
    """Place the last value of each line at its end, moved apart if two would overlap."""
    wanted = sorted(((TOP + high - high * each.values[-1] / top, each) for each in series), key=lambda one: one[0])
    heights = spread([y for y, _ in wanted], apart=LABEL_APART, lowest=TOP + high)
    label = Markup('<text class="{}" x="{}" y="{}">{} {}</text>')
    return [
        label.format(each.outcome, WIDTH - RIGHT + 6, _n(y + 4), short(each.values[-1]), each.name)
        for y, (_, each) in zip(heights, wanted, strict=True)
    ]


def spread(heights: Sequence[float], *, apart: float, lowest: float) -> list[float]:
    """Return ascending heights, moved so that any two are at least `apart`: first down, then up from `lowest`."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + apart) if moved else height)
    for at in reversed(range(len(moved))):
        below = moved[at + 1] - apart if at + 1 < len(moved) else lowest
        moved[at] = min(moved[at], below)
    return moved


def _axis(top: float, wide: float, high: float) -> Markup:
    rows = []
    for share in (0.0, 0.5, 1.0):
        y = TOP + high - high * share
        rows.append(
            Markup('<path class="axis" d="M{} {}H{}"/><text x="{}" y="{}" text-anchor="end">{}</text>').format(
                LEFT, _n(y), _n(LEFT + wide), LEFT - 6, _n(y + 4), short(top * share)
            )
        )
    return Markup("").join(rows)


def _times(times: Sequence[datetime], written: str, wide: float) -> Markup:
    """Return labels at the beginning, in the middle and at the end."""
    last = len(times) - 1
    anchors = {0: "start", last // 2: "middle", last: "end"} if last >= 2 else {0: "start"}
    return Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            _n(LEFT + wide * at / max(1, last)), HEIGHT - 4, anchor, f"{times[at].astimezone(UTC):{written}}"
        )
        for at, anchor in anchors.items()
    )


def short(value: float) -> str:
    """Return `950`, `1.2k` or `3.4M`, short enough for an axis."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.1f}".removesuffix(".0") + unit
    return f"{value:.1f}".removesuffix(".0")


def _points(
    values: Sequence[float], top: float, wide: float, high: float, *, left: float, top_y: float
) -> list[tuple[float, float]]:
    """Return (x, y) of each value, with zero at the bottom; a single value becomes a horizontal line."""
    known = list(values) if len(values) > 1 else [values[0], values[0]]
    step, scale = wide / (len(known) - 1), high / top if top > 0 else 0.0
    return [(left + step * at, top_y + high - scale * value) for at, value in enumerate(known)]


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _area(points: Sequence[tuple[float, float]], bottom: float) -> str:
    return f"{_line(points)}V{_n(bottom)}H{_n(points[0][0])}Z"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
