"""Alerts: what is wrong now, what was, and whether whoever is to be told can be."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from flask import Response
from pydantic import BaseModel

from db import audit
from db.session import transaction
from pipeline.domain.alerts import RULES
from pipeline.domain.roles import Role
from pipeline.insight.alerts import Told, open_alerts, past_alerts, told_where
from pipeline.operations.models import Listed, Shape
from pipeline.sync.alerts import try_sinks
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.console.guard import who


class AlertShape(Shape):
    """One time that a rule held, of one connector or, without one, of the whole installation."""

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
    """`page` of the connector is where to look."""

    name: str
    title: str
    meaning: str
    advice: str
    page: str


class RulesAnswer(BaseModel):
    """`sinks` is who is told → whom it reaches, as far as that may be shown."""

    rules: list[RuleShape]
    sinks: dict[str, str]


class TriedAnswer(BaseModel):
    """Who was told → `ok`, or what went wrong."""

    sinks: dict[str, str]


def add(operations: Operations) -> None:
    operations.get("/alerts", list_open, AlertsAnswer)
    operations.get("/alerts/past", list_past, AlertsAnswer)
    operations.get("/alerts/rules", list_rules, RulesAnswer)
    operations.post("/alerts/test", try_telling, TriedAnswer, needs=Role.ADMIN)


def list_open() -> Response:
    """List open alerts, newest first."""
    with transaction() as session:
        return answer(_shown(open_alerts(session)))


def list_past(query: Listed) -> Response:
    """List resolved alerts, newest first."""
    with transaction() as session:
        keys = who().connector_keys
        return answer(_shown(past_alerts(session, connector_keys=keys, before_id=query.before, limit=query.limit)))


def list_rules() -> Response:
    """List what alerts there are, what each means and what to do; and who is told."""
    rules = [RuleShape(name=name, **asdict(rule)) for name, rule in RULES.items()]
    return answer(RulesAnswer(rules=rules, sinks=told_where()))


def try_telling() -> Response:
    """Tell everybody who is told of alerts that this is a test."""
    with transaction() as session:
        audit.note(session, who().name, "alerts.test", ", ".join(told_where()))
    return answer(TriedAnswer(sinks=try_sinks(who().name)))


def _shown(found: list[Told]) -> AlertsAnswer:
    """Those of the installation, and of connectors that may be seen."""
    mine = [each for each in found if who().may_see(each.connector_key)]
    return AlertsAnswer(alerts=[AlertShape.model_validate(each) for each in mine])
