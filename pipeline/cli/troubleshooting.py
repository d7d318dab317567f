"""Checks for the guide's Troubleshooting headings, for one connector: counts from the database, and the next step.

They call neither Hull nor Pipedrive, so they cost no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from db import connector as connectors
from db import delivery, failure, id_mapping, watermark
from db import run as run_rows
from db import sync_event as events
from db.connector import Connector
from db.run import Run
from db.watermark import Watermark
from db.webhook import Subscription, subscriptions_of
from pipeline.cli.output import moment
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.operations.run_progress import runs_in_flight
from pipeline.sync.connectors import settings_change
from pipeline.sync.connectors.status import sentences, waits_of
from pipeline.sync.runs import spending
from pipeline.sync.runs.spending import WARN_SHARE

OK, NOTE, BAD = "ok", "note", "bad"
LATELY_H = 24
"""Hours of events that are counted; older ones are not relevant any more."""
OLD_SHELL = timedelta(hours=1)
"""An empty Account that waits longer than this for the fetch of Organizations is a problem."""
BEHIND = timedelta(hours=1)
"""A watermark that did not move for this long is late: it does not just wait for the next incremental fetch."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` is `ok`, `note` (information) or `bad` (an operator must act)."""

    level: str
    text: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A heading of the guide with its findings."""

    heading: str
    findings: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The input of every check.

    full_runs  entity → its newest full run
    """

    session: Session
    connector: Connector
    settings: ConnectorSettings
    settings_version: int
    full_runs: dict[str, Run]

    @property
    def name(self) -> str:
        return self.connector.name

    @property
    def key(self) -> int:
        return self.connector.key


def examine(session: Session, connector: Connector) -> list[Answer]:
    """Return the findings for every heading."""
    version = connectors.settings_in_force(session, connector.key)
    newest = reversed(run_rows.find_runs(session, connector.key, limit=200))
    case = Case(
        session=session,
        connector=connector,
        settings=read_settings(version.document),
        settings_version=version.version,
        full_runs={run.entity: run for run in newest if run.kind == "full"},
    )
    return [Answer(heading, list(answer(case))) for heading, answer in HEADINGS.items()]


def no_data(case: Case) -> Iterator[Finding]:
    unknown = settings_change.find_mistakes(case.session, case.key, case.settings)[1]
    for complaint in unknown:
        yield Finding(BAD, complaint, f"pipeline settings set {case.name} FILE")
    if not unknown:
        yield Finding(OK, "every identifier and every mapped field exists in Pipedrive")
    for entity in Entity:
        yield _mapped(case, entity)
        yield _fetched(case, entity)
    yield from _outages(case)
    yield from _fetches_in_flight(case)
    yield _budget(case)
    yield from _left_out(case, "incoming.")
    if any(run.state == "done" for run in case.full_runs.values()):
        step = f"pipeline verify {case.name} --sample 300"
        yield Finding(OK, "to check for missing data, compare both sides", step)


def no_updates(case: Case) -> Iterator[Finding]:
    if case.connector.state != "active":
        reason = REASONS.get(case.connector.pause_reason or "")
        step = f"{reason.advice if reason else ''} Then: pipeline connectors resume {case.name}".strip()
        yield Finding(BAD, f"the connector is paused: {case.connector.pause_reason}", step)
    yield from _webhooks(case)
    yield from _watermarks(case)
    yield from _last_successes(case, "incoming")
    yield from _job_errors(case)
    yield from _outages(case)
    yield from _fetches_in_flight(case)
    yield _budget(case)
    yield from _open_failures(case)


def no_fields(case: Case) -> Iterator[Finding]:
    """Check the outgoing direction: mappings, segments, Hull's notifications, and their outcomes."""
    for entity in Entity:
        yield _sent(case, entity)
    last = delivery.last_delivery(case.session, case.key, "hull")
    if last is None:
        step = f"check that Hull can reach PUBLIC_URL, and that connector {case.connector.id} is installed there"
        yield Finding(NOTE, "Hull has sent no notification yet", step)
    else:
        yield Finding(OK, f"last notification {ago(last)}")
    yield from _waits(case)
    yield from _last_successes(case, "outgoing")
    yield from _left_out(case, "outgoing.")


def _waits(case: Case) -> Iterator[Finding]:
    """Yield what is not sent before a fetch has ended."""
    for each in waits_of(case.session, case.key):
        step = f"pipeline runs show {case.name} {each.run_id}" if each.run_id else ""
        yield Finding(BAD if each.is_held else NOTE, each.sentence, step)


def _sent(case: Case, entity: Entity) -> Finding:
    name, is_person = entity.hull, entity is Entity.PERSON
    segments = case.settings.synchronized_user_segments if is_person else case.settings.synchronized_account_segments
    mapped = len(case.settings.outgoing(entity))
    text = f"outgoing {name}s: {counted(mapped, 'attribute')} mapped, {counted(len(segments), 'segment')} synchronized"
    if mapped and segments:
        return Finding(OK, text)
    missing = f"outgoing_{name}_attributes" if not mapped else f"synchronized_{name}_segments"
    suggest = f"pipeline settings suggest {case.name}; then: " if not mapped else ""
    return Finding(NOTE, text, f"set {missing}: {suggest}pipeline settings set {case.name} FILE")


