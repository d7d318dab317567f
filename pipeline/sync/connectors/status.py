"""The status of one connector, with sentences for Hull's dashboard and the overview."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Final

from sqlalchemy.orm import Session

from db import change as changes
from db import connector as connectors
from db import failure as failures
from db import failure_filter, field_definition, schedule, watermark
from db import outage as outages
from db import run as run_rows
from db import run as runs
from db.authorisation import connection_of
from db.change import WaitingCount
from db.connector import Connector
from db.failure_filter import FailureFilter
from db.outage import REMOTES, Outage, WaitingForRemote
from pipeline.domain.kinds import Claim, Direction, Entity
from pipeline.domain.reasons import REASONS, describe
from pipeline.domain.records import INDEX_BEHIND, INDEX_INCOMPLETE
from pipeline.domain.settings import DEFAULT_ORGANIZATION_DOMAIN, read_settings
from pipeline.sync.connectors.webhooks import subscription_health
from pipeline.sync.runs import spending
from pipeline.sync.runs.schedules import rest_of
from pipeline.sync.stage import INSTALLATION

LEVELS: Final = ("ok", "warning", "error", "setupRequired")
"""From best to worst, under the names of Hull's dashboard."""

BEHIND: Final = timedelta(minutes=15)
"""How long a change may take to reach Hull when its webhook was lost."""

ALL_GOOD = "Everything is in order."


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFinding:
    """One thing that is not as it should be.

    topic    `credentials`, `webhooks`, `pause`, `outage`, `domain`, `budget`, `watermark`, `settings`, `run`, `held`,
             `waits` or `failures`
    subject  which of them, where there are several: a run's id, a reason code
    """

    level: str
    message: str
    topic: str
    subject: str | None = None


