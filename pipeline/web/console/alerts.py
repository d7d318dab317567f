"""`/alerts`: what is wrong now, what was, what each rule means, and whether telling works."""

from __future__ import annotations

from werkzeug.wrappers import Response

from db.session import transaction
from pipeline.domain.alerts import RULES
from pipeline.domain.kinds import Role
from pipeline.operations import alerts
from pipeline.operations.alerts import AlertShape, open_alerts, past_alerts, sink_targets
from pipeline.web.console import guard
from pipeline.web.console.calls import perform
from pipeline.web.console.frame import before_id, done, page
from pipeline.web.console.guard import Pages

ENTRIES = 50


def add(pages: Pages) -> None:
    pages.page("/alerts", show)
    pages.action("/alerts/test", test, needs=Role.ADMIN)


def show() -> Response:
    before, keys = before_id(), guard.who().connector_keys
    with transaction() as session:
        now = [each for each in open_alerts(session) if guard.who().may_see(each.connector_key)]
        past = past_alerts(session, connector_keys=keys, before_id=before, limit=ENTRIES + 1)
    more = past[ENTRIES - 1].id if len(past) > ENTRIES else None
    return page(
        "alerts.html",
        sentence=_sentence(now),
        alerts=now,
        past=past[:ENTRIES],
        more=more,
        rules=RULES,
        sinks=sink_targets(),
    )


def test() -> Response:
    """Sending may take seconds if a sink does not answer; the page waits for the result."""
    tried = perform(alerts.send_test_alert).sinks
    return done("/alerts", "Tried: " + "; ".join(f"{sink}: {answer}" for sink, answer in tried.items()) + ".")


def _sentence(now: list[AlertShape]) -> str:
    if not now:
        return "No alert is open."
    return f"{len(now)} alert{'s are' if len(now) > 1 else ' is'} open: {now[0].about}{', …' if len(now) > 1 else ''}."