def empty_accounts(case: Case) -> Iterator[Finding]:
    counts = {
        each.state: each.records
        for each in id_mapping.mapping_counts(case.session, case.key)
        if each.entity == Entity.ORGANIZATION
    }
    yield _mapped(case, Entity.ORGANIZATION)
    if Entity.ORGANIZATION in case.full_runs:
        yield _fetched(case, Entity.ORGANIZATION)
    yield from _left_out(case, "incoming.account.")
    shells, oldest = counts.get("shell", 0), id_mapping.oldest_shell(case.session, case.key)
    if not shells or oldest is None:
        yield Finding(OK, f"no Account is empty; {counts.get('full', 0):,} are filled")
        return
    waiting = datetime.now(UTC) - oldest
    yield Finding(
        BAD if waiting > OLD_SHELL else NOTE,
        f"{counted(shells, 'empty Account')} (known from Persons only), the oldest since {ago(oldest)}",
        f"pipeline fetch organizations {case.name} --wait",
    )


HEADINGS = {
    "I didn't get any Pipedrive organization/person data in Hull": no_data,
    "I didn't get any updates from recently updated Persons or Organizations into Hull": no_updates,
    "I don't see recently added/updated fields in Pipedrive": no_fields,
    "I get empty Accounts": empty_accounts,
}
"""Heading of the guide → its checks."""


def _webhooks(case: Case) -> Iterator[Finding]:
    """Yield the state of the webhooks at their last check, and the time of the last delivery."""
    for row in subscriptions_of(case.session, case.key):
        yield _subscribed(case, row)
    last = delivery.last_delivery(case.session, case.key, "pipedrive")
    if last is None:
        yield Finding(
            NOTE,
            "Pipedrive has sent no webhook yet: only fetches bring changes",
            "check that Pipedrive can reach PUBLIC_URL",
        )
    else:
        yield Finding(OK, f"last webhook {ago(last)}")
    if waiting := delivery.count_new_deliveries(case.session, case.key):
        yield Finding(NOTE, f"waiting for a worker: {waiting:,} deliveries", "see the workers above")


def _subscribed(case: Case, row: Subscription) -> Finding:
    name = f"webhook of {Entity(row.entity).plural}"
    looked = f"last checked {ago(row.checked_at)}"
    if row.state == "active":
        recreated = f", recreated {counted(row.recreated, 'time')} so far" if row.recreated else ""
        return Finding(OK, f"{name}: active, {looked}{recreated}")
    since = f"; the next fetch reads what changed since {ago(row.healthy_at)}" if row.healthy_at else ""
    step = f"it is recreated within minutes; if not: pipeline connectors show {case.name}"
    return Finding(NOTE, f"{name}: {row.state}, {looked}{since}", step)


def _watermarks(case: Case) -> Iterator[Finding]:
    """Yield how up to date Hull is, for each entity."""
    for entity in Entity:
        yield _reached(case, entity, watermark.find_watermark(case.session, case.key, entity))


def _reached(case: Case, entity: Entity, mark: Watermark | None) -> Finding:
    fetch = f"pipeline fetch {entity.plural} {case.name}"
    if mark is None or mark.claimed is None:
        step = f"{fetch} --wait" if case.full_runs else f"pipeline fetch all {case.name} --wait"
        return Finding(NOTE, f"{entity.plural}: not fetched yet, so it is not known how up to date Hull is", step)
    but = f", except {mark.excepted:,}" if mark.excepted else ""
    deletes = f"; deletions compared {ago(mark.deletes_verified_at)}" if mark.deletes_verified_at else ""
    text = f"{entity.plural}: up to date as of {ago(mark.claimed)}{but}{deletes}"
    if datetime.now(UTC) - mark.claimed > BEHIND:
        return Finding(NOTE, text, f"{fetch} --since {mark.claimed:%Y-%m-%dT%H:%M:%SZ} --wait")
    return Finding(OK, text)


def _last_successes(case: Case, direction: str) -> Iterator[Finding]:
    """Yield the time of the last success of each entity."""
    for entity in Entity:
        name = f"{direction}.{entity.hull}.success"
        last = events.last_event(case.session, case.key, name)
        yield Finding(NOTE if last is None else OK, f"last {name}: {ago(last) if last else 'never'}")


def _job_errors(case: Case) -> Iterator[Finding]:
    """Yield `incoming.job.error` events of the last day, most frequent first."""
    yield from _counted(case, lambda event: event == "incoming.job.error")


def _outages(case: Case) -> Iterator[Finding]:
    """Yield remote systems that do not answer, since when, and what waits for them."""
    for sentence in sentences(case.session, case.key):
        yield Finding(NOTE, sentence, "nothing to do; see the remote system's status page if it lasts")


