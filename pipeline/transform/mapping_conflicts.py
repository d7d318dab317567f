"""Finds rows of a mapping that cannot all be carried out: two that lead to one field or to one attribute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.domain.fields import FieldCatalog
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import AttributeMapping, ConnectorSettings
from pipeline.transform.field_definitions import FieldSource, find_source
from pipeline.transform.hull_reports import attribute_name
from pipeline.transform.incoming import ID_ATTRIBUTE

_NAME_PARTS: Final = ("first_name", "last_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A row that would be ignored, by its place in its table, and why."""

    position: int
    column: str
    why: str


def find_conflicts(settings: ConnectorSettings, catalog: FieldCatalog, direction: Direction) -> list[Conflict]:
    """List the rows of one table that another row or setting would make void, in the order of the table."""
    if direction is Direction.INCOMING:
        return list(_incoming(settings.incoming(catalog.entity)))
    rows = settings.outgoing(catalog.entity)
    found = [*_same_field(rows, catalog), *_names(rows, catalog), *_written_already(settings, rows, catalog)]
    return sorted(found, key=lambda each: each.position)


def _incoming(rows: Sequence[AttributeMapping]) -> Iterator[Conflict]:
    """Each attribute is filled by one row, and `pipedrive/id` by the id alone."""
    first: dict[str, int] = {}
    for position, row in enumerate(rows):
        name = attribute_name(row.hull)
        if name == ID_ATTRIBUTE and row.service != "id":
            yield Conflict(position=position, column="hull", why=f"{ID_ATTRIBUTE} always holds the id of the record")
        elif (earlier := first.setdefault(name, position)) != position:
            yield Conflict(position=position, column="hull", why=f"{_row(rows, earlier)} fills the same attribute")


def _same_field(rows: Sequence[AttributeMapping], catalog: FieldCatalog) -> Iterator[Conflict]:
    """One field has several names, `email` and `emails`; a row of one of its parts is another thing."""
    first: dict[tuple[bool, str, str | None], int] = {}
    for position, source in _sources(rows, catalog):
        place = (source.is_custom, source.key, source.part)
        if (earlier := first.setdefault(place, position)) != position:
            yield Conflict(position=position, column="service", why=f"{_row(rows, earlier)} writes the same field")


def _names(rows: Sequence[AttributeMapping], catalog: FieldCatalog) -> Iterator[Conflict]:
    """Pipedrive makes a Person's name of its two parts, or the parts of the name."""
    if catalog.entity is not Entity.PERSON:
        return
    places = {source.key: position for position, source in _sources(rows, catalog) if not source.is_custom}
    if "name" in places:
        for part in _NAME_PARTS:
            if part in places:
                why = (
                    f"{_row(rows, places['name'])} writes the whole name; map either name, or first_name and last_name"
                )
                yield Conflict(position=places[part], column="service", why=why)


def _written_already(
    settings: ConnectorSettings, rows: Sequence[AttributeMapping], catalog: FieldCatalog
) -> Iterator[Conflict]:
    entity = catalog.entity
    prefix = "user" if entity is Entity.PERSON else "account"
    for position, source in _sources(rows, catalog):
        if source.is_custom and source.key == settings.sync_key(entity):
            yield Conflict(
                position=position, column="service", why=f"{prefix}_sync_key keeps the Hull id in this field"
            )
        elif entity is Entity.PERSON and settings.link_users_in_service and source.key == "org_id":
            why = "link_users_in_service writes the Organization of the User's Account into this field"
            yield Conflict(position=position, column="service", why=why)


def _sources(rows: Sequence[AttributeMapping], catalog: FieldCatalog) -> Iterator[tuple[int, FieldSource]]:
    for position, row in enumerate(rows):
        source = find_source(row.service, catalog)
        if source is not None:
            yield position, source


def _row(rows: Sequence[AttributeMapping], position: int) -> str:
    return f"the row of {rows[position].hull} and {rows[position].service}"
