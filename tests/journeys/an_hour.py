"""An hour of a company's life, played in this process with a clock that is moved by hand.

A sales team acts in Pipedrive, whose webhooks are lost, doubled and shuffled on their way to the web app; what beat would wake
is woken when its time has come. Whenever a watermark has moved, what it claims is held against Pipedrive's own past.
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
DEEDS = 6
"""What the team does in one step."""
CHECKED_EVERY = 15
"""Steps between two looks at the webhooks, a quarter of an hour."""
CUSTOM_TYPES = ("varchar", "text", "double")
UNJUDGED = frozenset({"add_time", "label_ids", "address"})
"""Mapped fields that Hull spells its own way and that the team does not touch."""

EXCEPTED = """
    SELECT record_id FROM failures WHERE direction = 'incoming' AND entity = :entity AND state = 'open' AND kind = 'record'
    UNION SELECT record_id FROM changes WHERE direction = 'incoming' AND entity = :entity
       AND cause IN ('same_second', 'stale_overwrite', 'missing')"""
"""Ids that a watermark may leave out, if it counts them."""


@dataclass(slots=True)
class Door:
    """The way from Pipedrive to the web app, and how many requests came through it."""

    web: Any = None
    is_open: bool = True
    passed: int = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if not self.is_open:
            raise requests.ConnectionError("nobody listens")
        self.passed += 1
        answer: Iterable[bytes] = self.web.wsgi_app(environ, start_response)
        return answer


@dataclass(slots=True, kw_only=True)
class Claim:
    """A watermark that was seen to have moved.

    belied_by  records that Hull does not show as the watermark says, and that nothing excepts
    uncounted  by how many records more than it says the watermark needed its exceptions
    """

    entity: str
    moment: datetime
    belied_by: list[int]
    uncounted: int

    @property
    def is_false(self) -> bool:
        return bool(self.belied_by) or self.uncounted > 0


@dataclass(slots=True, kw_only=True)
class Hour:
    system: SyncSystem
    clock: Clock
    person: Person
    door: Door
    team: SalesTeam
    journal: Journal
    claims: list[Claim] = field(default_factory=list)
    steps: int = 0

    def live(self, minutes: float) -> None:
        """Let the team act, webhooks travel and workers work for so long."""
        for _ in range(round(60 * minutes / STEP_S)):
            for _ in range(DEEDS):
                self.clock.move(STEP_S / DEEDS)
                self.team.act()
            self._tick()

    def rest(self, minutes: float) -> None:
        """The same, while the team is at lunch."""
        for _ in range(round(60 * minutes / STEP_S)):
            self.clock.move(STEP_S)
            self._tick()

    def fetch_all(self) -> None:
        """What comes every night."""
        for entity in Entity:
            self.system.start(entity)
        self.work()

    def held(self) -> dict[str, dict[int, Any]]:
        return joined(self.system.hull_records("user"), self.system.hull_records("account"))

    def work(self) -> None:
        """Run what is due, and look at the watermarks after every stage."""
        live = self.system.module("sync.changes.dispatch")
        while True:
            due = self.system.next_batch()
            if due is not None:
                self.system.run_batch_stage(*due)
                self.watch()
            elif not live.dispatch_changes():
                return

    def watch(self) -> None:
        """Hold every watermark that has moved since against what was so."""
        for row in self.system.rows(
            "SELECT entity, reached_at, excepted FROM watermarks WHERE complete_since IS NOT NULL AND reached_at IS NOT NULL"
        ):
            seen = [claim.moment for claim in self.claims if claim.entity == row.entity]
            if row.reached_at not in seen:
                self.claims.append(self._judged(row.entity, row.reached_at, row.excepted))

    def _judged(self, entity: str, moment: datetime, count: int) -> Claim:
        excepted = {int(row.record_id) for row in self.system.rows(EXCEPTED, entity=entity)}
        unlike = set(self.journal.belied(entity, self.held()[entity], moment.timestamp()))
        uncounted = max(0, len(unlike & excepted) - count)
        return Claim(entity=entity, moment=moment, belied_by=sorted(unlike - excepted), uncounted=uncounted)

    def _tick(self) -> None:
        """What beat wakes within a minute, and now and then."""
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
    """A company that was authorised, fetched whole, and that webhooks and schedules keep in step from now on."""
    door = Door()
    with (
        manual_clock(BEGIN) as clock,
        make_system(clock=clock, webhook_session=session_for({PUBLIC_URL: door})) as system,
        installed_app(system),
    ):
        create_records(system, persons=persons, organizations=organizations)
        fields = _map_fields(system)
        journal = _journal(system, fields)
        system.pipedrive.delivery.schedule.threads = 0
        person = Person(system)
        door.web = person.web
        assert person.authorise().status_code == 200
        with transaction() as session:
            schedule.set_schedule(session, system.connector_key, "incremental", interval_s=300, next_run_at=clock.now)
        hour = Hour(
            system=system,
            clock=clock,
            person=person,
            door=door,
            team=SalesTeam(system.company, seed=seed),
            journal=journal,
        )
        clock.move(3600)
        hour.fetch_all()
        system.module("tasks.control").ensure_webhooks(system.connector_key)
        system.pipedrive.delivery.trouble = Trouble(seed=seed, lost=0.1, duplicated=0.1, delayed=1.0, delay_s=60)
        yield hour


def _map_fields(system: SyncSystem) -> dict[str, tuple[str, ...]]:
    """Map a few custom fields too; entity → the codes that are judged."""
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
    system = {"person": USER_FIELDS, "organization": ACCOUNT_FIELDS}
    return {entity: (*(code for code in system[entity] if code not in UNJUDGED), *custom[entity]) for entity in custom}


def _journal(system: SyncSystem, fields: dict[str, tuple[str, ...]]) -> Journal:
    journal = Journal(fields=fields)
    for entity in Entity:
        for record in map(json.loads, system.company.export(entity.value)):
            journal.note(entity.value, record["id"], system.company.clock(), record)

    def hear(event: Event) -> None:
        journal.note(event.entity, event.id, event.moment, event.after)

    system.company.listeners.append(hear)
    return journal
