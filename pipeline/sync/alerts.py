"""Alerts: evaluate the rules every minute, and send each change to the sinks once.

A change is stored before it is sent, and that it was sent is stored afterwards: after a crash in between it is sent again. A failed
sending is retried with growing pauses, for a day.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db import alert as alerts
from db import connector as connectors
from db import delivery as deliveries
from db import event_count, failure_filter, schedule, token_ledger, watermark, webhook
from db.alert import Alert
from db.authorisation import connection_of
from db.connector import Connector
from db.figures import oldest_due_s
from db.session import transaction
from pipeline import wiring
from pipeline.clients.alert_sinks import NotDelivered, Notice
from pipeline.domain.alerts import RULES, Bounds, BudgetFacts, Facts, check_connector, check_installation, unknown_rules
from pipeline.domain.kinds import Entity
from pipeline.error_kinds import classify
from pipeline.settings import settings
from pipeline.slow_work import REMOTE
from pipeline.sync.runs import spending
from pipeline.telemetry import logger
from pipeline.transform.subscriptions import ACTIVE

HEARTBEAT: Final = "alerts"
CALM_S: Final = 120.0
"""An alert is resolved when its rule has not matched for this long: two rounds, so that a flapping rule sends once."""
FIRST_PAUSE_S, LONGEST_PAUSE_S, GIVE_UP_S = 60.0, 1_800.0, 86_400.0
AT_ONCE: Final = 5
LOG: Final = "log"


def watch() -> None:
    """Evaluate the rules, and send what changed."""
    with transaction() as session:
        event_count.count_last_hour(session)
    evaluate()
    send_changes()


def bounds() -> Bounds:
    """Return the limits of the rules, from the environment."""
    chosen = settings()
    return Bounds(
        late_minutes=chosen.alert_late_minutes,
        failures_per_hour=chosen.alert_failures_per_hour,
        silence_minutes=chosen.alert_silence_minutes,
        overdue_s=chosen.alert_overdue_s,
        volume_factor=chosen.alert_volume_factor,
    )


def facts_of(session: Session, connector: Connector) -> Facts:
    """Return what the rules need to know about a connector."""
    now = token_ledger.moment(session)
    is_paused = connector.state != "active"
    late_since, bound_s = _watermark(session, connector)
    volume = event_count.last_volume(session, connector.key)
    received = [deliveries.last_delivery(session, connector.key, source) for source in ("pipedrive", "hull")]
    return Facts(
        paused_by=connector.pause_reason or "connector_paused" if is_paused else None,
        late_s=_age_s(now, [late_since]),
        late_bound_s=bound_s,
        late_since=late_since,
        failures=failure_filter.count_new(session, connector.key, hours=1),
        unhealthy_webhooks={} if is_paused else _unhealthy_webhooks(session, connector, now),
        budget=_budget(session, connector),
        silent_s=_age_s(now, received),
        events=volume.events if volume else None,
        usual=volume.usual if volume else (),
    )


def _watermark(session: Session, connector: Connector) -> tuple[datetime | None, float]:
    """Return (the older watermark, seconds it may be behind); None if no fetch is scheduled or no watermark exists."""
    schedules = {row.kind: row for row in schedule.schedules_of(session, connector.key)}
    marks = [watermark.find_watermark(session, connector.key, entity) for entity in Entity]
    claimed = [mark.claimed for mark in marks if mark is not None and mark.claimed is not None]
    if schedule.INCREMENTAL not in schedules or not claimed:
        return None, 0.0
    interval_s = spending.interval_s(session, connector.key, schedules[schedule.INCREMENTAL].interval_s or 0)
    return min(claimed), 3 * interval_s


def _age_s(now: datetime, moments: Iterable[datetime | None]) -> float | None:
    known = [each for each in moments if each is not None]
    return (now - max(known)).total_seconds() if known else None


def _unhealthy_webhooks(session: Session, connector: Connector, now: datetime) -> dict[str, float]:
    """Return Persons or Organizations → seconds since their webhook was last healthy, for unhealthy ones."""
    if connection_of(session, connector).how is None:
        return {}
    rows = {row.entity: row for row in webhook.subscriptions_of(session, connector.key)}
    is_known = "webhook_path" in connectors.credentials_of(session, connector.key)
    found = {}
    for entity in Entity:
        row = rows.get(entity)
        if not is_known or row is None or row.state != ACTIVE or row.healthy_at is None:
            since = (row.healthy_at if row else None) or connector.created_at
            found[entity.plural.capitalize()] = (now - since).total_seconds()
    return found


def _budget(session: Session, connector: Connector) -> BudgetFacts | None:
    """Return the daily budget from the ledger; only Redis knows whether Pipedrive refuses calls for today."""
    try:
        day = spending.budget_status(session, connector.key)
    except RedisError:
        return None
    is_closed = day.closed_s is not None if day.is_closing_known else None
    daily = day.allowance.daily_tokens
    if not daily:
        return BudgetFacts(is_closed=is_closed, share=0.0, forecast=0.0)
    forecasts = spending.forecast_runs(session, connector.key, day)
    rest = spending.day_forecast(session, connector.key, day, forecasts)
    return BudgetFacts(is_closed=is_closed, share=day.share, forecast=(day.spent + rest.total) / daily)


def evaluate() -> None:
    """Update the open alerts, unless another process does so at the same time."""
    with transaction() as session:
        if not alerts.try_lock_evaluation(session):
            return
        schedule.note_heartbeats(session, [HEARTBEAT])
        known = connectors.all_connectors(session)
        for connector in known:
            _evaluate_connector(session, connector)
        _evaluate_installation(session, min((row.created_at for row in known), default=None))
        alerts.resolve_calm(session, CALM_S)


def _evaluate_connector(session: Session, connector: Connector) -> None:
    """Evaluate the rules of one connector. After an error its open alerts stay open, and the other connectors continue."""
    try:
        with session.begin_nested():
            facts = facts_of(session, connector)
            for trouble in check_connector(facts, bounds()):
                alerts.raise_alert(session, connector.key, trouble.rule, trouble.sentence)
            alerts.keep_open(session, connector.key, unknown_rules(facts))
    except Exception as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise  # the database is unavailable: the next round evaluates
        cause = classify(error)
        logger().error("alerts.not_evaluated", connector_id=connector.id, reason=cause.reason, detail=cause.detail)
        alerts.keep_open(session, connector.key, RULES)


def _evaluate_installation(session: Session, in_use_since: datetime | None) -> None:
    tick = schedule.heartbeats(session).get("beat")
    since = tick or in_use_since
    tick_age_s = (datetime.now(UTC) - since).total_seconds() if since else None
    for trouble in check_installation(oldest_due_s(session), tick_age_s, bounds(), ever_ticked=tick is not None):
        alerts.raise_alert(session, None, trouble.rule, trouble.sentence)


def send_changes() -> None:
    """Send each unsent alert to every sink, one alert after the other; each is claimed while it is sent."""
    for _ in range(AT_ONCE):
        with transaction() as session:
            names = {row.key: row.name for row in connectors.all_connectors(session)}
            taken = alerts.claim_unsent(session, 1)
        if not taken:
            return
        _send(taken[0], notice_of(taken[0], names.get(taken[0].connector_key or 0)))


def _send(alert: Alert, notice: Notice) -> None:
    sinks = {LOG: lambda _notice: _log(alert), **wiring.alert_sinks()}
    sent, errors = dict(alert.sink_states), []
    for name, sink in sinks.items():
        if sent.get(name) == alert.state:
            continue
        try:
            sink(notice)
            sent[name] = alert.state
        except NotDelivered as error:
            errors.append(f"{name}: {error}")
            logger().warning("alert.not_sent", alert_id=alert.id, sink=name, error=str(error))
    with transaction() as session:
        error_words = "; ".join(errors) or None
        alerts.record_sent(session, alert, sent, error=error_words, again_in_s=_pause_s(alert) if errors else None)


def _log(alert: Alert) -> None:
    log = logger().info if alert.state == "resolved" else logger().error
    log(_event(alert), alert_id=alert.id, connector_key=alert.connector_key, rule=alert.rule, sentence=alert.sentence)


def _event(alert: Alert) -> str:
    return "alert.resolved" if alert.state == "resolved" else "alert.raised"


def _pause_s(alert: Alert) -> float | None:
    changed_at = alert.resolved_at or alert.raised_at
    if (datetime.now(UTC) - changed_at).total_seconds() > GIVE_UP_S:
        return None
    return min(FIRST_PAUSE_S * 2.0 ** min(alert.attempts - 1, 10), LONGEST_PAUSE_S)


def try_sinks(by: str) -> dict[str, str]:
    """Send a test to every sink; return sink → `ok`, or the error."""
    notice = Notice(
        subject="Test: alerts of the pipeline arrive here",
        body=f"{by} requested this test. Nothing is wrong.\n{settings().public_url}/alerts",
        document={"event": "alert.test", "by": by, "url": f"{settings().public_url}/alerts"},
    )
    logger().info("alert.test")
    found = {LOG: "ok"}
    for name, sink in wiring.alert_sinks().items():
        try:
            with REMOTE.entered():
                sink(notice)
            found[name] = "ok"
        except NotDelivered as error:
            found[name] = str(error)
    return found


def notice_of(alert: Alert, connector: str | None) -> Notice:
    """Return the message about an alert: ids, counts, times and addresses, no values of records."""
    rule, is_over = RULES[alert.rule], alert.state == "resolved"
    where = f"{settings().public_url}{page_of(alert.rule, connector)}"
    subject = f"{'Resolved: ' if is_over else ''}{connector or 'Pipeline'}: {rule.title}"
    since = f"Since {alert.raised_at:%Y-%m-%d %H:%M} UTC"
    until = f", until {alert.resolved_at:%Y-%m-%d %H:%M} UTC" if alert.resolved_at else ""
    words = [alert.sentence, f"{since}{until}."] + ([] if is_over else [rule.meaning, f"Do: {rule.advice}"]) + [where]
    return Notice(subject=subject, body="\n".join(words), document=_document(alert, connector, where))


def _document(alert: Alert, connector: str | None, where: str) -> dict[str, Any]:
    return {
        "event": _event(alert),
        "id": alert.id,
        "rule": alert.rule,
        "connector": connector,
        "sentence": alert.sentence,
        "raised_at": alert.raised_at.isoformat(),
        "resolved_at": alert.resolved_at.isoformat() if alert.resolved_at else None,
        "url": where,
    }


def page_of(rule: str, connector: str | None) -> str:
    """Return the path of the console's page about a rule."""
    page = RULES[rule].page if rule in RULES else ""
    return f"/c/{quote(connector, safe='')}/{page}" if connector else "/workers"
