"""What a company holds: its users, its fields, its Persons and Organizations, and how they are read.

In: keyword arguments (a seed, two counts, a clock). Out: bodies as v2 JSON bytes. A record that was never touched is generated
when it is read.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, cast

from sandbox.company import store
from sandbox.company.bodies import Record, decode, reshape
from sandbox.company.catalogue import make_fields
from sandbox.company.fields import ENTITIES, Entity, Field
from sandbox.company.generated import values
from sandbox.company.generated.draws import Facts, Shares
from sandbox.company.generated.organizations import OrganizationGenerator
from sandbox.company.generated.persons import PersonGenerator
from sandbox.company.search import SearchIndex, SearchQuery
from sandbox.company.store import PageQuery, Row
from sandbox.company.words import Behaviour, Event, make_users

FIRST_NEW_NUMBER = 20_000


class Held:
    """State of one Pipedrive company, as it is read.

    `now` is the moment the generated past ends (default: the start, whole seconds); `clock` gives epoch seconds for what
    happens after.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        persons: int = 1000,
        organizations: int = 200,
        now: datetime | None = None,
        clock: Callable[[], float] = time.time,
        firmographics: bool = True,
        shares: Shares | None = None,
    ) -> None:
        self.seed = seed
        self.clock = clock
        self.firmographics = firmographics
        self.behaviour = Behaviour()
        self.lock = threading.RLock()
        self.listeners: list[Callable[[Event], None]] = []
        self.id = 8_000_000 + seed
        self.name = "Harborlight Trading"
        self.domain = f"harborlight-{seed}"
        self.users = make_users(seed)
        self.numbers = itertools.count(FIRST_NEW_NUMBER)  # ids of fields and options made later, never given twice
        self.fields: dict[Entity, list[Field]] = {
            entity: make_fields(seed, entity, firmographics=firmographics) for entity in ENTITIES
        }
        self._now_s = int(clock()) if now is None else int(now.timestamp())
        self._counts: dict[Entity, int] = {"person": persons, "organization": organizations}
        self._shares = shares or Shares()
        self._merged: set[tuple[Entity, int]] = set()  # those that went into another and cannot come back
        self._store = store.open_store()
        self._search = SearchIndex(self._store)
        self._fill()

    def _fill(self) -> None:
        self._build_generators()
        for entity in reversed(ENTITIES):
            generator = self._generators[entity]
            facts = map(generator.facts, range(1, self._counts[entity] + 1))
            store.fill(self._store, entity, self._noting_gone(facts) if entity == "organization" else facts)

    def _noting_gone(self, organizations: Iterable[Facts]) -> Iterator[Facts]:
        for facts in organizations:
            if facts.is_deleted:
                self._gone.add(facts.id)
            yield facts

    def _build_generators(self) -> None:
        self._gone: set[int] = set()
        users = tuple(user.id for user in self.users)
        ids = values.Range(persons=self._counts["person"], organizations=self._counts["organization"], users=users)
        shared: dict[str, Any] = {"seed": self.seed, "ids": ids, "shares": self._shares, "now_s": self._now_s}
        self._generators: dict[Entity, PersonGenerator | OrganizationGenerator] = {
            "person": PersonGenerator(fields=self.fields["person"], gone=self._gone, **shared),
            "organization": OrganizationGenerator(
                fields=self.fields["organization"], firmographics=self.firmographics, **shared
            ),
        }
        self._ready: dict[Entity, dict[tuple[Any, ...], bytes]] = {entity: {} for entity in ENTITIES}
        self._generated_codes = {entity: [field.code for field in self.custom_fields(entity)] for entity in ENTITIES}

    def make_ready(self) -> None:
        """Write every body down now, so that reading one costs what it costs a system that has its records: little."""
        with self.lock:
            for entity in ENTITIES:
                rows = store.page(self._store, entity, PageQuery(limit=self._counts[entity] + 1))
                ready = dict(zip((row[:6] for row in rows), self._bodies(entity, rows), strict=True))
                self._ready[entity] = ready

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def person_fields(self) -> list[Field]:
        """All fields of Persons, system fields first."""
        return self.fields["person"]

    @property
    def organization_fields(self) -> list[Field]:
        """All fields of Organizations, system fields first."""
        return self.fields["organization"]

    def custom_fields(self, entity: Entity) -> list[Field]:
        """List the custom fields of an entity, as they stand now."""
        return [field for field in self.fields[entity] if field.custom]

    def page(self, entity: Entity, query: PageQuery) -> tuple[list[Row], list[bytes]]:
        """Read a page: its rows (for the next keyset marker) and their bodies."""
        with self.lock:
            by_time = (
                query.sort_by == "update_time" or query.updated_since is not None or query.updated_until is not None
            )
            asked = dataclasses.replace(
                query,
                with_deleted=self.behaviour.list_deleted,
                with_unchanged=not (by_time and self.behaviour.unchanged_unlisted),
            )
            rows = store.page(self._store, entity, asked)
            return rows, self._bodies(entity, rows)

    def body(self, entity: Entity, record_id: int) -> bytes | None:
        """Find one live record's body."""
        with self.lock:
            row = self._live(entity, record_id)
            return None if row is None else self._bodies(entity, [row])[0]

    def record(self, entity: Entity, record_id: int) -> Record | None:
        """Find one live record, decoded."""
        body = self.body(entity, record_id)
        return None if body is None else decode(body)

    def search(self, entity: Entity, query: SearchQuery) -> list[Record]:
        """Find live records by their texts, in the order of their ids."""
        with self.lock:
            self._search.prepare(entity, query.kinds, self)
            self._search.catch_up(self, before=self.clock() - self.behaviour.search_delay_s)
            found = [self.record(entity, record_id) for record_id in self._search.find(entity, query)]
            return [record for record in found if record is not None]

    def count(self, entity: Entity) -> int:
        """Count the live records."""
        with self.lock:
            return store.count(self._store, entity)

    def export(self, entity: Entity) -> Iterator[bytes]:
        """Walk the bodies of all live records by id; a record changed meanwhile appears as it is when passed."""
        after: store.Bound | None = None
        while True:
            with self.lock:
                rows = store.page(self._store, entity, PageQuery(limit=1000, after=after))
                bodies = self._bodies(entity, rows)
            if not rows:
                return
            yield from bodies
            after = (rows[-1].id, rows[-1].id)

    def _live(self, entity: Entity, record_id: int) -> Row | None:
        row = store.find(self._store, entity, record_id)
        return row if row is not None and (self.behaviour.list_deleted or not row.is_deleted) else None

    def _bodies(self, entity: Entity, rows: Iterable[Row]) -> list[bytes]:
        make, ready = self._generators[entity].body, self._ready[entity]
        # The first six columns are the Facts a pristine row was stored with.
        bodies = [row.body or ready.get(row[:6]) or make(cast("Facts", row[:6])) for row in rows]
        codes = [field.code for field in self.custom_fields(entity)]
        if codes == self._generated_codes[entity]:
            return bodies
        return [body if row.raw else reshape(body, codes) for row, body in zip(rows, bodies, strict=True)]

    # -- fields ----------------------------------------------------------------------------------------------------

    def define(self, entity: Entity, definitions: list[Field]) -> None:
        """Replace the fields of an entity before anything is edited; generated records follow the new definitions."""
        with self.lock:
            self.fields[entity] = definitions
            gone = self._gone
            self._build_generators()
            self._gone |= gone

    def field(self, entity: Entity, code: str) -> Field | None:
        """Find a field by its code."""
        return next((field for field in self.fields[entity] if field.code == code), None)
