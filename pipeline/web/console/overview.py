"""The condition of connectors, with next steps: `/` for all, `/c/<name>/` for one, and `/alerts`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from flask import request
from markupsafe import Markup
from werkzeug.wrappers import Response

from db import connector as connectors
from db import failure
from db.connector import Connector
from db.session import transaction
from pipeline.domain.cron import cron_words
from pipeline.domain.kinds import Entity, Role
from pipeline.operations import alerts
from pipeline.operations.alerts import AlertShape, open_alerts
from pipeline.operations.cached_answers import Shared
from pipeline.operations.condition import Condition, NoteShape, judge_condition
from pipeline.operations.overview import STEPS, CourseShape, OverviewAnswer, TrafficShape, show_overview
from pipeline.web.auth import who
from pipeline.web.console import charts
from pipeline.web.console.charts import Series
from pipeline.web.console.layout import before_id, done, page, split_page
from pipeline.web.console.pages import Pages, perform

HUES: Final = {"incoming": "success", "outgoing": "success out", "skipped": "skip", "failed": "error"}
"""Course → classes of its line. Both directions have the hue of success, so the outgoing line is dashed."""
COURSE_NAMES: Final = {"incoming": "← in", "outgoing": "→ out", "skipped": "skipped", "failed": "failed"}
FILTERS: Final = {
    "incoming": "direction=incoming&outcome=success",
    "outgoing": "direction=outgoing&outcome=success",
    "skipped": "outcome=skip",
    "failed": "outcome=error",
}
"""Course → filter of the logs."""
SPANS: Final = {"hour": "the last 24 hours, by the hour", "minute": "the last hour, by the minute"}
BY_HAND = ("", "connector_paused")
ENTRIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorRow:
    """A row in the list of connectors."""

    key: int
    name: str
    id: str
    organization: str
    company: str
    state: str
    condition: Condition
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """The next step of a note; `posts`: a button of a form, which needs the role operator."""

    words: str
    address: str
    posts: bool = False


def add(pages: Pages) -> None:
    pages.page("/", show_home)
    pages.page("/c/<name>/", show_connector)
    pages.page("/alerts", show_alerts)
    pages.action("/alerts/test", send_test, needs=Role.ADMIN)


def show_home() -> Response:
    """Show all connectors with their condition."""
    rows = [row for row in _rows("all") if who().may_see(row.key)]
    alert_views = [each for each in _open_alerts("all") if who().may_see(each.connector_key)]
    return page("home.html", rows=rows, sentence=_home_sentence(rows), alerts=alert_views)


def show_connector(connector: Connector) -> Response:
    """Show the overview of a connector."""
    unit = request.args.get("by", "")
    seen = _overviews((connector.key, unit if unit in STEPS else "hour"))
    return page(
        "overview.html",
        connector=connector,
        tab="",
        seen=seen,
        cron_words=lambda cron: cron_words(cron, connector.id),
        **_computed(seen),
    )


def show_alerts() -> Response:
    now, known = perform(alerts.list_open).alerts, perform(alerts.list_rules)
    shown, more = split_page(perform(alerts.list_past, before=before_id(), limit=ENTRIES + 1).alerts, ENTRIES)
    return page(
        "alerts.html",
        sentence=_alerts_sentence(now),
        alerts=now,
        past=shown,
        more=more,
        rules=known.rules,
        sinks=known.sinks,
    )


def send_test() -> Response:
    """Send a test alert to every sink, and show the results."""
    results = perform(alerts.send_test_alert).sinks
    return done(
        "/alerts", "Test alert sent: " + "; ".join(f"{sink}: {answer}" for sink, answer in results.items()) + "."
    )


def forget_overview() -> None:
    """Forget the shared overviews, so that the next page shows a change."""
    _overviews.forget()


def _read_rows(_key: str) -> list[ConnectorRow]:
    with transaction() as session:
        return [
            ConnectorRow(
                key=each.key,
                name=each.name,
                id=each.id,
                organization=each.hull_organization,
                company=urlsplit(each.pipedrive_company or "").netloc or "not known yet",
                state=each.state,
                condition=judge_condition(session, each),
                failures=sum(failure.count_open(session, each.key).values()),
            )
            for each in connectors.all_connectors(session)
        ]


def _read_alerts(_key: str) -> list[AlertShape]:
    with transaction() as session:
        return open_alerts(session)


def _home_sentence(rows: list[ConnectorRow]) -> str:
    if not rows:
        return "No connector yet."
    unhealthy = [row.name for row in rows if row.condition.level != "ok"]
    if not unhealthy:
        return "All connectors are healthy." if len(rows) > 1 else f"{rows[0].name} is healthy."
    if len(rows) == 1:
        return f"{rows[0].name} needs attention."
    return f"{len(unhealthy)} of {len(rows)} connectors need attention: {', '.join(unhealthy)}."


def _read_overview(key: tuple[int, str]) -> OverviewAnswer:
    return perform(show_overview, by=key[1])


def _computed(seen: OverviewAnswer) -> dict[str, Any]:
    """Return the parts of the page that are computed: next steps, charts, and the links of numbers."""
    traffic = seen.traffic
    since = f"{seen.as_of.astimezone(UTC):%Y-%m-%dT00:00:00Z}"
    spent = [each.tokens for each in seen.budget.days]
    return {
        "steps": [(note, _step_of(note, seen.name)) for note in seen.notes],
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
        "course_names": [COURSE_NAMES[each.name] for each in traffic.courses],
    }


def _chart(traffic: TrafficShape) -> Markup:
    """Return the chart of the courses with records."""
    lines = [
        Series(name=COURSE_NAMES[each.name], outcome=HUES[each.name], values=tuple(float(n) for n in each.values))
        for each in traffic.courses
        if any(each.values)
    ]
    return charts.chart(traffic.times, lines, words=f"Records of {SPANS[traffic.unit]}")


def _spark_words(course: CourseShape, traffic: TrafficShape) -> str:
    return f"{course.name}: {sum(course.values):,} in {SPANS[traffic.unit]}, the last {course.values[-1]:,}"


def _step_of(note: NoteShape, connector: str) -> NextStep:
    """Return the next step of a note."""
    words, page, *posts = _step(note.topic, note.subject or "")
    return NextStep(words=words, address=f"/c/{quote(connector, safe='')}/{page}", posts=bool(posts))


def _step(topic: str, subject: str) -> tuple[str, ...]:
    """Return (label, page), and a third value if it is a button."""
    if topic == "pause" and subject in BY_HAND:
        return "Resume", "actions/resume", "posts"
    if topic == "first_fetch":
        return f"Fetch All {Entity(subject).plural.capitalize()}…", f"actions/fetch/{subject}"
    if topic == "waits":
        return (f"Open run {subject}", f"runs/{subject}") if subject else ("Open Runs", "runs")
    steps: dict[str, tuple[str, ...]] = {
        "pause": ("Open Credentials", "credentials"),
        "credentials": ("Open Credentials", "credentials"),
        "webhooks": ("Open Webhooks", "webhooks"),
        "watermark": ("Fetch changes", "actions/changes", "posts"),
        "outage": ("Show runs", "runs"),
        "budget": ("Show budget", "#budget"),
        "run": (f"Open run {subject}", f"runs/{subject}"),
        "failures": ("Show failures", f"failures?{urlencode({'reason': subject})}"),
    }
    return steps.get(topic, ("Open Settings", "settings"))


def _alerts_sentence(now: list[AlertShape]) -> str:
    if not now:
        return "No open alerts."
    return f"{len(now)} alert{'s are' if len(now) > 1 else ' is'} open: {now[0].about}{', …' if len(now) > 1 else ''}."


_rows = Shared(_read_rows)
_open_alerts = Shared(_read_alerts)
_overviews = Shared(_read_overview)
"""Key of the connector and unit → its overview."""
