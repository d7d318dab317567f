"""One User or Account as Hull holds it, and all of one kind with their identity indexes.

Plain dictionaries in memory: 100,000s of records fit, and a look-up costs a fraction of a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["user", "account"]
Attributes = dict[str, Any]

#: the claim that names a person or company in the world, between external_id and anonymous_id in precedence
NATURAL_CLAIM: dict[Kind, str] = {"user": "email", "account": "domain"}
_ID_PREFIX: dict[Kind, str] = {"user": "5ee10000", "account": "5ee20000"}


@dataclass(slots=True, eq=False)
class Entity:
    """`natural` is the User's e-mail or the Account's domain; times are Unix seconds."""

    kind: Kind
    id: str
    created_at: float
    updated_at: float
    external_id: str | None = None
    natural: str | None = None
    account_id: str | None = None
    anonymous_ids: list[str] = field(default_factory=list)
    attributes: Attributes = field(default_factory=dict)
    events: dict[str, dict[str, Any]] | None = None


class Directory:
    """Every Entity of one kind. Keeps the indexes true; knows nothing of precedence or merging."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.by_id: dict[str, Entity] = {}
        self.by_external: dict[str, Entity] = {}
        self.by_anonymous: dict[str, Entity] = {}
        self.merged_into: dict[str, str] = {}
        self._by_natural: dict[str, Entity | list[Entity]] = {}
        self._created = 0

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Entity]:
        """In order of id, which is the order of creation."""
        return iter(self.by_id.values())

    def find(self, hull_id: str) -> Entity | None:
        """By Hull id; the id of a merged record leads to the one it was merged into."""
        while hull_id in self.merged_into:
            hull_id = self.merged_into[hull_id]
        return self.by_id.get(hull_id)

    def holders(self, natural: str) -> Iterable[Entity]:
        """Records with this e-mail or domain, oldest first. Several only if their external_ids differ."""
        found = self._by_natural.get(natural)
        if found is None:
            return ()
        return found if isinstance(found, list) else (found,)

    def create(self, now: float) -> Entity:
        self._created += 1
        entity = Entity(self.kind, f"{_ID_PREFIX[self.kind]}{self._created:016x}", now, now)
        self.by_id[entity.id] = entity
        return entity

    def remove(self, entity: Entity) -> None:
        del self.by_id[entity.id]
        self.set_natural(entity, None)
        if entity.external_id is not None:
            del self.by_external[entity.external_id]
        for anonymous_id in entity.anonymous_ids:
            del self.by_anonymous[anonymous_id]

    def set_external(self, entity: Entity, external_id: str) -> None:
        self.by_external[external_id] = entity
        entity.external_id = external_id

    def set_natural(self, entity: Entity, natural: str | None) -> None:
        if entity.natural is not None:
            self._release_natural(entity, entity.natural)
        entity.natural = natural
        if natural is not None:
            others = list(self.holders(natural))
            self._by_natural[natural] = [*others, entity] if others else entity

    def add_anonymous(self, entity: Entity, anonymous_id: str) -> None:
        self.by_anonymous[anonymous_id] = entity
        entity.anonymous_ids.append(anonymous_id)

    def remove_anonymous(self, entity: Entity, anonymous_id: str) -> None:
        del self.by_anonymous[anonymous_id]
        entity.anonymous_ids.remove(anonymous_id)

    def _release_natural(self, entity: Entity, natural: str) -> None:
        rest = [other for other in self.holders(natural) if other is not entity]
        if rest:
            self._by_natural[natural] = rest if len(rest) > 1 else rest[0]
        else:
            del self._by_natural[natural]
