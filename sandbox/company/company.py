"""A company: its users, its fields, its Persons and Organizations, and everything that may happen to them.

In: keyword arguments (a seed, two counts, a clock). Out: bodies as v2 JSON bytes, and an `Event` to every listener for each
change. Used by the HTTP side and by tests alike; every public method takes the lock, so any thread may call it.
"""

from __future__ import annotations

from typing import Any

from sandbox.company import store
from sandbox.company.bodies import Record, completed, decode
from sandbox.company.changing import Changing
from sandbox.company.checks import Invalid
from sandbox.company.fields import ENTITIES, Entity
from sandbox.company.generated import draws
from sandbox.company.store import Row
from sandbox.company.words import Event, Source

KEPT_S = 30 * 86_400  # how long a deleted record can be brought back


class Company(Changing):
    """One Pipedrive company, whose records also leave: deleted, merged, brought back, and gone for good."""

    def delete(self, entity: Entity, record_id: int, *, source: Source = "api") -> bool:
        """Mark a record deleted; False when there is none. An Organization's Persons lose their link."""
        with self.lock:
            row = self._present(entity, record_id)
            if row is None:
                return False
            self._remove(entity, row, source)
            if entity == "organization" and self.behaviour.unlink_persons:
                for person_id in store.members(self._store, record_id):
                    self.edit("person", person_id, {"org_id": None}, source=source)
            return True

    def merge(self, entity: Entity, loser_id: int, survivor_id: int, *, source: Source = "api") -> Record | None:
        """Merge two records: the loser goes, the survivor wins and takes what it lacks, and the loser's Persons.

        None when either does not exist. Raises: Invalid when they are one.
        """
        if loser_id == survivor_id:
            raise Invalid("merge_with_id: must be another record")
        with self.lock:
            loser, survivor = self._present(entity, loser_id), self._present(entity, survivor_id)
            if loser is None or survivor is None:
                return None
            lost, kept = (decode(body) for body in self._bodies(entity, [loser, survivor]))
            self._remove(entity, loser, source, merged_to=survivor_id)
            self._merged.add((entity, loser_id))
            if entity == "organization":
                for person_id in store.members(self._store, loser_id):
                    self._move(person_id, survivor_id, source)
            after = {**completed(kept, lost), "id": survivor_id}
            return self._replace(entity, kept, after, source, merged_from=loser_id)

    def undelete(self, entity: Entity, record_id: int, *, source: Source = "app") -> bool:
        """Bring a deleted record back; False when there is none, it was merged, or it was deleted too long ago."""
        with self.lock:
            row, moment = store.find(self._store, entity, record_id), self.clock()
            if row is None or not row.is_deleted or (entity, record_id) in self._merged:
                return False
            if row.update_time <= moment - KEPT_S:
                return False
            before = decode(self._bodies(entity, [row])[0])
            after = {**before, "is_deleted": False, "update_time": draws.rfc3339(int(moment)).decode()}
            self._put(entity, after, update_time=int(moment), raw=row.raw)
            action = self.behaviour.undelete_event
            if action is not None:
                past = None if action == "create" else before
                self._announce(
                    Event(
                        action=action,
                        entity=entity,
                        id=record_id,
                        before=past,
                        after=after,
                        moment=moment,
                        source=source,
                    )
                )
            return True

    def purge(self) -> int:
        """Forget for good what was deleted more than thirty days ago; tells how many records."""
        with self.lock:
            before = int(self.clock()) - KEPT_S
            return sum(store.purge(self._store, entity, before) for entity in ENTITIES)

    def was_there(self, entity: Entity, record_id: int) -> bool:
        """Tell whether a record is deleted or merged, and not forgotten yet."""
        with self.lock:
            row = store.find(self._store, entity, record_id)
            return row is not None and bool(row.is_deleted)

    def _present(self, entity: Entity, record_id: int) -> Row | None:
        row = store.find(self._store, entity, record_id)
        return None if row is None or row.is_deleted else row

    def _remove(self, entity: Entity, row: Row, source: Source, *, merged_to: int | None = None) -> None:
        before = decode(self._bodies(entity, [row])[0])
        moment = self.clock()
        now = draws.rfc3339(int(moment)).decode()
        self._put(
            entity,
            {**before, "id": row.id, "is_deleted": True, "update_time": now},
            update_time=int(moment),
            raw=row.raw,
        )
        self._announce(
            Event(
                action="delete",
                entity=entity,
                id=row.id,
                before=before,
                after=None,
                moment=moment,
                source=source,
                merged_to=merged_to,
            )
        )

    def _move(self, person_id: int, organization_id: int, source: Source) -> None:
        """Link a Person to the Organization that stayed."""
        if self.behaviour.move_persons_aloud:
            self.edit("person", person_id, {"org_id": organization_id}, source=source)
            return
        row = self._present("person", person_id)
        if row is not None:
            moved = {**decode(self._bodies("person", [row])[0]), "org_id": organization_id}
            self._put("person", moved, update_time=row.update_time, raw=row.raw)

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