def _warning(topic: str, message: str, subject: str | None = None) -> StatusFinding:
    return StatusFinding(level="warning", message=message, topic=topic, subject=subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The worst level, and the messages, worst first: as sentences, and with their subjects."""

    status: str
    messages: list[str]
    findings: tuple[StatusFinding, ...] = ()


def status_of(session: Session, connector: Connector) -> Status:
    """Return the status, without calling the remote systems."""
    found = [
        *_credentials(session, connector),
        *_pause(connector),
        *_outages(session, connector),
        *_domain(session, connector),
        *_budget(session, connector),
        *_watermark(session, connector),
        *_settings(session, connector),
        *_runs(session, connector),
        *_waits(session, connector),
        *_failures(session, connector),
    ]
    if not found:
        return Status(status="ok", messages=[ALL_GOOD])
    found.sort(key=lambda finding: -LEVELS.index(finding.level))
    messages = [finding.message for finding in found]
    return Status(status=found[0].level, messages=messages, findings=tuple(found))


def _credentials(session: Session, connector: Connector) -> list[StatusFinding]:
    found = []
    if connection_of(session, connector).how is None:
        message = "Pipedrive is not connected yet. Open Credentials and connect an administrator's account."
        found.append(StatusFinding(level="setupRequired", message=message, topic="credentials"))
    elif not (webhooks := subscription_health(session, connector.key)).is_well:
        found.append(_warning("webhooks", webhooks.sentence))
    return found


def _pause(connector: Connector) -> list[StatusFinding]:
    reason = connector.pause_reason
    if connector.state != "paused" or reason == "not_connected":  # the credentials' message has more detail
        return []
    if reason in REASONS and reason != "connector_paused":
        return [StatusFinding(level="error", message=f"Paused. {describe(reason)}", topic="pause", subject=reason)]
    return [_warning("pause", describe("connector_paused"))]


def _outages(session: Session, connector: Connector) -> list[StatusFinding]:
    """Return the outages: they need no action, but explain why work waits."""
    return [_warning("outage", message) for message in sentences(session, connector.key)]


def _domain(session: Session, connector: Connector) -> list[StatusFinding]:
    """Return a finding if the field with the default domain does not exist."""
    fields = field_definition.find_fields(session, connector.key, Entity.ORGANIZATION)
    chosen = read_settings(connectors.settings_in_force(session, connector.key).document)
    wants = any(
        rule.hull is Claim.DOMAIN and rule.service == DEFAULT_ORGANIZATION_DOMAIN for rule in chosen.account_claims
    )
    if fields is None or not wants or any(row.get("field_code") == DEFAULT_ORGANIZATION_DOMAIN for row in fields.rows):
        return []
    message = (
        "Pipedrive has no website field on Organizations, so Accounts are known by their Pipedrive id alone. "
        "Choose in account_claims which field holds the domain."
    )
    return [_warning("domain", message)]


def _budget(session: Session, connector: Connector) -> list[StatusFinding]:
    """Return a finding if more than four fifths of the daily budget are spent."""
    day = spending.budget_status(session, connector.key)
    returns = f"The budget should return at {day.resets_at:%H:%M} UTC."
    if day.closed_s is not None:
        message = f"Pipedrive reports that today's tokens of the whole company are spent: all work waits. {returns}"
        return [_warning("budget", message)]
    if day.share >= 1:
        message = f"Pipedrive's tokens for today are spent by our count: fetches wait, live changes continue. {returns}"
        return [_warning("budget", message)]
    if day.share > spending.WARN_SHARE:
        message = (
            f"{day.share:.0%} of Pipedrive's tokens for today are spent; fetches wait before live changes do. {returns}"
        )
        return [_warning("budget", message)]
    return []


def _watermark(session: Session, connector: Connector) -> list[StatusFinding]:
    """Return a finding if changes have not reached Hull for minutes."""
    schedules = {row.kind: row for row in schedule.schedules_of(session, connector.key)}
    marks = [watermark.find_watermark(session, connector.key, entity) for entity in Entity]
    claimed = [mark.claimed for mark in marks if mark is not None and mark.claimed is not None]
    if schedule.INCREMENTAL not in schedules or connector.state != "active" or not claimed:
        return []
    interval = timedelta(seconds=schedules[schedule.INCREMENTAL].interval_s or 0)
    oldest = min(claimed)
    if datetime.now(UTC) - oldest <= max(BEHIND, 3 * interval):
        return []
    message = (
        f"What changed in Pipedrive since {oldest:%Y-%m-%d %H:%M} UTC may not be in Hull yet: the fetch of changes has not "
        "ended since then. See pipeline doctor."
    )
    return [_warning("watermark", message)]


SETTINGS_REFUSED: Final = "settings_refused"


def _settings(session: Session, connector: Connector) -> list[StatusFinding]:
    """Return refused settings, for the person who saved them."""
    if not any(reason == SETTINGS_REFUSED for _, reason in failures.count_open(session, connector.key)):
        return []  # searching for one would read every open failure
    refused = failure_filter.find_failures(
        session, FailureFilter(connector_key=connector.key, reason=SETTINGS_REFUSED), limit=1
    )
    return [_warning("settings", f"{describe(SETTINGS_REFUSED)} {failure.detail}") for failure in refused]


def _runs(session: Session, connector: Connector) -> list[StatusFinding]:
    """Return the runs that need approval, and the newest fetch of each entity if it stopped."""
    newest = {run.entity: run for run in reversed(runs.find_runs(session, connector.key, limit=20))}
    return [
        _warning(
            "held",
            f"{describe('needs_approval')} Run {run.id}, of {Entity(run.entity).plural.capitalize()}.",
            str(run.id),
        )
        for run in runs.runs_in_state(session, connector.key, "held")
    ] + [
        _warning("run", f"The last fetch of {Entity(run.entity).plural} stopped: {_sentence(run.reason)}", str(run.id))
        for run in newest.values()
        if run.state == "stopped"
    ]


def _waits(session: Session, connector: Connector) -> list[StatusFinding]:
    """Return the Users and Accounts that wait for the end of a fetch."""
    return [_warning("waits", each.sentence, str(each.run_id or "")) for each in waits_of(session, connector.key)]


def _failures(session: Session, connector: Connector) -> list[StatusFinding]:
    counts = failures.count_open(session, connector.key)
    reasons: dict[str, int] = {}
    for (_, reason), count in counts.items():
        if reason != SETTINGS_REFUSED:
            reasons[reason] = reasons.get(reason, 0) + count
    return [
        _warning("failures", f"{count} open failure{'s' if count > 1 else ''}: {_sentence(reason)}", reason)
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]


def _sentence(reason: str | None) -> str:
    return describe(reason) if reason in REASONS else "see the failures of the connector."


WAITS: Final = (INDEX_INCOMPLETE, INDEX_BEHIND)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchWait:
    """entity    entity of the waiting records
    sentence  how many, for what, and what ends the wait
    run_id    the fetch that ends the wait, or should have; None before there is one
    is_held   the wait does not end before a person acts
    """

    entity: Entity
    sentence: str
    run_id: int | None
    is_held: bool


def waits_of(session: Session, connector_key: int) -> list[FetchWait]:
    """Return what waits for a fetch, with the state of that fetch."""
    waiting = changes.waiting_for(session, connector_key, WAITS)
    return [_wait(session, connector_key, each) for each in waiting if each.direction == Direction.OUTGOING]


def _wait(session: Session, connector_key: int, waiting: WaitingCount) -> FetchWait:
    entity = Entity(waiting.entity)
    plural = entity.plural.capitalize()
    who = (
        f"1 {entity.hull.capitalize()} waits"
        if waiting.count == 1
        else f"{waiting.count:,} {entity.hull.capitalize()}s wait"
    )
    what = "first full fetch" if waiting.reason == INDEX_INCOMPLETE else "fetch of changes"
    begin = f"{who} for the {what} of {plural}, which shows whether Pipedrive has them already."
    kind = "full" if waiting.reason == INDEX_INCOMPLETE else "incremental"
    running = run_rows.running_run(session, connector_key, entity, kind)
    if running is not None:
        return FetchWait(
            entity=entity, sentence=f"{begin} Run {running.id} is at work on it.", run_id=running.id, is_held=False
        )
    reindexing = run_rows.find_reindexing(session, connector_key, entity) if kind == "full" else None
    if reindexing is not None:
        state = "waits for approval" if reindexing.state == "held" else "is at work on it"
        text = f"{who} until stored {plural} are read by their new identifiers. Run {reindexing.id} {state}."
        return FetchWait(entity=entity, sentence=text, run_id=reindexing.id, is_held=reindexing.state == "held")
    early = run_rows.ended_early(session, connector_key, entity) if kind == "full" else None
    if early is not None:
        times = f", the {early.in_a_row} newest in a row" if early.in_a_row > 1 else ""
        text = (
            f"{begin} Run {early.run.id} was {early.run.state}{times}: replay its failure, or fetch all {plural} again. "
            f"{_next(rest_of(early))}"
        )
        return FetchWait(entity=entity, sentence=text, run_id=early.run.id, is_held=True)
    return FetchWait(entity=entity, sentence=f"{begin} It is started at the next attempt.", run_id=None, is_held=False)


def _next(rest_s: float) -> str:
    minutes = ceil(rest_s / 60)
    if not minutes:
        return "It is started again at the next attempt."
    time = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
    return f"It is started again automatically in {time}."


NOTHING = "Nothing waits for it now."
KINDS = {"batches": ("batch", "batches"), "changes": ("change", "changes"), "jobs": ("job", "jobs")}


def sentences(session: Session, connector_key: int) -> list[str]:
    """Return a sentence for each remote system that does not answer, the longest outage first."""
    found = outages.outages_of(session, connector_key)
    waiting = outages.waiting_of(session, connector_key) if found else {}
    return [_outage_sentence(each, waiting) for each in found]


def _outage_sentence(outage: Outage, waiting: dict[str, WaitingForRemote]) -> str:
    since = f"{outage.since:%Y-%m-%d %H:%M:%S} UTC"
    base = outage.remote.removesuffix(" limit")
    name = REMOTES.get(base, base)
    calls = f"{outage.failures} call{'s' if outage.failures > 1 else ''}"
    if base != outage.remote:
        waits = _outage_waits(waiting.get("rate limit", WaitingForRemote()))
        return f"{name} has answered only HTTP 429 since {since} ({calls}). {waits} {describe('rate_limited')}"
    if outage.reason in INSTALLATION:
        waits = _outage_waits(waiting.get(outage.remote, WaitingForRemote()))
        return f"{name} refuses this installation's app since {since} ({calls}). {waits} {describe(outage.reason)}"
    words = f"{outage.reason}: {outage.detail}" if outage.detail else outage.reason
    waits = _outage_waits(waiting.get(outage.remote, WaitingForRemote()))
    if waits == NOTHING:
        return f"{name} has not answered since {since} ({calls}, last {words}). {waits} The next call asks it again."
    asked = (
        f"The next call is at {outage.probe_at:%H:%M:%S} UTC; everything continues automatically as soon as it answers."
    )
    return f"{name} has not answered since {since} ({calls}, last {words}). {waits} {asked}"


def _outage_waits(waiting: WaitingForRemote) -> str:
    parts = [f"{count} {KINDS[kind][0 if count == 1 else 1]}" for kind in KINDS if (count := getattr(waiting, kind))]
    if not parts:
        return NOTHING
    verb = "waits" if parts == [f"1 {parts[0].split()[1]}"] else "wait"
    return f"{', '.join(parts)} {verb} for it."
