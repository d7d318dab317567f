"""How up to date Hull is: the watermark, webhooks, fetches in flight, and the daily budget."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from db import delivery, watermark
from db import run as run_rows
from db import sync_event as events
from db.subscription import Subscription, subscriptions_of
from db.watermark import Watermark
from pipeline.cli.findings import BAD, LATELY_H, NOTE, OK, Case, Finding, ago
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.sync.connectors.status import sentences
from pipeline.sync.runs import spending
from pipeline.sync.runs.spending import WARN_SHARE

BEHIND = timedelta(hours=1)
"""A watermark that did not move for this long is late: it does not just wait for the next incremental fetch."""


def webhooks(case: Case) -> Iterator[Finding]:
    """Yield the state of the webhooks at their last check, and the time of the last delivery."""
    for row in subscriptions_of(case.session, case.key):
        yield _subscribed(case, row)
    told = delivery.last_delivery(case.session, case.key, "pipedrive")
    if told is None:
        yield Finding(
            level=NOTE,
            text="Pipedrive has sent no webhook yet: only fetches bring changes",
            next_step="check that Pipedrive can reach PUBLIC_URL",
        )
    else:
        yield Finding(level=OK, text=f"last webhook {ago(told)}")
    if waiting := delivery.count_unfolded(case.session, case.key):
        yield Finding(level=NOTE, text=f"{waiting} deliveries wait for a worker", next_step="see the workers above")


def _subscribed(case: Case, row: Subscription) -> Finding:
    name = f"webhook of {Entity(row.entity).plural}"
    looked = f"last checked {ago(row.checked_at)}"
    if row.state == "active":
        healed = f", recreated {row.healed} times so far" if row.healed else ""
        return Finding(level=OK, text=f"{name}: active, {looked}{healed}")
    since = f"; the next fetch reads what changed since {ago(row.sound_at)}" if row.sound_at else ""
    step = f"it is recreated within minutes; if not: pipeline connectors show {case.name}"
    return Finding(level=NOTE, text=f"{name}: {row.state}, {looked}{since}", next_step=step)


def in_step(case: Case) -> Iterator[Finding]:
    """Yield the moment up to which Hull has all changes, for each entity."""
    for entity in Entity:
        yield _reached(case, entity, watermark.find_watermark(case.session, case.key, entity))


def _reached(case: Case, entity: Entity, mark: Watermark | None) -> Finding:
    fetch = f"pipeline fetch {entity.plural} {case.name}"
    if mark is None or mark.claimed is None:
        return Finding(
            level=NOTE,
            text=f"{entity.plural}: not fetched yet, so it is not known how up to date Hull is",
            next_step=f"{fetch} --wait",
        )
    but = f", except {mark.excepted:,}" if mark.excepted else ""
    deletes = f"; deletions compared {ago(mark.deletes_verified_at)}" if mark.deletes_verified_at else ""
    text = f"{entity.plural}: up to date as of {ago(mark.claimed)}{but}{deletes}"
    if datetime.now(UTC) - mark.claimed > BEHIND:
        return Finding(level=NOTE, text=text, next_step=f"{fetch} --since {mark.claimed:%Y-%m-%dT%H:%M:%SZ} --wait")
    return Finding(level=OK, text=text)


def successes(case: Case, direction: str) -> Iterator[Finding]:
    """Yield the time of the last success of each entity."""
    for entity in Entity:
        name = f"{direction}.{entity.hull}.success"
        last = events.last_event(case.session, case.key, name)
        yield Finding(level=NOTE if last is None else OK, text=f"last {name}: {ago(last) if last else 'never'}")


def job_errors(case: Case) -> Iterator[Finding]:
    """Yield `incoming.job.error` events of the last day, most frequent first."""
    counts = events.count_events(case.session, case.key, hours=LATELY_H)
    for (event, reason), count in sorted(counts.items(), key=lambda item: -item[1]):
        if event == "incoming.job.error" and reason:
            known = REASONS.get(reason)
            text = f"{event} {count:,} times in {LATELY_H} h, {reason}: {known.meaning if known else ''}"
            yield Finding(level=NOTE, text=text, next_step=known.advice if known else "")


def outages(case: Case) -> Iterator[Finding]:
    """Yield remote systems that do not answer, since when, and what waits for them."""
    for sentence in sentences(case.session, case.key):
        yield Finding(
            level=NOTE, text=sentence, next_step="nothing to do; see the remote system's status page if it lasts"
        )


def under_way(case: Case) -> Iterator[Finding]:
    """Yield the fetches in flight with their progress, and the expected end of full fetches."""
    day = spending.budget_status(case.session, case.key)
    ends = {each.run_id: each.ends_at for each in spending.forecast_runs(case.session, case.key, day)}
    for run in run_rows.latest_runs(case.session, case.key):
        if run.state == "running":
            end = ends.get(run.id)
            until = f", done about {end:%Y-%m-%d %H:%M} UTC" if end else ""
            text = f"run {run.id}, {run.kind} fetch of {run.entity}s, in flight: {run.read:,} read, {run.failed:,} failed{until}"
            yield Finding(level=NOTE, text=text, next_step=f"pipeline runs show {case.name} {run.id}")


def budget(case: Case) -> Finding:
    """Return what is left of Pipedrive's daily budget."""
    day = spending.budget_status(case.session, case.key)
    spent, step = f"{day.spent:,} tokens of Pipedrive's daily budget are spent", f"pipeline budget {case.name}"
    if day.closed_s is not None:
        text = "Pipedrive's daily budget is spent: all work waits"
        return Finding(level=BAD, text=f"{text} until {day.resets_at:%H:%M} UTC", next_step=step)
    if not day.allowance.daily_tokens:
        return Finding(level=OK, text=f"{spent}, no limit is set")
    text = f"{spent}, {day.share:.0%} of {day.allowance.daily_tokens:,}"
    if day.left_for_fetches == 0:
        return Finding(level=NOTE, text=f"{text}: fetches wait until {day.resets_at:%H:%M} UTC", next_step=step)
    return Finding(
        level=NOTE if day.share > WARN_SHARE else OK, text=text, next_step=step if day.share > WARN_SHARE else ""
    )
