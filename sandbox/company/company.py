"""One Pipedrive company: its users, its fields, its Persons and Organizations, and all their changes.

The HTTP server and tests use it. Records are v2 JSON; each change sends an `Event` to every listener. Every public
method takes the lock, so any thread may call it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sandbox.company.fields import ENTITIES, Entity, Field, Option, code_of, make_fields
from sandbox.company.generator import Shares, rfc3339
from sandbox.company.model import Action, Behaviour, Event, Record, Source, current_context, make_users
from sandbox.company.records import (
    Bound,
    PageQuery,
    RecordStore,
    Row,
    blank_record,
    decode,
    merged_record,
    read_seconds,
)
from sandbox.company.search import SearchIndex, SearchQuery
from sandbox.company.validation import Invalid, References, read_members

RESTORABLE_S = 30 * 86_400  # how long a deleted record can be restored
FIRST_NEW_NUMBER = 20_000


class Company:
    """A company with generated Persons and Organizations, the same for the same seed.

    `now` is the end of the generated past (default: the start, in whole seconds); `clock` returns epoch seconds for later
    events.
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
        self.fields: dict[Entity, list[Field]] = {
            entity: make_fields(seed, entity, firmographics=firmographics) for entity in ENTITIES
        }
        self._now_s = int(clock()) if now is None else int(now.timestamp())
        self._numbers = itertools.count(FIRST_NEW_NUMBER)  # ids of fields and options made later, never given twice
        self._merged: set[tuple[Entity, int]] = set()  # those merged into another, which cannot be restored
        self.store = RecordStore(
            self.fields,
            {"person": persons, "organization": organizations},
            seed=seed,
            users=tuple(user.id for user in self.users),
            now_s=self._now_s,
            shares=shares or Shares(),
            firmographics=firmographics,
        )
        self.search_index = SearchIndex(self.store.connection)

    def prebuild_bodies(self) -> None:
        """Generate every body now, so that reading one costs as little as in a system that stores its records."""
        with self.lock:
            self.store.prebuild_bodies()

    # -- reading ---------------------------------------------------------------------------------------------------

    def page(self, entity: Entity, query: PageQuery) -> tuple[list[Row], list[bytes]]:
        """Read a page: its rows (for the next keyset marker) and their bodies."""
        with self.lock:
            by_time = (
                query.sort_by == "update_time" or query.updated_since is not None or query.updated_until is not None
            )
            wanted = dataclasses.replace(
                query,
                with_deleted=self.behaviour.list_deleted,
                with_unchanged=not (by_time and self.behaviour.unchanged_unlisted),
            )
            rows = self.store.page(entity, wanted)
            return rows, self.store.bodies(entity, rows)

    def body(self, entity: Entity, record_id: int) -> bytes | None:
        """Find the body of a record that is not deleted."""
        with self.lock:
            row = self._find_listed(entity, record_id)
            return None if row is None else self.store.bodies(entity, [row])[0]

    def record(self, entity: Entity, record_id: int) -> Record | None:
        """Find a record that is not deleted."""
        body = self.body(entity, record_id)
        return None if body is None else decode(body)

    def search(self, entity: Entity, query: SearchQuery) -> list[Record]:
        """Find records by their texts, in the order of their ids."""
        with self.lock:
            self.search_index.prepare(entity, query.kinds, self)
            self.search_index.catch_up(self, before=self.clock() - self.behaviour.search_delay_s)
            found = [self.record(entity, record_id) for record_id in self.search_index.find(entity, query)]
            return [record for record in found if record is not None]

    def count(self, entity: Entity) -> int:
        """Count the records that are not deleted."""
        with self.lock:
            return self.store.count(entity)

    def export(self, entity: Entity) -> Iterator[bytes]:
        """Yield the bodies of all records by id; a record that changes while this runs appears as it is when it is read."""
        after: Bound | None = None
        while True:
            with self.lock:
                rows = self.store.page(entity, PageQuery(limit=1000, after=after))
                bodies = self.store.bodies(entity, rows)
            if not rows:
                return
            yield from bodies
            after = (rows[-1].id, rows[-1].id)

    def was_deleted(self, entity: Entity, record_id: int) -> bool:
        """Return whether a record is deleted or merged, and not purged yet."""
        with self.lock:
            row = self.store.find(entity, record_id)
            return row is not None and bool(row.is_deleted)

    # -- writing ---------------------------------------------------------------------------------------------------

    def create(self, entity: Entity, body: Mapping[str, Any], *, source: Source = "api") -> Record:
        """Create a record from a body as the API takes it. Raises: Invalid."""
        with self.lock:
            members = read_members(entity, body, self._references(entity), creating=True)
            moment = self.clock()
            now = rfc3339(int(moment)).decode()
            record = {**self._blank(entity, self.store.next_id(entity), now), **members}
            if self.behaviour.null_until_changed:
                record["update_time"] = None
            record["custom_fields"] = self._unset_custom_fields(entity) | members.get("custom_fields", {})
            self._write(entity, record, update_time=int(moment))
            self._announce("create", entity, record["id"], None, record, moment=moment, source=source)
            return record

    def edit(self, entity: Entity, record_id: int, body: Mapping[str, Any], *, source: Source = "api") -> Record | None:
        """Change some members of a record; None when it does not exist. Raises: Invalid."""
        with self.lock:
            before = self.record(entity, record_id)
            if before is None:
                return None
            members = read_members(entity, body, self._references(entity), creating=False)
            custom = members.pop("custom_fields", {})
            after = {**before, **members, "id": record_id}
            if custom:
                held = before.get("custom_fields")
                after["custom_fields"] = {**(held if isinstance(held, dict) else {}), **custom}
            if after == before and not self.behaviour.idle_update_bumps:
                return before
            return self._replace(entity, before, after, source)

    def delete(self, entity: Entity, record_id: int, *, source: Source = "api") -> bool:
        """Mark a record as deleted; False if it does not exist. The Persons of an Organization lose their link."""
        with self.lock:
            row = self._find_present(entity, record_id)
            if row is None:
                return False
            self._remove(entity, row, source)
            if entity == "organization" and self.behaviour.unlink_persons:
                for person_id in self.store.persons_of(record_id):
                    self.edit("person", person_id, {"org_id": None}, source=source)
            return True

    def merge(self, entity: Entity, loser_id: int, survivor_id: int, *, source: Source = "api") -> Record | None:
        """Merge two records: the loser is deleted; the survivor fills its empty fields from it and takes its Persons.

        None when either does not exist. Raises: Invalid when they are one.
        """
        if loser_id == survivor_id:
            raise Invalid("merge_with_id: must be another record")
        with self.lock:
            loser, survivor = self._find_present(entity, loser_id), self._find_present(entity, survivor_id)
            if loser is None or survivor is None:
                return None
            lost, kept = self.store.record(entity, loser), self.store.record(entity, survivor)
            self._remove(entity, loser, source, merged_to=survivor_id)
            self._merged.add((entity, loser_id))
            if entity == "organization":
                for person_id in self.store.persons_of(loser_id):
                    self._move(person_id, survivor_id, source)
            after = {**merged_record(kept, lost), "id": survivor_id}
            return self._replace(entity, kept, after, source, merged_from=loser_id)

    def undelete(self, entity: Entity, record_id: int, *, source: Source = "app") -> bool:
        """Restore a deleted record; False if it does not exist, was merged, or was deleted too long ago."""
        with self.lock:
            row, moment = self.store.find(entity, record_id), self.clock()
            if row is None or not row.is_deleted or (entity, record_id) in self._merged:
                return False
            if row.update_time <= moment - RESTORABLE_S:
                return False
            before = self.store.record(entity, row)
            after = {**before, "is_deleted": False, "update_time": rfc3339(int(moment)).decode()}
            self._write(entity, after, update_time=int(moment), raw=row.raw)
            action = self.behaviour.undelete_event
            if action is not None:
                past = None if action == "create" else before
                self._announce(action, entity, record_id, past, after, moment=moment, source=source)
            return True

    def purge(self) -> int:
        """Remove records that were deleted more than thirty days ago; return how many."""
        with self.lock:
            before = int(self.clock()) - RESTORABLE_S
            return sum(self.store.purge(entity, before) for entity in ENTITIES)

    def put_raw(self, entity: Entity, body: Mapping[str, Any] | bytes) -> int:
        """Store a body unchanged, valid or not, and list it like any other. Return its id.

        A mapping is written by `json.dumps`, so that NUL and lone surrogates become escapes. An id or a time that the body
        lacks or spells wrongly is made up for the columns of the store only. Raises: ValueError for anything but a JSON
        object.
        """
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        members = decode(encoded)
        if not isinstance(members, dict):
            raise ValueError("body: must be an object")  # noqa: TRY004 (one error for all that is wrong)
        with self.lock:
            record_id = members.get("id")
            if not isinstance(record_id, int) or isinstance(record_id, bool):
                record_id = self.store.next_id(entity)
            update_time = read_seconds(members.get("update_time"), int(self.clock()))
            self._write(entity, {**members, "id": record_id}, update_time=update_time, body=encoded, raw=1)
            return record_id

    def load(self, entity: Entity, record: Record) -> int:
        """Store a well-formed v2 record as history: with its own id and times if it has them, and without an event."""
        with self.lock:
            record_id = record.get("id") or self.store.next_id(entity)
            whole = {**self._blank(entity, record_id, rfc3339(self._now_s).decode()), **record, "id": record_id}
            whole["custom_fields"] = self._unset_custom_fields(entity) | dict(record.get("custom_fields") or {})
            added = read_seconds(whole["add_time"], self._now_s)
            self._write(entity, whole, update_time=read_seconds(whole["update_time"], added))
            return int(record_id)

    # Tests act like users of the app; the members are those of the API's body.

    def create_person(self, **members: Any) -> Record:
        return self.create("person", members)

    def create_organization(self, **members: Any) -> Record:
        return self.create("organization", members)

    def edit_person(self, person_id: int, **members: Any) -> Record | None:
        return self.edit("person", person_id, members, source="app")

    def edit_organization(self, organization_id: int, **members: Any) -> Record | None:
        return self.edit("organization", organization_id, members, source="app")

    def delete_person(self, person_id: int) -> bool:
        return self.delete("person", person_id, source="app")

    def delete_organization(self, organization_id: int) -> bool:
        return self.delete("organization", organization_id, source="app")

    # -- fields ----------------------------------------------------------------------------------------------------

    def custom_fields(self, entity: Entity) -> list[Field]:
        """List the custom fields of an entity. Every record has all of them, and no others."""
        return [field for field in self.fields[entity] if field.custom]

    def field(self, entity: Entity, code: str) -> Field | None:
        """Find a field by its code."""
        return next((field for field in self.fields[entity] if field.code == code), None)

    def replace_fields(self, entity: Entity, fields: list[Field]) -> None:
        """Replace all fields of an entity before anything is edited; generated records follow the new ones."""
        with self.lock:
            self.fields[entity] = fields
            self.store.use_fields()

    def add_field(self, entity: Entity, *, name: str, kind: str, labels: list[str]) -> Field:
        """Add a custom field; every record has it from now on, as null."""
        with self.lock:
            number = next(self._numbers)
            code = code_of(self.seed, entity, f"{name}:{number}")
            field = Field(id=number, code=code, name=name, type=kind, options=self._new_options(labels), custom=True)
            self.fields[entity].append(field)
            return field

    def change_field(self, entity: Entity, field: Field, **changes: Any) -> Field:
        """Rename a field or replace its options."""
        with self.lock:
            changed = dataclasses.replace(field, recorded=None, **changes)
            self.fields[entity] = [changed if known.code == field.code else known for known in self.fields[entity]]
            return changed

    def add_options(self, entity: Entity, field: Field, labels: list[str]) -> list[Option]:
        """Append options to a field; their ids were never used before."""
        with self.lock:
            added = self._new_options(labels)
            self.change_field(entity, field, options=(*field.options, *added))
            return list(added)

    def remove_field(self, entity: Entity, code: str) -> None:
        """Remove a custom field, from every record too."""
        with self.lock:
            self.fields[entity] = [field for field in self.fields[entity] if field.code != code]

    # -- helpers; the caller holds the lock ------------------------------------------------------------------------

    def _find_present(self, entity: Entity, record_id: int) -> Row | None:
        row = self.store.find(entity, record_id)
        return None if row is None or row.is_deleted else row

    def _find_listed(self, entity: Entity, record_id: int) -> Row | None:
        row = self.store.find(entity, record_id)
        return row if row is not None and (self.behaviour.list_deleted or not row.is_deleted) else None

    def _remove(self, entity: Entity, row: Row, source: Source, *, merged_to: int | None = None) -> None:
        before, moment = self.store.record(entity, row), self.clock()
        marked = {**before, "id": row.id, "is_deleted": True, "update_time": rfc3339(int(moment)).decode()}
        self._write(entity, marked, update_time=int(moment), raw=row.raw)
        self._announce("delete", entity, row.id, before, None, moment=moment, source=source, merged_to=merged_to)

    def _replace(
        self, entity: Entity, before: Record, after: Record, source: Source, *, merged_from: int | None = None
    ) -> Record:
        moment = self.clock()
        after["update_time"] = rfc3339(int(moment)).decode()
        self._write(entity, after, update_time=int(moment))
        self._announce(
            "change", entity, after["id"], before, after, moment=moment, source=source, merged_from=merged_from
        )
        return after

    def _move(self, person_id: int, organization_id: int, source: Source) -> None:
        """Link a Person to the Organization that survived."""
        if self.behaviour.move_persons_aloud:
            self.edit("person", person_id, {"org_id": organization_id}, source=source)
            return
        row = self._find_present("person", person_id)
        if row is not None:
            moved = {**self.store.record("person", row), "org_id": organization_id}
            self._write("person", moved, update_time=row.update_time, raw=row.raw)

    def _write(
        self, entity: Entity, record: Record, *, update_time: int, body: bytes | None = None, raw: int = 0
    ) -> None:
        self.store.write(entity, record, update_time=update_time, body=body, raw=raw)
        self.search_index.note(entity, record["id"], self.clock())

    def _announce(
        self, action: Action, entity: Entity, record_id: int, before: Record | None, after: Record | None, **more: Any
    ) -> None:
        event = Event(action=action, entity=entity, id=record_id, before=before, after=after, **more)
        for listener in self.listeners:
            listener(event)

    def _blank(self, entity: Entity, record_id: int, now: str) -> Record:
        owner_id = current_context().user_id or self.users[0].id
        return blank_record(entity, record_id, now, owner_id, firmographics=self.firmographics)

    def _unset_custom_fields(self, entity: Entity) -> Record:
        return {field.code: None for field in self.custom_fields(entity)}

    def _new_options(self, labels: list[str]) -> tuple[Option, ...]:
        return tuple(Option(id=next(self._numbers), label=label) for label in labels)

    def _references(self, entity: Entity) -> References:
        labels = self.field(entity, "label_ids")
        return References(
            custom_fields={field.code: field for field in self.custom_fields(entity)},
            label_ids=labels.option_ids() if labels else (),
            users={user.id for user in self.users},
            firmographics=self.firmographics,
            has_organization=lambda record_id: self._find_listed("organization", record_id) is not None,
            has_person=lambda record_id: self._find_listed("person", record_id) is not None,
        )
