"""One connector at a glance: everything its overview, `pipeline connectors show` and other programs tell, asked at one moment."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from sqlalchemy.orm import Session

from db import failure_count, schedule, shell
from db import run as run_rows
from db.connector import Connector
from db.token_ledger import moment
from pipeline.domain.kinds import Entity
from pipeline.insight import fetches
from pipeline.insight.fetches import Fetch
from pipeline.insight.in_step import InStep, Reached, in_step, reached
from pipeline.insight.traffic import Traffic, traffic
from pipeline.sync.connectors.status import Status, status_of
from pipeline.sync.connectors.webhooks import hearing
from pipeline.sync.runs import spending
from pipeline.sync.runs.spending import BudgetStatus

LAST_RUNS: Final = 8
RUN_KINDS: Final = {"full_fetch": "full"}
"""Kind of a schedule → kind of the runs it starts, where the two differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One problem of a connector.

    topic, subject  where its next step is: those of `pipeline.sync.connectors.status`, and `first_fetch` of an entity that
                    was never fetched whole
    """

    level: str
    message: str
    topic: str
    subject: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Pipedrive's day. limit is None where there is none; `by_end` is what will have been spent when the day is over, if it
    goes on so; `days` are the last ones, the oldest first.
    """

    spent: int
    limit: int | None
    left_for_fetches: int | None
    by_end: int
    resets_at: datetime
    closed_s: float | None
    days: tuple[tuple[date, int], ...]

    @property
    def fits(self) -> bool:
        return self.limit is None or self.by_end <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Shells:
    """Organizations of which only the id is known, and since when the oldest one waits; `late` wait longer than they should."""

    waiting: int
    oldest: datetime
    late: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    is_well: bool
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """kind is `full_fetch` or `incremental`."""

    kind: str
    cron: str | None
    interval_s: int | None
    next_at: datetime
    last_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """`as_of` is the moment at which all of it was true."""

    as_of: datetime
    key: int
    name: str
    state: str
    pause_reason: str | None
    in_step: InStep
    notes: tuple[Note, ...]
    traffic: Traffic
    budget: Budget
    running: tuple[Fetch, ...]
    shells: Shells | None
    webhooks: Webhooks
    planned: tuple[Planned, ...]
    last_runs: tuple[Fetch, ...]
    open_failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a connector does: what its overview, the list of connectors and the API say alike.

    level  `ok`, `warning`, `error`, `paused` or `setupRequired`
    notes  what is not as it should be, the most urgent first
    """

    in_step: InStep
    notes: tuple[Note, ...]

    @property
    def level(self) -> str:
        return self.in_step.level

    @property
    def messages(self) -> tuple[str, ...]:
        """The notes as sentences, or that there is nothing to do."""
        return tuple(note.message for note in self.notes) or (self.in_step.text,)


def condition(session: Session, connector: Connector) -> Condition:
    """Judge how a connector does, from what is stored."""
    status, marks = status_of(session, connector), reached(session, connector.key)
    fetched = {Entity(run.entity) for run in run_rows.running_runs(session, connector.key) if run.kind == "full"}
    return Condition(
        in_step=in_step(
            _level(connector, status),
            marks,
            is_behind=any(found.topic == "watermark" for found in status.findings),
            now=moment(session),
        ),
        notes=_notes(status, marks, fetched),
    )


def overview(session: Session, connector: Connector, unit: str = "hour") -> Overview:
    """Look at everything that can be known without asking the remote systems."""
    now, judged = moment(session), condition(session, connector)
    day = spending.standing(session, connector.key)
    heard = hearing(session, connector.key)
    running = fetches.running(session, connector.key, day)
    return Overview(
        as_of=now,
        key=connector.key,
        name=connector.name,
        state=connector.state,
        pause_reason=connector.pause_reason,
        in_step=judged.in_step,
        notes=judged.notes,
        traffic=traffic(session, connector.key, now, unit),
        budget=budget(session, connector.key, day),
        running=running,
        shells=_shells(session, connector.key),
        webhooks=Webhooks(is_well=heard.is_well, sentence=heard.sentence),
        planned=planned(session, connector.key),
        last_runs=fetches.latest(session, connector.key, now, LAST_RUNS),
        open_failures=sum(failure_count.count_open(session, connector.key).values()),
    )


def budget(session: Session, connector_key: int, day: BudgetStatus) -> Budget:
    """The day, and how it will go on."""
    under_way = spending.runs_under_way(session, connector_key, day)
    expected = spending.day_forecast(session, connector_key, day, under_way)
    days = spending.last_days(session, day)
    return Budget(
        spent=day.spent,
        limit=day.allowance.daily_tokens or None,
        left_for_fetches=day.left_for_fetches,
        by_end=day.spent + expected.total,
        resets_at=day.resets_at,
        closed_s=day.closed_s,
        days=tuple((each.day, each.tokens) for each in reversed(days)),
    )


FIRST_FETCH: Final = {
    Entity.ORGANIZATION: "Fetch all Organizations first, so that each Person finds the Account it belongs to.",
    Entity.PERSON: "Fetch all Persons: what changes later is only known to be complete once everything was there.",
}


def _notes(status: Status, marks: tuple[Reached, ...], begun: Container[Entity]) -> tuple[Note, ...]:
    """What the status found; and, once nothing stands in its way, the first fetch."""
    notes = [
        Note(level=found.level, message=found.message, topic=found.topic, subject=found.subject)
        for found in status.findings
    ]
    missing = {mark.entity for mark in marks if mark.claimed is None}
    if not any(note.topic in ("credentials", "pause") for note in notes):
        notes += [
            Note(level="warning", message=words, topic="first_fetch", subject=entity.value)
            for entity, words in FIRST_FETCH.items()
            if entity in missing and entity not in begun
        ]
    return tuple(notes)


def _level(connector: Connector, status: Status) -> str:
    """A pause that a person has made is no error, and says more than a warning."""
    is_paused = connector.state == "paused" and connector.pause_reason != "not_connected"
    return "paused" if is_paused and status.status != "setupRequired" else status.status


def _shells(session: Session, connector_key: int) -> Shells | None:
    ages = shell.shell_ages(session, connector_key)
    return Shells(waiting=ages[0].shells, oldest=ages[0].oldest, late=ages[0].late) if ages else None


def planned(session: Session, connector_key: int) -> tuple[Planned, ...]:
    """What comes by itself, the next first."""
    rows = sorted(schedule.schedules_of(session, connector_key), key=lambda row: row.next_run_at)
    last = {row.kind: run_rows.last_started(session, connector_key, RUN_KINDS.get(row.kind, row.kind)) for row in rows}
    return tuple(
        Planned(
            kind=row.kind,
            cron=row.cron,
            interval_s=row.interval_s,
            next_at=row.next_run_at,
            last_at=max((at for at in (row.last_run_at, last[row.kind]) if at is not None), default=None),
        )
        for row in rows
    )
