"""How one connector is doing, as a status and sentences that say what to do: for Hull's dashboard and for the overview."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db import failure as failures
from db import failure_count, schedule, watermark
from db import run as runs
from db.authorisation import connection_of
from db.connector import Connector
from pipeline.domain.kinds import Claim, Entity
from pipeline.domain.reasons import REASONS, describe
from pipeline.domain.settings import DEFAULT_ORGANIZATION_DOMAIN, read_settings
from pipeline.sync.connectors.outage_text import sentences
from pipeline.sync.connectors.waits import waits_of
from pipeline.sync.connectors.webhook_health import hearing
from pipeline.sync.runs import catch_up, spending

LEVELS: Final = ("ok", "warning", "error", "setupRequired")
"""From best to worst, under the names Hull's dashboard knows; what must be set up comes before what went wrong."""

BEHIND: Final = timedelta(minutes=15)
"""How long a change may take to reach Hull when its webhook was lost."""

ALL_GOOD = "Everything is in order."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be.

    topic    `credentials`, `webhooks`, `pause`, `outage`, `domain`, `budget`, `watermark`, `settings`, `run`, `held`,
             `waits` or `failures`
    subject  which of them, where there are several: a run's id, a reason code
    """

    level: str
    message: str
    topic: str
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The worst level found, and what there is to say, the worst first: as sentences, and with what each is about."""

    status: str
    messages: list[str]
    findings: tuple[Finding, ...] = ()


def status_of(session: Session, connector: Connector) -> Status:
    """Look at everything that can be known without asking the remote systems."""
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


def _credentials(session: Session, connector: Connector) -> list[Finding]:
    found = []
    if connection_of(session, connector).how is None:
        message = "Pipedrive is not connected yet. Open Credentials and connect an administrator's account."
        found.append(Finding(level="setupRequired", message=message, topic="credentials"))
    elif not (webhooks := hearing(session, connector.key)).is_well:
        found.append(Finding(level="warning", message=webhooks.sentence, topic="webhooks"))
    return found


def _pause(connector: Connector) -> list[Finding]:
    reason = connector.pause_reason
    if connector.state != "paused" or reason == "not_connected":  # the credentials' own sentence says more
        return []
    if reason in REASONS and reason != "connector_paused":
        return [Finding(level="error", message=f"Paused. {describe(reason)}", topic="pause", subject=reason)]
    return [Finding(level="warning", message=describe("connector_paused"), topic="pause")]


def _outages(session: Session, connector: Connector) -> list[Finding]:
    """What does not answer: nothing is to be done here, but everybody asks why nothing moves."""
    return [Finding(level="warning", message=message, topic="outage") for message in sentences(session, connector.key)]


def _domain(session: Session, connector: Connector) -> list[Finding]:
    """The default source of the domain is a field that not every company has."""
    fields = connectors.find_fields(session, connector.key, Entity.ORGANIZATION)
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
    return [Finding(level="warning", message=message, topic="domain")]


def _budget(session: Session, connector: Connector) -> list[Finding]:
    """The company's day, from four fifths on."""
    day = spending.standing(session, connector.key)
    returns = f"The budget returns at {day.resets_at:%H:%M} UTC, as far as Pipedrive tells."
    if day.closed_s is not None:
        message = f"Pipedrive says that today's tokens of the whole company are spent: all work waits. {returns}"
        return [Finding(level="warning", message=message, topic="budget")]
    if day.share >= 1:
        message = f"Pipedrive's tokens for today are spent by our count: fetches wait, live changes go on. {returns}"
        return [Finding(level="warning", message=message, topic="budget")]
    if day.share > spending.WARN_SHARE:
        message = (
            f"{day.share:.0%} of Pipedrive's tokens for today are spent; fetches wait before live changes do. {returns}"
        )
        return [Finding(level="warning", message=message, topic="budget")]
    return []


def _watermark(session: Session, connector: Connector) -> list[Finding]:
    """What has changed reaches Hull within minutes, webhooks or not; when it does not, say since when."""
    plans = {row.kind: row for row in schedule.schedules_of(session, connector.key)}
    marks = [watermark.find_watermark(session, connector.key, entity) for entity in Entity]
    claimed = [mark.claimed for mark in marks if mark is not None and mark.claimed is not None]
    if catch_up.INCREMENTAL not in plans or connector.state != "active" or not claimed:
        return []
    interval = timedelta(seconds=plans[catch_up.INCREMENTAL].interval_s or 0)
    oldest = min(claimed)
    if datetime.now(UTC) - oldest <= max(BEHIND, 3 * interval):
        return []
    message = (
        f"What changed in Pipedrive since {oldest:%Y-%m-%d %H:%M} UTC may not be in Hull yet: the fetch of changes has not "
        "come to its end since then. See pipeline doctor."
    )
    return [Finding(level="warning", message=message, topic="watermark")]


SETTINGS_REFUSED: Final = "settings_refused"


def _settings(session: Session, connector: Connector) -> list[Finding]:
    """Whoever saved settings that make no sense looks here, not into a log."""
    if not any(reason == SETTINGS_REFUSED for _, reason in failure_count.count_open(session, connector.key)):
        return []  # to look for one that is not there would read every open failure
    refused = failures.find_failures(session, connector_key=connector.key, reason=SETTINGS_REFUSED)
    return [
        Finding(level="warning", message=f"{describe(SETTINGS_REFUSED)} {failure.detail}", topic="settings")
        for failure in refused[:1]
    ]


def _runs(session: Session, connector: Connector) -> list[Finding]:
    """The newest fetch of each entity, when it stopped on the way."""
    newest = {run.entity: run for run in reversed(runs.latest_runs(session, connector.key))}
    return [
        Finding(
            level="warning",
            message=f"{describe('needs_a_yes')} Run {run.id}, of {Entity(run.entity).plural.capitalize()}.",
            topic="held",
            subject=str(run.id),
        )
        for run in runs.held_runs(session, connector.key)
    ] + [
        Finding(
            level="warning",
            message=f"The last fetch of {Entity(run.entity).plural} stopped: {_sentence(run.reason)}",
            topic="run",
            subject=str(run.id),
        )
        for run in newest.values()
        if run.state == "stopped"
    ]


def _waits(session: Session, connector: Connector) -> list[Finding]:
    """Users and Accounts that are not sent before a fetch has ended."""
    return [
        Finding(level="warning", message=each.sentence, topic="waits", subject=str(each.run_id or ""))
        for each in waits_of(session, connector.key)
    ]


def _failures(session: Session, connector: Connector) -> list[Finding]:
    counts = failure_count.count_open(session, connector.key)
    reasons: dict[str, int] = {}
    for (_, reason), count in counts.items():
        if reason != SETTINGS_REFUSED:
            reasons[reason] = reasons.get(reason, 0) + count
    return [
        Finding(
            level="warning",
            message=f"{count} open failure{'s' if count > 1 else ''}: {_sentence(reason)}",
            topic="failures",
            subject=reason,
        )
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]


def _sentence(reason: str | None) -> str:
    return describe(reason) if reason in REASONS else "see the failures of the connector."
