"""Alerts for people: open ones, resolved ones, and their sinks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from db import alert as rows
from db import connector as connectors
from db.alert import Alert
from pipeline.domain.alerts import RULES, Rule
from pipeline.settings import settings
from pipeline.sync.alerts import LOG, page_of

UNKNOWN = Rule("A rule that is not judged any more", "A later version knows it, or an earlier one did.", "", "overview")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertView:
    """One alert.

    page     page of the console to open
    told     sinks that have received its current state
    is_told  False while a sink has not received it
    """

    id: int
    connector_key: int | None
    connector: str | None
    rule: str
    title: str
    advice: str
    page: str
    state: str
    sentence: str
    raised_at: datetime
    resolved_at: datetime | None
    told: tuple[str, ...]
    told_at: datetime | None
    is_told: bool
    attempts: int
    last_error: str | None

    @property
    def about(self) -> str:
        """`acme: Access lost`."""
        return f"{self.connector or 'The whole pipeline'}: {self.title}"


def open_alerts(session: Session) -> list[AlertView]:
    """What is wrong now, the newest first."""
    return _shown(session, rows.open_alerts(session))


def past_alerts(
    session: Session,
    *,
    connector_keys: Collection[int] | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> list[AlertView]:
    """List what was, newest first; see `db.alert.past_alerts` for `connector_keys`."""
    found = rows.past_alerts(session, connector_keys=connector_keys, before_id=before_id, limit=limit)
    return _shown(session, found)


def sink_targets() -> dict[str, str]:
    """Return sink → its target, without the secret parts of a web address."""
    chosen = settings()
    found = {LOG: "lines alert.raised and alert.resolved"}
    if chosen.alert_webhook_url:
        found["webhook"] = urlsplit(chosen.alert_webhook_url).netloc
    if chosen.alert_email_to and chosen.smtp_url:
        found["email"] = ", ".join(chosen.alert_email_to)
    return found


def _shown(session: Session, found: list[Alert]) -> list[AlertView]:
    names = {row.key: row.name for row in connectors.all_connectors(session)}
    return [_one(each, names.get(each.connector_key or 0)) for each in found]


def _one(alert: Alert, connector: str | None) -> AlertView:
    rule = RULES.get(alert.rule, UNKNOWN)
    return AlertView(
        id=alert.id,
        connector_key=alert.connector_key,
        connector=connector,
        rule=alert.rule,
        title=rule.title,
        advice=rule.advice,
        page=page_of(alert.rule, connector),
        state=alert.state,
        sentence=alert.sentence,
        raised_at=alert.raised_at,
        resolved_at=alert.resolved_at,
        told=tuple(sorted(sink for sink, state in alert.told.items() if state == alert.state)),
        told_at=alert.told_at,
        is_told=alert.settled == alert.state,
        attempts=alert.attempts,
        last_error=alert.last_error,
    )
