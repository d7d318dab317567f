"""One hour of a company, simulated in this process with a manual clock.

A sales team edits Pipedrive. Webhooks are lost, doubled and reordered on their way to the web app. The tasks of beat run when
they are due. After each move of a watermark, its claim is compared with Pipedrive's history.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests

from db import schedule
from db.session import transaction
from pipeline.domain.kinds import Entity
from sandbox.company import Event
from sandbox.pipedrive.delivery import Trouble
from sandbox.pipedrive.sales_team import SalesTeam
from tests.authorising import PUBLIC_URL, Person, installed_app
from tests.journeys.pipedrive_records import create_records
from tests.manual_clock import Clock, manual_clock
from tests.oracle import Journal, joined
from tests.system import ACCOUNT_FIELDS, USER_FIELDS, SyncSystem, default_settings, make_system
from tests.wsgi_adapter import session_for

BEGIN = datetime(2026, 3, 2, 9, tzinfo=UTC)
STEP_S = 60
ACTIONS = 6
"""Actions of the team in one step."""
CHECKED_EVERY = 15
"""Steps between two checks of the webhooks: a quarter of an hour."""
CUSTOM_TYPES = ("varchar", "text", "double")
NOT_COMPARED = frozenset({"add_time", "label_ids", "address"})
"""Mapped fields that Hull shows in another form. The team does not edit them."""

EXCEPTED = """
    SELECT record_id FROM failures WHERE direction = 'incoming' AND entity = :entity AND state = 'open' AND kind = 'record'
    UNION SELECT record_id FROM changes WHERE direction = 'incoming' AND entity = :entity
       AND cause IN ('same_second', 'stale_overwrite', 'missing')"""
"""Ids that a watermark may leave out if it counts them."""


@dataclass(slots=True)
class Intake:
    """The web app as Pipedrive reaches it, and the number of its requests. It can be closed."""

    web: Any = None
    is_open: bool = True
    passed: int = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not self.is_open:
            raise requests.ConnectionError("the web app is down")
        self.passed += 1
        answer: Iterable[bytes] = self.web.wsgi_app(environ, start_response)
        return answer


@dataclass(slots=True, kw_only=True)
class Claim:
    """A watermark after a move.

    outdated   ids of records that Hull must show by this watermark and does not
    uncounted  exceptions that the watermark needed beyond those it counts
    """

    entity: str
    moment: datetime
    outdated: list[int]
    uncounted: int

    @property
    def is_false(self) -> bool:
        return bool(self.outdated) or self.uncounted > 0


@dataclass(slots=True, kw_only=True)
class Hour:
    system: SyncSystem
    clock: Clock
    person: Person
    intake: Intake
    team: SalesTeam
    journal: Journal
    claims: list[Claim] = field(default_factory=list)
    steps: int = 0

    def run(self, minutes: float) -> None:
        """Let the team act for this time, and run webhooks and workers."""
        for _ in range(round(60 * minutes / STEP_S)):
            for _ in range(ACTIONS):
                self.clock.move(STEP_S / ACTIONS)
                self.team.act()
            self._tick()

    def rest(self, minutes: float) -> None:
        """Run webhooks and workers for this time while the team does nothing."""
        for _ in range(round(60 * minutes / STEP_S)):
            self.clock.move(STEP_S)
            self._tick()

    def fetch_all(self) -> None:
        """Run the nightly full fetch."""
        for entity in Entity:
            self.system.start(entity)
        self.work()

    def in_hull(self) -> dict[str, dict[int, Any]]:
        """Return entity → Pipedrive id → User or Account."""
        return joined(self.system.hull_records("user"), self.system.hull_records("account"))

    def work(self) -> None:
        """Run all due stages and check the watermarks after each."""
        dispatch = self.system.module("sync.changes.dispatch")
        while True:
            due = self.system.next_batch()
            if due is not None:
                self.system.run_batch_stage(*due)
                self.check_watermarks()
            elif not dispatch.dispatch_changes():
                return

    def check_watermarks(self) -> None:
        """Compare each watermark that has moved since the last check with the journal."""
        for row in self.system.rows(
            "SELECT entity, reached_at, excepted FROM watermarks WHERE complete_since IS NOT NULL AND reached_at IS NOT NULL"
        ):
            seen = [claim.moment for claim in self.claims if claim.entity == row.entity]
            if row.reached_at not in seen:
                self.claims.append(self._claim_of(row.entity, row.reached_at, row.excepted))

    def _claim_of(self, entity: str, moment: datetime, count: int) -> Claim:
        excepted = {int(row.record_id) for row in self.system.rows(EXCEPTED, entity=entity)}
        outdated = set(self.journal.outdated(entity, self.in_hull()[entity], moment.timestamp()))
        uncounted = max(0, len(outdated & excepted) - count)
        return Claim(entity=entity, moment=moment, outdated=sorted(outdated - excepted), uncounted=uncounted)

    def _tick(self) -> None:
        """Run the tasks that beat starts within a minute, and every quarter of an hour."""
        self.system.pipedrive.delivery.run_due()
        self.system.module("tasks.control").start_scheduled()
        self.system.module("sync.runs.schedules").fill_shells(self.system.connector_key)
        self.system.module("sync.changes.hull_ids").resolve(self.system.connector_key)
        self.work()
        self.steps += 1
        if self.steps % CHECKED_EVERY == 0:
            self.system.module("tasks.control").ensure_webhooks()


@contextmanager
def an_hour(*, persons: int, organizations: int, seed: int) -> Iterator[Hour]:
    """Connect a company by OAuth, fetch everything, and register webhooks and schedules."""
    intake = Intake()
    with (
        manual_clock(BEGIN) as clock,
        make_system(clock=clock, webhook_session=session_for({PUBLIC_URL: intake})) as system,
        installed_app(system),
    ):
        create_records(system, persons=persons, organizations=organizations)
        fields = _map_fields(system)
        journal = _journal(system, fields)
        system.pipedrive.delivery.schedule.threads = 0
        person = Person(system)
        intake.web = person.web
        assert person.authorise().status_code == 200
        with transaction() as session:
            schedule.set_schedule(session, system.connector_key, "incremental", interval_s=300, next_run_at=clock.now)
        hour = Hour(
            system=system,
            clock=clock,
            person=person,
            intake=intake,
            team=SalesTeam(system.company, seed=seed),
            journal=journal,
        )
        clock.move(3600)
        hour.fetch_all()
        system.module("tasks.control").ensure_webhooks(system.connector_key)
        system.pipedrive.delivery.trouble = Trouble(seed=seed, lost=0.1, duplicated=0.1, delayed=1.0, delay_s=60)
        yield hour


def _map_fields(system: SyncSystem) -> dict[str, tuple[str, ...]]:
    """Map some custom fields too. Return entity → codes of the fields that are compared."""
    custom = {
        entity.value: tuple(
            each.code for each in system.company.custom_fields(entity.value) if each.type in CUSTOM_TYPES
        )
        for entity in Entity
    }
    rows = {
        name: [*default_settings()[name], *({"hull": f"pipedrive/{code}", "service": code} for code in custom[entity])]
        for name, entity in (("incoming_user_attributes", "person"), ("incoming_account_attributes", "organization"))
    }
    system.change_settings(**rows, support_user_deletion=True, support_account_deletion=True)
    standard = {"person": USER_FIELDS, "organization": ACCOUNT_FIELDS}
    return {
        entity: (*(code for code in standard[entity] if code not in NOT_COMPARED), *custom[entity]) for entity in custom
    }


def _journal(system: SyncSystem, fields: dict[str, tuple[str, ...]]) -> Journal:
    journal = Journal(fields=fields)
    for entity in Entity:
        for record in map(json.loads, system.company.export(entity.value)):
            journal.add(entity.value, record["id"], system.company.clock(), record)

    def add(event: Event) -> None:
        journal.add(event.entity, event.id, event.moment, event.after)

    system.company.listeners.append(add)
    return journal
