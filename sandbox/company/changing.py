"""How a company changes: records are created, edited, put in as they are, and every change is told to the listeners."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sandbox.company import store, writes
from sandbox.company.acting import current_act
from sandbox.company.bodies import Record, blank, decode, encode, plain_integer, seconds
from sandbox.company.checks import Context
from sandbox.company.fields import Entity
from sandbox.company.generated import draws
from sandbox.company.held import Held
from sandbox.company.store import Row
from sandbox.company.words import Event, Source


class Changing(Held):
    """A company whose records are created and edited."""

    def create(self, entity: Entity, body: Mapping[str, Any], *, source: Source = "api") -> Record:
        """Create a record from a body as the API takes it. Raises: Invalid."""
        with self.lock:
            members = writes.judge(entity, body, self._context(entity), creating=True)
            moment = self.clock()
            now = draws.rfc3339(int(moment)).decode()
            record = {**self._blank(entity, store.next_id(self._store, entity), now), **members}
            if self.behaviour.null_until_changed:
                record["update_time"] = None
            record["custom_fields"] = self._blank_custom_fields(entity) | members.get("custom_fields", {})
            self._put(entity, record, update_time=int(moment))
            self._announce(
                Event(
                    action="create",
                    entity=entity,
                    id=record["id"],
                    before=None,
                    after=record,
                    moment=moment,
                    source=source,
                )
            )
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
            self._put(entity, whole, update_time=seconds(whole["update_time"], seconds(whole["add_time"], moment)))
            return int(record_id)

    def _replace(
        self, entity: Entity, before: Record, after: Record, source: Source, *, merged_from: int | None = None
    ) -> Record:
        moment = self.clock()
        after["update_time"] = draws.rfc3339(int(moment)).decode()
        self._put(entity, after, update_time=int(moment))
        self._announce(
            Event(
                action="change",
                entity=entity,
                id=after["id"],
                before=before,
                after=after,
                moment=moment,
                source=source,
                merged_from=merged_from,
            )
        )
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

    def _announce(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _blank(self, entity: Entity, record_id: int, now: str) -> Record:
        owner_id = current_act().user_id or self.users[0].id
        return blank(entity, record_id, now, owner_id, firmographics=self.firmographics)

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
