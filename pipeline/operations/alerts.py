"""Alerts: open and resolved ones, their rules, and a test of the alert sinks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import alert as rows
from db import connector as connectors
from db.alert import Alert
from db.session import transaction
from pipeline.domain.alerts import RULES, Rule
from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.models import NoRequest, PageOnly, PageRequest, Shape, shape_of
from pipeline.operations.registry import operation
from pipeline.settings import settings
from pipeline.sync.alerts import LOG, page_of, try_sinks

UNKNOWN: Final = Rule("An unknown alert", "This alert comes from another version of the program.", "", "overview")


class AlertShape(Shape):
    """One alert: a rule matched for one connector, or for the whole installation if `connector` is null."""

    id: int
    connector_key: PageOnly[int | None] = None
    connector: str | None
    rule: str
    title: str
    advice: str
    page: str
    state: str
    sentence: str
    raised_at: datetime
    resolved_at: datetime | None
    sent_to: list[str]
    sent_at: datetime | None
    is_sent: bool
    attempts: PageOnly[int] = 0
    last_error: str | None

    @property
    def about(self) -> str:
        """Return `acme: Access lost`."""
        return f"{self.connector or 'The whole pipeline'}: {self.title}"


class AlertsAnswer(BaseModel):
    alerts: list[AlertShape]


class RuleShape(Shape):
    """One rule; `page` is the connector's page to open."""

    name: str
    title: str
    meaning: str
    advice: str
    page: str


class RulesAnswer(BaseModel):
    """`sinks`: name of each alert sink → its target, without secrets."""

    rules: list[RuleShape]
    sinks: dict[str, str]


class TestAlertAnswer(BaseModel):
    """`sinks`: name of each alert sink → `ok`, or the error."""

    sinks: dict[str, str]


@operation("GET /alerts", role=Role.VIEWER, command="alerts list")
def list_open(call: Call, _request: NoRequest) -> AlertsAnswer:
    """List open alerts, newest first."""
    with transaction() as session:
        return _visible(call, open_alerts(session))


@operation("GET /alerts/past", role=Role.VIEWER, command="alerts past", example="--limit 20")
def list_past(call: Call, request: PageRequest) -> AlertsAnswer:
    """List resolved alerts, newest first."""
    keys = call.caller.connector_keys
    with transaction() as session:
        found = past_alerts(session, connector_keys=keys, before_id=request.before, limit=request.limit)
        return _visible(call, found)


@operation("GET /alerts/rules", role=Role.VIEWER, command="alerts rules")
def list_rules(_call: Call, _request: NoRequest) -> RulesAnswer:
    """List the alert rules with their meaning and next step, and the alert sinks."""
    rules = [RuleShape(name=name, **asdict(rule)) for name, rule in RULES.items()]
    return RulesAnswer(rules=rules, sinks=sink_targets())


@operation("POST /alerts/test", role=Role.ADMIN, audit_action="alerts.test", command="alerts test")
def send_test_alert(call: Call, _request: NoRequest) -> TestAlertAnswer:
    """Send a test alert to every alert sink."""
    with call.transaction(", ".join(sink_targets())):
        pass  # commit the audit entry first: a sent alert cannot be undone
    return TestAlertAnswer(sinks=try_sinks(call.caller.name))


def open_alerts(session: Session) -> list[AlertShape]:
    """Return the open alerts of all connectors, newest first."""
    return _shapes(session, rows.open_alerts(session))


def past_alerts(
    session: Session,
    *,
    connector_keys: Collection[int] | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> list[AlertShape]:
    """Return resolved alerts, newest first; see `db.alert.past_alerts` for `connector_keys`."""
    found = rows.past_alerts(session, connector_keys=connector_keys, before_id=before_id, limit=limit)
    return _shapes(session, found)


def sink_targets() -> dict[str, str]:
    """Return sink → its target, without the secret parts of a web address."""
    chosen = settings()
    found = {LOG: "lines alert.raised and alert.resolved"}
    if chosen.alert_webhook_url:
        found["webhook"] = urlsplit(chosen.alert_webhook_url).netloc
    if chosen.alert_email_to and chosen.smtp_url:
        found["email"] = ", ".join(chosen.alert_email_to)
    return found


def _visible(call: Call, found: list[AlertShape]) -> AlertsAnswer:
    """Return the alerts of the installation, and of connectors that the caller may see."""
    return AlertsAnswer(alerts=[each for each in found if call.caller.may_see(each.connector_key)])


def _shapes(session: Session, found: list[Alert]) -> list[AlertShape]:
    names = {row.key: row.name for row in connectors.all_connectors(session)}
    return [_shape(each, names.get(each.connector_key or 0)) for each in found]


def _shape(alert: Alert, connector: str | None) -> AlertShape:
    rule = RULES.get(alert.rule, UNKNOWN)
    return shape_of(
        AlertShape,
        alert,
        connector=connector,
        title=rule.title,
        advice=rule.advice,
        page=page_of(alert.rule, connector),
        sent_to=sorted(sink for sink, state in alert.sink_states.items() if state == alert.state),
        sent_at=alert.sent_at,
        is_sent=alert.sent_state == alert.state,
    )
