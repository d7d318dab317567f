"""Alerts: open and resolved ones, their rules, and a test of the alert sinks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel

from db.session import transaction
from pipeline.domain.alerts import RULES
from pipeline.domain.kinds import Role
from pipeline.insight.alerts import AlertView, open_alerts, past_alerts, sink_targets
from pipeline.operations.call import Call
from pipeline.operations.models import Listed, NoRequest, Shape
from pipeline.operations.registry import operation
from pipeline.sync.alerts import try_sinks


class AlertShape(Shape):
    """One alert: a rule matched for one connector, or for the whole installation if `connector` is null."""

    id: int
    connector: str | None
    rule: str
    title: str
    advice: str
    page: str
    state: str
    sentence: str
    raised_at: datetime
    resolved_at: datetime | None
    told: list[str]
    told_at: datetime | None
    is_told: bool
    last_error: str | None


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


class TriedAnswer(BaseModel):
    """`sinks`: name of each alert sink → `ok`, or the error."""

    sinks: dict[str, str]


@operation("GET /alerts", role=Role.VIEWER, command="alerts list")
def list_open(call: Call, _request: NoRequest) -> AlertsAnswer:
    """List open alerts, newest first."""
    with transaction() as session:
        return _visible(call, open_alerts(session))


@operation("GET /alerts/past", role=Role.VIEWER, command="alerts past", example="--limit 20")
def list_past(call: Call, request: Listed) -> AlertsAnswer:
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
def send_test_alert(call: Call, _request: NoRequest) -> TriedAnswer:
    """Send a test alert to every alert sink."""
    with call.transaction(", ".join(sink_targets())):
        pass  # committed before anything is sent: what was sent cannot be taken back
    return TriedAnswer(sinks=try_sinks(call.caller.name))


def _visible(call: Call, found: list[AlertView]) -> AlertsAnswer:
    """Return the alerts of the installation, and of connectors that the caller may see."""
    mine = [each for each in found if call.caller.may_see(each.connector_key)]
    return AlertsAnswer(alerts=[AlertShape.model_validate(each) for each in mine])
