"""A company: its users, its fields, its Persons and Organizations, and everything that may happen to them.

In: keyword arguments (a seed, two counts, a clock). Out: bodies as v2 JSON bytes, and an `Event` to every listener for each
change. Used by the HTTP side and by tests alike; every public method takes the lock, so any thread may call it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from sandbox.company import store, writes
from sandbox.company.acting import current_act
from sandbox.company.bodies import Record, blank, decode, encode, plain_integer, reshape, seconds
from sandbox.company.catalogue import make_fields
from sandbox.company.checks import Context
from sandbox.company.fields import ENTITIES, Entity, Field
from sandbox.company.generated import draws, values
from sandbox.company.generated.draws import Facts, Shares
from sandbox.company.generated.organizations import OrganizationGenerator
from sandbox.company.generated.persons import PersonGenerator
from sandbox.company.search import SearchIndex, SearchQuery
from sandbox.company.store import PageQuery, Row
from sandbox.company.words import Action, Behaviour, Event, Source, make_users

FIRST_NEW_NUMBER = 20_000


class Company:
    """State of one Pipedrive company.

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
        self._generated_codes = {entity: [field.code for field in self.custom_fields(entity)] for entity in ENTITIES}

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
            rows = store.page(self._store, entity, dataclasses.replace(query, with_deleted=self.behaviour.list_deleted))
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
        make = self._generators[entity].body
        # The first six columns are the Facts a pristine row was stored with.
        bodies = [make(cast("Facts", row[:6])) if row.body is None else row.body for row in rows]
        codes = [field.code for field in self.custom_fields(entity)]
        if codes == self._generated_codes[entity]:
            return bodies
        return [body if row.raw else reshape(body, codes) for row, body in zip(rows, bodies, strict=True)]

    # -- changing --------------------------------------------------------------------------------------------------

    def create(self, entity: Entity, body: Mapping[str, Any], *, source: Source = "api") -> Record:
        """Create a record from a body as the API takes it. Raises: Invalid."""
        with self.lock:
            members = writes.judge(entity, body, self._context(entity), creating=True)
            moment = self.clock()
            now = draws.rfc3339(int(moment)).decode()
            record = {**self._blank(entity, store.next_id(self._store, entity), now), **members}
            record["custom_fields"] = self._blank_custom_fields(entity) | members.get("custom_fields", {})
            self._put(entity, record, update_time=int(moment))
            self._announce("create", entity, record["id"], None, record, moment, source)
            return record

    def edit(self, entity: Entity, record_id: int, body: Mapping[str, Any], *, source: Source = "api") -> Record | None:
        """Change some members of a record; None when it does not exist. Raises: Invalid."""
        with self.lock:
            before = self.record(entity, record_id)
            if before is None:
                return None
            members = writes.judge(entity, body, self._context(entity), creating=False)
            custom = members.pop("custom_fields", {})
            after = {**before, **members, "id": record_id}
            if custom:
                held = before.get("custom_fields")
                after["custom_fields"] = {**(held if isinstance(held, dict) else {}), **custom}
            if after == before and not self.behaviour.idle_update_bumps:
                return before
            return self._replace(entity, before, after, source)

    def delete(self, entity: Entity, record_id: int, *, source: Source = "api") -> bool:
        """Mark a record deleted; False when there is none. An Organization's Persons lose their link."""
        with self.lock:
            row = store.find(self._store, entity, record_id)
            if row is None or row.is_deleted:
                return False
            before = decode(self._bodies(entity, [row])[0])
            moment = self.clock()
            after = {
                **before,
                "id": record_id,
                "is_deleted": True,
                "update_time": draws.rfc3339(int(moment)).decode(),
            }
            self._put(entity, after, update_time=int(moment), raw=row.raw)
            self._announce("delete", entity, record_id, before, None, moment, source)
            if entity == "organization" and self.behaviour.unlink_persons:
                for person_id in store.members(self._store, record_id):
                    self.edit("person", person_id, {"org_id": None}, source=source)
            return True

    def create_person(self, **members: Any) -> Record:
        """Create a Person; the members are those of the API body."""
        return self.create("person", members)

    def create_organization(self, **members: Any) -> Record:
        """Create an Organization; the members are those of the API body."""
        return self.create("organization", members)

    def edit_person(self, person_id: int, **members: Any) -> Record | None:
        """Change a Person; the members are those of the API body."""
        return self.edit("person", person_id, members, source="app")

    def edit_organization(self, organization_id: int, **members: Any) -> Record | None:
        """Change an Organization; the members are those of the API body."""
        return self.edit("organization", organization_id, members, source="app")

    def delete_person(self, person_id: int) -> bool:
        """Delete a Person."""
        return self.delete("person", person_id, source="app")

    def delete_organization(self, organization_id: int) -> bool:
        """Delete an Organization."""
        return self.delete("organization", organization_id, source="app")

    def put_raw(self, entity: Entity, body: Mapping[str, Any] | bytes) -> int:
        """Store a body exactly as it is, however wrong, and list it like any other. Tells its id.

        A mapping is written by `json.dumps`, so that NUL and lone surrogates become escapes. An id or a time the body lacks
        or spells wrongly is made up for the store's own columns only.
        """
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.lock:
            members = decode(encoded)
            record_id = members.get("id")
            if not isinstance(record_id, int) or isinstance(record_id, bool):
                record_id = store.next_id(self._store, entity)
            moment = int(self.clock())
            row = Row(
                record_id,
                seconds(members.get("add_time"), moment),
                seconds(members.get("update_time"), moment),
                plain_integer(members.get("owner_id")),
                plain_integer(members.get("org_id")),
                int(members.get("is_deleted") is True),
                encoded,
                1,
            )
            store.write(self._store, entity, row)
            self._search.note(entity, record_id, self.clock())
            return record_id

    def load(self, entity: Entity, record: Record) -> int:
        """Keep a well-formed v2 record as history: with its own id and times if it has them, and without an event."""
        with self.lock:
            moment = self._now_s
            now = draws.rfc3339(moment).decode()
            record_id = record.get("id") or store.next_id(self._store, entity)
            whole = {**self._blank(entity, record_id, now), **record, "id": record_id}
            whole["custom_fields"] = self._blank_custom_fields(entity) | dict(record.get("custom_fields") or {})
            self._put(entity, whole, update_time=seconds(whole["update_time"], moment))
            return int(record_id)

    def _replace(self, entity: Entity, before: Record, after: Record, source: Source) -> Record:
        moment = self.clock()
        after["update_time"] = draws.rfc3339(int(moment)).decode()
        self._put(entity, after, update_time=int(moment))
        self._announce("change", entity, after["id"], before, after, moment, source)
        return after

    def _put(self, entity: Entity, record: Record, *, update_time: int, raw: int = 0) -> None:
        row = Row(
            record["id"],
            seconds(record.get("add_time"), update_time),
            update_time,
            plain_integer(record.get("owner_id")),
            plain_integer(record.get("org_id")),
            int(record.get("is_deleted") is True),
            encode(record),
            raw,
        )
        store.write(self._store, entity, row)
        self._search.note(entity, row.id, self.clock())

    def _announce(
        self,
        action: Action,
        entity: Entity,
        record_id: int,
        before: Record | None,
        after: Record | None,
        moment: float,
        source: Source,
    ) -> None:
        event = Event(
            action=action,
            entity=entity,
            id=record_id,
            before=before,
            after=after,
            moment=moment,
            source=source,
            act=current_act(),
        )
        for listener in self.listeners:
            listener(event)

    def _blank(self, entity: Entity, record_id: int, now: str) -> Record:
        return blank(entity, record_id, now, self.users[0].id, firmographics=self.firmographics)

    def _blank_custom_fields(self, entity: Entity) -> Record:
        return {field.code: None for field in self.custom_fields(entity)}

    def _context(self, entity: Entity) -> Context:
        labels = next((field for field in self.fields[entity] if field.code == "label_ids"), None)
        return Context(
            custom_fields={field.code: field for field in self.custom_fields(entity)},
            label_ids=labels.option_ids() if labels else (),
            users={user.id for user in self.users},
            firmographics=self.firmographics,
            has_organization=lambda record_id: self._live("organization", record_id) is not None,
            has_person=lambda record_id: self._live("person", record_id) is not None,
        )

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
