"""Checks for the guide's Troubleshooting headings, for one connector: counts from the database, and the next step.

They call neither Hull nor Pipedrive, so they cost no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from db import connector as connectors
from db import delivery, failure_count, id_mapping
from db import run as run_rows
from db import sync_event as events
from db.connector import Connector
from pipeline.cli import freshness
from pipeline.cli.findings import BAD, LATELY_H, NOTE, OK, Answer, Case, Finding, ago
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import read_settings
from pipeline.sync.connectors import setup
from pipeline.sync.connectors.status import waits_of

OLD_SHELL = timedelta(hours=1)
"""An empty Account that waits longer than this for the fetch of Organizations is a problem."""


def examine(session: Session, connector: Connector) -> list[Answer]:
    """Return the findings for every heading."""
    version = connectors.settings_in_force(session, connector.key)
    newest = reversed(run_rows.latest_runs(session, connector.key, 200))
    case = Case(
        session=session,
        connector=connector,
        settings=read_settings(version.document),
        settings_version=version.version,
        full_runs={run.entity: run for run in newest if run.kind == "full"},
    )
    return [Answer(heading=heading, findings=list(answer(case))) for heading, answer in HEADINGS.items()]


def no_data(case: Case) -> Iterator[Finding]:
    unknown = setup.find_mistakes(case.session, case.key, case.settings)[1]
    for complaint in unknown:
        yield Finding(level=BAD, text=complaint, next_step=f"pipeline settings set {case.name} FILE")
    if not unknown:
        yield Finding(level=OK, text="every identifier and every mapped field exists in Pipedrive")
    for entity in Entity:
        yield _mapped(case, entity)
        yield _fetched(case, entity)
    yield from freshness.outages(case)
    yield from freshness.under_way(case)
    yield freshness.budget(case)
    yield from _left_out(case, "incoming.")
    if any(run.state == "done" for run in case.full_runs.values()):
        step = f"pipeline verify {case.name} --sample 300"
        yield Finding(level=OK, text="to check for missing data, compare both sides", next_step=step)


def no_updates(case: Case) -> Iterator[Finding]:
    if case.connector.state != "active":
        reason = REASONS.get(case.connector.pause_reason or "")
        step = f"{reason.advice if reason else ''} Then: pipeline connectors resume {case.name}".strip()
        yield Finding(level=BAD, text=f"the connector is paused: {case.connector.pause_reason}", next_step=step)
    yield from freshness.webhooks(case)
    yield from freshness.in_step(case)
    yield from freshness.successes(case, "incoming")
    yield from freshness.job_errors(case)
    yield from freshness.outages(case)
    yield from freshness.under_way(case)
    yield freshness.budget(case)
    yield from _gave_up(case)


def no_fields(case: Case) -> Iterator[Finding]:
    """Check the outgoing direction: mappings, segments, Hull's notifications, and their outcomes."""
    for entity in Entity:
        yield _sent(case, entity)
    told = delivery.last_delivery(case.session, case.key, "hull")
    if told is None:
        step = f"check that Hull can reach PUBLIC_URL, and that connector {case.connector.id} is installed there"
        yield Finding(level=NOTE, text="Hull has sent no notification yet", next_step=step)
    else:
        yield Finding(level=OK, text=f"last notification {ago(told)}")
    yield from _waits(case)
    yield from freshness.successes(case, "outgoing")
    yield from _left_out(case, "outgoing.")


def _waits(case: Case) -> Iterator[Finding]:
    """Yield what is not sent before a fetch has ended."""
    for each in waits_of(case.session, case.key):
        step = f"pipeline runs show {case.name} {each.run_id}" if each.run_id else ""
        yield Finding(level=BAD if each.is_held else NOTE, text=each.sentence, next_step=step)


