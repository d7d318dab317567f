"""Find records by the value of an attribute without walking all of them.

An index is built when an attribute is first asked for and kept true from then on, so that searching 50
`pipedrive/id`s at a time stays fast among 100,000s of records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sandbox.hull.records.attributes import Changes
from sandbox.hull.records.entity import Directory, Entity


class AttributeLookup:
    """attribute name → comparable value → ids of the records holding it."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._indexes: dict[str, dict[str, set[str]]] = {}

    def holders(self, name: str, value: Any) -> set[str]:
        """Ids of the records whose attribute is, or whose list contains, the value."""
        if name not in self._indexes:
            self._indexes[name] = self._build(name)
        return self._indexes[name].get(comparable(value), set())

    def numbers(self, name: str) -> Iterator[tuple[float, set[str]]]:
        """(number, ids of the records whose attribute is that number), in no order; a walk over the index."""
        self.holders(name, None)
        for value, hull_ids in self._indexes[name].items():
            if value.removeprefix("-").replace(".", "", 1).isdecimal():
                yield float(value), hull_ids

    def note(self, entity: Entity, changes: Changes) -> None:
        for name, index in self._indexes.items():
            if name in changes:
                old, new = changes[name]
                _take(index, entity.id, old)
                _put(index, entity.id, new)

    def forget(self, entity: Entity) -> None:
        for name, index in self._indexes.items():
            _take(index, entity.id, entity.attributes.get(name))

    def _build(self, name: str) -> dict[str, set[str]]:
        index: dict[str, set[str]] = {}
        for entity in self._directory:
            _put(index, entity.id, entity.attributes.get(name))
        return index


def comparable(value: Any) -> str:
    """12, 12.0 and "12" are one search term, as they are to Hull's search index."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _items(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def _put(index: dict[str, set[str]], hull_id: str, value: Any) -> None:
    for item in _items(value):
        index.setdefault(comparable(item), set()).add(hull_id)


def _take(index: dict[str, set[str]], hull_id: str, value: Any) -> None:
    for item in _items(value):
        index.get(comparable(item), set()).discard(hull_id)
