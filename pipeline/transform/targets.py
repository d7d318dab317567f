"""Gather the mapping rows that lead to one Pipedrive field, find the value the field should have, and detect conflicting rows."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.fields import FieldCatalog, FieldSource, find_source
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import AttributeMapping, ConnectorSettings
from pipeline.transform.hull_reports import ABSENT, ID_ATTRIBUTE, attribute_name, find_attribute, is_blank
from pipeline.transform.writing import write_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One field that is written.

    attribute     path of the attribute that holds its value; None when only parts of it are mapped
    parts         part → path of the attribute that holds it
    clears        whether an empty attribute empties the field
    clears_parts  parts that an empty attribute empties
    """

    source: FieldSource
    attribute: str | None
    parts: Mapping[str, str]
    clears: bool
    clears_parts: frozenset[str]
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetValue:
    """The value to write to a field.

    is_present  Hull has a value
    parts       parts with a value in Hull
    """

    value: Any
    is_present: bool
    parts: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Draft:
    source: FieldSource
    row: AttributeMapping | None = None
    parts: dict[str, AttributeMapping] = field(default_factory=dict)


def compile_targets(rows: tuple[AttributeMapping, ...], sources: Mapping[str, FieldSource]) -> tuple[Target, ...]:
    """Group the rows by field, in the order of the settings."""
    drafts: dict[tuple[bool, str], _Draft] = {}
    for row in rows:
        source = sources.get(row.service)
        if source is None:
            continue
        draft = drafts.setdefault((source.is_custom, source.key), _Draft(source))
        if source.part is not None:
            draft.parts[source.part] = row
        else:
            draft.source, draft.row = source, row
    return tuple(_target(draft) for draft in drafts.values())


def wanted_value(
    target: Target, report: Mapping[str, Any], current: Any, delivered: Collection[str] = ()
) -> TargetValue:
    """Return the value that a field should have.

    delivered  what `part_code` names of the parts that an earlier write filled: only these are emptied
    Raises: Rejected when the attribute holds what the field cannot.
    """
    value = ABSENT if target.attribute is None else find_attribute(report, target.attribute)
    parts, held = _parts_of(target, report, delivered)
    if target.attribute is None and held:
        # Only parts are mapped: they are written around the value that is there.
        value = current.get("value") if type(current) is dict else current
        value = None if value is None and target.source.type == "address" else value
        if value is not None or target.source.type == "address":
            written = write_value(target.source, value, parts, current, form=target.form)
            return TargetValue(value=written, is_present=True, parts=held)
    if is_blank(value):
        return TargetValue(value=_emptied(target.source), is_present=False, parts=held)
    written = write_value(target.source, value, parts, current, form=target.form)
    return TargetValue(value=written, is_present=True, parts=held)


def part_code(target: Target, part: str) -> str:
    """Return the code of a part in the list of delivered fields; no field has such a code."""
    return f"{target.source.key}/{part}"


def _parts_of(
    target: Target, report: Mapping[str, Any], delivered: Collection[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return (part → value, or None to empty it; the parts with a value).

    The parts of an address are written one by one, and an empty one would erase Pipedrive's value: only parts that Hull
    filled before are emptied. The other kinds need their parts, and refuse or replace an empty one.
    """
    parts: dict[str, Any] = {}
    for part, path in target.parts.items():
        one = find_attribute(report, path)
        if not is_blank(one):
            parts[part] = one
        elif target.source.type == "address":
            if part in target.clears_parts and part_code(target, part) in delivered:
                parts[part] = None
        elif one is not ABSENT:
            parts[part] = None
    return parts, frozenset(part for part, one in parts.items() if one is not None)


def digest_reported(target: Target, report: Mapping[str, Any]) -> str:
    """Return a digest of Hull's values of a field, value and parts, as reported."""
    paths = [target.attribute, *(path for _, path in sorted(target.parts.items()))]
    found = [None if path is None else find_attribute(report, path) for path in paths]
    return _digest([None if value is ABSENT else value for value in found])


def digest_value(value: Any) -> str:
    """Return the same digest for a value of a field without parts."""
    return _digest([value])


def _digest(values: list[Any]) -> str:
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _target(draft: _Draft) -> Target:
    row = draft.row
    beside: dict[str, str] = {}
    if row is not None:
        # The names under which the incoming mapping delivers the parts of the same value.
        named = row.parts if draft.source.type == "address" else draft.source.parts
        beside = {part: f"{row.hull}_{part}" for part in named if part in draft.source.parts}
    rows = {**({} if row is None else dict.fromkeys(beside, row)), **draft.parts}
    return Target(
        source=draft.source,
        attribute=None if row is None else row.hull,
        parts={**beside, **{part: each.hull for part, each in draft.parts.items()}},
        clears=row is not None and row.on_null == "clear",
        clears_parts=frozenset(part for part, each in rows.items() if each.on_null == "clear"),
        form="default" if row is None else row.form,
    )


def _emptied(source: FieldSource) -> Any:
    """Return the value that empties a field: null, or an empty list for a list. A set refuses `[]`.

    All e-mails or phones are removed: removing only the primary one would remove another one with every repetition.
    """
    return [] if source.type in ("labels", "emails", "phones") else None


_NAME_PARTS: Final = ("first_name", "last_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A row that would be ignored: its position in its table, and the reason."""

    position: int
    column: str
    why: str


def find_conflicts(settings: ConnectorSettings, catalog: FieldCatalog, direction: Direction) -> list[Conflict]:
    """Return the rows of one table that would be ignored because of another row or setting, in the order of the table."""
    if direction is Direction.INCOMING:
        return list(_incoming(settings.incoming(catalog.entity)))
    rows = settings.outgoing(catalog.entity)
    found = [*_same_field(rows, catalog), *_names(rows, catalog), *_written_already(settings, rows, catalog)]
    return sorted(found, key=lambda each: each.position)


def _incoming(rows: Sequence[AttributeMapping]) -> Iterator[Conflict]:
    """Yield rows that fill the attribute of an earlier row, or `pipedrive/id` with another field than the id."""
    first: dict[str, int] = {}
    for position, row in enumerate(rows):
        name = attribute_name(row.hull)
        if name == ID_ATTRIBUTE and row.service != "id":
            yield Conflict(position=position, column="hull", why=f"{ID_ATTRIBUTE} always holds the id of the record")
        elif (earlier := first.setdefault(name, position)) != position:
            yield Conflict(position=position, column="hull", why=f"{_row(rows, earlier)} fills the same attribute")


def _same_field(rows: Sequence[AttributeMapping], catalog: FieldCatalog) -> Iterator[Conflict]:
    """Yield rows that write the field of an earlier row, by any of its names (`email`, `emails`); parts are separate."""
    first: dict[tuple[bool, str, str | None], int] = {}
    for position, source in _sources(rows, catalog):
        place = (source.is_custom, source.key, source.part)
        if (earlier := first.setdefault(place, position)) != position:
            yield Conflict(position=position, column="service", why=f"{_row(rows, earlier)} writes the same field")


def _names(rows: Sequence[AttributeMapping], catalog: FieldCatalog) -> Iterator[Conflict]:
    """Yield rows of first or last name besides a row of the whole name, from which Pipedrive derives them."""
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
