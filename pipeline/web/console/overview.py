"""`/c/<name>/`: whether Hull is up to date, work in flight, and what to do."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final

from flask import request
from markupsafe import Markup
from werkzeug.wrappers import Response

from db.connector import Connector
from pipeline.domain.cron import cron_words
from pipeline.operations.cached_answers import Shared
from pipeline.operations.overview import STEPS, CourseShape, OverviewAnswer, TrafficShape, show_overview
from pipeline.web.console import charts
from pipeline.web.console.calls import perform
from pipeline.web.console.charts import Series
from pipeline.web.console.frame import page
from pipeline.web.console.guard import Pages
from pipeline.web.console.steps import step_of

TAB: Final = ("", "Overview")
HUES: Final = {"incoming": "success", "outgoing": "success out", "skipped": "skip", "failed": "error"}
"""Course → classes of its line: what goes out is dashed, since both ways end well in the same hue."""
NAMES: Final = {"incoming": "← in", "outgoing": "→ out", "skipped": "skipped", "failed": "failed"}
FILTERS: Final = {
    "incoming": "direction=incoming&outcome=success",
    "outgoing": "direction=outgoing&outcome=success",
    "skipped": "outcome=skip",
    "failed": "outcome=error",
}
"""Course → the filter of the logs that lists it."""
SPANS: Final = {"hour": "the last 24 hours, by the hour", "minute": "the last hour, by the minute"}


def add(pages: Pages) -> None:
    pages.page("/c/<name>/", show)


def show(connector: Connector) -> Response:
    """The same address answers the whole page and its live part."""
    unit = request.args.get("by", "")
    seen = _seen((connector.key, unit if unit in STEPS else "hour"))
    return page(
        "overview.html",
        connector=connector,
        tab=TAB[0],
        seen=seen,
        cron_words=lambda cron: cron_words(cron, connector.id),
        **drawn(seen),
    )


def drawn(seen: OverviewAnswer) -> dict[str, Any]:
    """What the page shows beside the plain values: next steps, lines, and the addresses of the numbers."""
    traffic = seen.traffic
    since = f"{seen.as_of.astimezone(UTC):%Y-%m-%dT00:00:00Z}"
    spent = [each.tokens for each in seen.budget.days]
    return {
        "steps": [(note, step_of(note, seen.name)) for note in seen.notes],
        "courses": [
            {
                "name": each.name,
                "today": each.today,
                "filter": f"{FILTERS[each.name]}&since={since}",
                "spark": any(each.values)
                and charts.spark(each.values, outcome=HUES[each.name], words=_spark_words(each, traffic)),
            }
            for each in traffic.courses
        ],
        "tokens_spark": len(spent) > 1 and charts.spark(spent, outcome="skip", words="Tokens spent on the last days"),
        "chart": _chart(traffic),
        "span": SPANS[traffic.unit],
        "rows": list(zip(traffic.times, *(each.values for each in traffic.courses), strict=True))[::-1],
        "course_names": [NAMES[each.name] for each in traffic.courses],
    }


def forget() -> None:
    """Redirect to the page after a change."""
    _seen.forget()


def _chart(traffic: TrafficShape) -> Markup:
    """Quiet courses are left out: a line along the ground says nothing that the figures above do not say."""
    lines = [
        Series(name=NAMES[each.name], outcome=HUES[each.name], values=tuple(float(n) for n in each.values))
        for each in traffic.courses
        if any(each.values)
    ]
    return charts.chart(traffic.times, lines, words=f"Records of {SPANS[traffic.unit]}")


def _spark_words(course: CourseShape, traffic: TrafficShape) -> str:
    return f"{course.name}: {sum(course.values):,} in {SPANS[traffic.unit]}, the last {course.values[-1]:,}"


def _read(key: tuple[int, str]) -> OverviewAnswer:
    return perform(show_overview, by=key[1])


_seen = Shared(_read)
"""Key of the connector and unit → its overview."""