def _fetches_in_flight(case: Case) -> Iterator[Finding]:
    """Yield the fetches in flight with their progress, and the expected end of full fetches."""
    day = spending.budget_status(case.session, case.key)
    for run in runs_in_flight(case.session, case.key, day):
        until = f", done about {run.ends_at:%Y-%m-%d %H:%M} UTC" if run.ends_at else ""
        counts = f"{run.counts['read']:,} read, {run.counts['failed']:,} failed"
        text = f"run {run.id}, {run.title}, in flight: {counts}{until}"
        yield Finding(NOTE, text, f"pipeline runs show {case.name} {run.id}")


def _budget(case: Case) -> Finding:
    """Return what is left of Pipedrive's daily budget."""
    day = spending.budget_status(case.session, case.key)
    spent, step = f"{day.spent:,} tokens of Pipedrive's daily budget are spent", f"pipeline budget {case.name}"
    if day.closed_s is not None:
        text = "Pipedrive's daily budget is spent: all work waits"
        return Finding(BAD, f"{text} until {day.resets_at:%H:%M} UTC", step)
    if not day.allowance.daily_tokens:
        return Finding(OK, f"{spent}, no limit is set")
    text = f"{spent}, {day.share:.1%} of {day.allowance.daily_tokens:,}"
    if day.left_for_fetches == 0:
        return Finding(NOTE, f"{text}: fetches wait until {day.resets_at:%H:%M} UTC", step)
    return Finding(NOTE if day.share > WARN_SHARE else OK, text, step if day.share > WARN_SHARE else "")


def _mapped(case: Case, entity: Entity) -> Finding:
    count = len(case.settings.incoming(entity))
    name = f"incoming_{entity.hull}_attributes"
    if count:
        return Finding(OK, f"{name}: {counted(count, 'row')} mapped")
    step = (
        f"choose rows: pipeline settings suggest {case.name}; save them: pipeline settings set {case.name} FILE; "
        f"then: pipeline fetch {entity.plural} {case.name}"
    )
    return Finding(BAD, f"{name} is empty: only the Pipedrive id is sent to Hull", step)


def _fetched(case: Case, entity: Entity) -> Finding:
    """Return whether there was a full fetch, how it ended, and whether the settings have changed since."""
    run, step = case.full_runs.get(entity), f"pipeline fetch {entity.plural} {case.name} --wait"
    if run is None:
        first = step if case.full_runs else f"pipeline fetch all {case.name} --wait"
        return Finding(BAD, f"{entity.plural} were never fully fetched", first)
    what = f"full fetch of {entity.plural} {ago(run.started_at)}: {run.state}, {run.read:,} read, {run.failed:,} failed"
    if run.state in ("stopped", "cancelled"):
        return Finding(BAD, f"{what} ({run.reason})", f"pipeline runs show {case.name} {run.id}")
    if run.settings_version < case.settings_version:
        since = f"; the settings have changed since (version {run.settings_version} → {case.settings_version})"
        mapped = ", ".join(_mapped_since(case, entity, run.settings_version))
        which = f": mapped since then: {mapped}" if mapped else ", no attribute was mapped"
        return Finding(NOTE, what + since + which, f"for newly mapped attributes: {step}")
    return Finding(OK, what)


def _mapped_since(case: Case, entity: Entity, version: int) -> list[str]:
    """Return attributes of the settings in force that this version did not map, or mapped differently."""
    past = [each for each in connectors.settings_history(case.session, case.key) if each.version == version]
    before = read_settings(past[0].document).incoming(entity) if past else ()
    return [row.hull for row in case.settings.incoming(entity) if row not in before]


def _left_out(case: Case, events_of: str) -> Iterator[Finding]:
    """Yield what was skipped or refused in the last day, by reason, most frequent first."""
    yield from _counted(case, lambda event: event.startswith(events_of) and event.endswith((".skip", ".error")))


def _counted(case: Case, is_meant: Callable[[str], bool]) -> Iterator[Finding]:
    """Yield the meant events of the last day with their reason, most frequent first."""
    counts = events.count_events(case.session, case.key, hours=LATELY_H)
    for (event, reason), count in sorted(counts.items(), key=lambda item: -item[1]):
        if reason and is_meant(event):
            known = REASONS.get(reason)
            text = f"{event} {counted(count, 'time')} in {LATELY_H} h, {reason}: {known.meaning if known else ''}"
            yield Finding(NOTE, text, known.advice if known else "")


def _open_failures(case: Case) -> Iterator[Finding]:
    counts: dict[str, int] = {}
    for (_, reason), count in failure.count_open(case.session, case.key).items():
        counts[reason] = counts.get(reason, 0) + count
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        known = REASONS.get(reason)
        replay = f"pipeline failures replay {case.name} --reason {reason}"
        yield Finding(
            BAD,
            f"{counted(count, 'open failure')}, {reason}: {known.meaning if known else ''}",
            f"{known.advice if known else ''} Then: {replay}".strip(),
        )
    if not counts:
        yield Finding(OK, "no failure is open")


def counted(count: int, noun: str) -> str:
    """Return `1 row` or `2 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ago(when: datetime) -> str:
    """Return how long ago a moment was, as text."""
    minutes = (datetime.now(UTC) - when).total_seconds() / 60
    if minutes < 1:
        return "less than a minute ago"
    if minutes < 120:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if minutes < 2880 else f"on {moment(when)} UTC"
