"""`/`: every connector, how it is doing, and the one next step."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from werkzeug.wrappers import Response

from db import connector as connectors
from db import failure_count
from db.session import transaction
from pipeline.insight.condition import Condition, condition
from pipeline.operations.alerts import AlertShape, open_alerts
from pipeline.operations.cached_answers import Shared
from pipeline.web.console.frame import page
from pipeline.web.console.guard import Pages, who


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A connector as the list shows it."""

    key: int
    name: str
    id: str
    organization: str
    company: str
    state: str
    condition: Condition
    failures: int


def add(pages: Pages) -> None:
    pages.page("/", show)


def show() -> Response:
    """Answer first: one sentence, then each connector."""
    rows = [row for row in _rows("all") if who().may_see(row.key)]
    alerts = [alert for alert in _open_alerts("all") if who().may_see(alert.connector_key)]
    return page("home.html", rows=rows, sentence=_sentence(rows), alerts=alerts)


def _read(_key: str) -> list[Row]:
    with transaction() as session:
        return [
            Row(
                key=each.key,
                name=each.name,
                id=each.id,
                organization=each.hull_organization,
                company=urlsplit(each.pipedrive_company or "").netloc or "not known yet",
                state=each.state,
                condition=condition(session, each),
                failures=sum(failure_count.count_open(session, each.key).values()),
            )
            for each in connectors.all_connectors(session)
        ]


def _read_alerts(_key: str) -> list[AlertShape]:
    with transaction() as session:
        return open_alerts(session)


_rows = Shared(_read)
_open_alerts = Shared(_read_alerts)


def _sentence(rows: list[Row]) -> str:
    if not rows:
        return "No connector yet."
    unwell = [row.name for row in rows if row.condition.level != "ok"]
    if not unwell:
        return "All connectors are in order." if len(rows) > 1 else f"{rows[0].name} is in order."
    if len(rows) == 1:
        return f"{rows[0].name} needs a look."
    return f"{len(unwell)} of {len(rows)} connectors need a look: {', '.join(unwell)}."
