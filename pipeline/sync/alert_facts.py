"""The facts about connectors that alert rules need. Calls no remote system."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from db import connector as connectors
from db import delivery as deliveries
from db import failure as failures
from db import hourly, schedule, subscription, token_ledger, watermark
from db.authorisation import connection_of
from db.connector import Connector
from pipeline.domain.alerts import Bounds, BudgetFacts, Facts
from pipeline.domain.kinds import Entity
from pipeline.settings import settings
from pipeline.sync.runs import catch_up, spending
from pipeline.transform.subscriptions import ACTIVE


def bounds() -> Bounds:
    """Read from the environment."""
    chosen = settings()
    return Bounds(
        late_minutes=chosen.alert_late_minutes,
        failures_per_hour=chosen.alert_failures_per_hour,
        silence_minutes=chosen.alert_silence_minutes,
        overdue_s=chosen.alert_overdue_s,
        volume_factor=chosen.alert_volume_factor,
    )


def facts_of(session: Session, connector: Connector) -> Facts:
    now = token_ledger.moment(session)
    is_paused = connector.state != "active"
    late_since, bound_s = _watermark(session, connector)
    volume = hourly.last_volume(session, connector.key)
    heard = [deliveries.last_delivery(session, connector.key, source) for source in ("pipedrive", "hull")]
    return Facts(
        paused_by=connector.pause_reason or "connector_paused" if is_paused else None,
        late_s=_age_s(now, [late_since]),
        late_bound_s=bound_s,
        late_since=late_since,
        failures=failures.count_new(session, connector.key, hours=1),
        unheard={} if is_paused else _unheard(session, connector, now),
        budget=_budget(session, connector),
        silent_s=_age_s(now, heard),
        events=volume.events if volume else None,
        usual=volume.usual if volume else (),
    )


def _watermark(session: Session, connector: Connector) -> tuple[datetime | None, float]:
    """(the older of the two watermarks, seconds it may be behind); nothing is late where nothing is scheduled or claimed."""
    plans = {row.kind: row for row in schedule.schedules_of(session, connector.key)}
    marks = [watermark.find_watermark(session, connector.key, entity) for entity in Entity]
    claimed = [mark.claimed for mark in marks if mark is not None and mark.claimed is not None]
    if catch_up.INCREMENTAL not in plans or not claimed:
        return None, 0.0
    interval_s = spending.interval_s(session, connector.key, plans[catch_up.INCREMENTAL].interval_s or 0)
    return min(claimed), 3 * interval_s


def _unheard(session: Session, connector: Connector, now: datetime) -> dict[str, float]:
    """Person or Organization → seconds since its webhook was last healthy."""
    if connection_of(session, connector).how is None:
        return {}
    rows = {row.entity: row for row in subscription.subscriptions_of(session, connector.key)}
    is_known = "webhook_path" in connectors.credentials_of(session, connector.key)
    found = {}
    for entity in Entity:
        row = rows.get(entity)
        if not is_known or row is None or row.state != ACTIVE or row.sound_at is None:
            since = (row.sound_at if row else None) or connector.created_at
            found[entity.plural.capitalize()] = (now - since).total_seconds()
    return found


def _budget(session: Session, connector: Connector) -> BudgetFacts | None:
    """Read from the ledger; whether Pipedrive has refused calls for today is only in Redis."""
    try:
        day = spending.standing(session, connector.key)
    except RedisError:
        return None
    is_closed = day.closed_s is not None if day.is_closing_known else None
    daily = day.allowance.daily_tokens
    if not daily:
        return BudgetFacts(is_closed=is_closed, share=0.0, forecast=0.0)
    under_way = spending.runs_under_way(session, connector.key, day)
    rest = spending.day_forecast(session, connector.key, day, under_way)
    return BudgetFacts(is_closed=is_closed, share=day.share, forecast=(day.spent + rest.total) / daily)


def _age_s(now: datetime, moments: Iterable[datetime | None]) -> float | None:
    known = [each for each in moments if each is not None]
    return (now - max(known)).total_seconds() if known else None