def _sent(case: Case, entity: Entity) -> Finding:
    name, is_person = entity.hull, entity is Entity.PERSON
    segments = case.settings.synchronized_user_segments if is_person else case.settings.synchronized_account_segments
    mapped = len(case.settings.outgoing(entity))
    text = f"outgoing {name}s: {mapped} attributes mapped, {len(segments)} segments synchronised"
    if mapped and segments:
        return Finding(level=OK, text=text)
    missing = f"outgoing_{name}_attributes" if not mapped else f"synchronized_{name}_segments"
    return Finding(level=NOTE, text=text, next_step=f"set {missing}: pipeline settings set {case.name} FILE")


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
        yield Finding(level=OK, text=f"no Account is empty; {counts.get('full', 0):,} are filled")
        return
    waiting = datetime.now(UTC) - oldest
    yield Finding(
        level=BAD if waiting > OLD_SHELL else NOTE,
        text=f"{shells:,} Accounts are empty (known from Persons only), the oldest since {ago(oldest)}",
        next_step=f"pipeline fetch organizations {case.name} --wait",
    )


HEADINGS = {
    "I didn't get any Pipedrive organization/person data in Hull": no_data,
    "I didn't get any updates from recently updated Persons or Organizations into Hull": no_updates,
    "I don't see recently added/updated fields in Pipedrive": no_fields,
    "I get empty Accounts": empty_accounts,
}
"""Heading of the guide → its checks."""


def _mapped(case: Case, entity: Entity) -> Finding:
    count = len(case.settings.incoming(entity))
    name = f"incoming_{entity.hull}_attributes"
    if count:
        return Finding(level=OK, text=f"{name}: {count} attributes are mapped")
    step = f"map some: pipeline settings set {case.name} FILE; then: pipeline fetch {entity.plural} {case.name}"
    return Finding(level=BAD, text=f"{name} is empty: only the Pipedrive id is sent to Hull", next_step=step)


def _fetched(case: Case, entity: Entity) -> Finding:
    """Return whether there was a full fetch, how it ended, and whether the settings have changed since."""
    run, step = case.full_runs.get(entity), f"pipeline fetch {entity.plural} {case.name} --wait"
    if run is None:
        return Finding(level=BAD, text=f"{entity.plural} were never fully fetched", next_step=step)
    what = f"full fetch of {entity.plural} {ago(run.started_at)}: {run.state}, {run.read:,} read, {run.failed:,} failed"
    if run.state in ("stopped", "cancelled"):
        return Finding(level=BAD, text=f"{what} ({run.reason})", next_step=f"pipeline runs show {case.name} {run.id}")
    if run.settings_version < case.settings_version:
        since = f"; the settings have changed since (version {run.settings_version} → {case.settings_version})"
        mapped = ", ".join(_mapped_since(case, entity, run.settings_version))
        which = f": mapped since then: {mapped}" if mapped else ", no attribute was mapped"
        return Finding(level=NOTE, text=what + since + which, next_step=f"for newly mapped attributes: {step}")
    return Finding(level=OK, text=what)


def _mapped_since(case: Case, entity: Entity, version: int) -> list[str]:
    """Return attributes of the settings in force that this version did not map, or mapped differently."""
    past = [each for each in connectors.settings_history(case.session, case.key) if each.version == version]
    before = read_settings(past[0].document).incoming(entity) if past else ()
    return [row.hull for row in case.settings.incoming(entity) if row not in before]


def _left_out(case: Case, events_of: str) -> Iterator[Finding]:
    """Yield what was skipped or refused in the last day, by reason, most frequent first."""
    counts = events.count_events(case.session, case.key, hours=LATELY_H)
    for (event, reason), count in sorted(counts.items(), key=lambda item: -item[1]):
        if event.startswith(events_of) and event.endswith((".skip", ".error")) and reason:
            known = REASONS.get(reason)
            text = f"{event} {count:,} times in {LATELY_H} h, {reason}: {known.meaning if known else ''}"
            yield Finding(level=NOTE, text=text, next_step=known.advice if known else "")


def _gave_up(case: Case) -> Iterator[Finding]:
    counts: dict[str, int] = {}
    for (_, reason), count in failure_count.count_open(case.session, case.key).items():
        counts[reason] = counts.get(reason, 0) + count
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        known = REASONS.get(reason)
        replay = f"pipeline failures replay {case.name} --reason {reason}"
        yield Finding(
            level=BAD,
            text=f"{count:,} failures are open, {reason}: {known.meaning if known else ''}",
            next_step=f"{known.advice if known else ''} Then: {replay}".strip(),
        )
    if not counts:
        yield Finding(level=OK, text="no failure is open")
