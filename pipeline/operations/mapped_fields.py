"""Mapped fields: which attribute of Hull is which field of Pipedrive, with the values of both in one format.

Both sides are converted as for Hull (labels instead of option ids, the primary e-mail), so that people can compare them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from db.sync_event import SyncEvent
from pipeline.domain.fields import FieldSource, find_source
from pipeline.domain.kinds import Direction
from pipeline.errors import Rejected
from pipeline.operations.events import labels_of, values_of
from pipeline.operations.models import Shape
from pipeline.sync.compiled import CompiledSettings
from pipeline.transform.hull_reports import ABSENT, ID_ATTRIBUTE, attribute_name, find_attribute
from pipeline.transform.reading import NOT_SENT, Reader, reader_for

_NAME_PARTS: Final = ("first_name", "last_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedField:
    """One attribute and one field, mapped in one direction or in both.

    name   its name in requests: the attribute, followed by the field's code if one attribute has two fields
    label  the field's name in Pipedrive
    code   as in the settings
    key    of the field in a record, below `custom_fields` for a custom one
    owner  owner of an outgoing field
    returns_as  attributes with the field's value in Hull
    """

    name: str
    attribute: str
    label: str
    code: str
    key: str
    type: str
    is_custom: bool = False
    incoming: bool = False
    outgoing: bool = False
    owner: str | None = None
    returns_as: tuple[str, ...] = ()
    reader: Reader | None = field(default=None, repr=False, compare=False)

    @property
    def arrow(self) -> str:
        return "↔" if self.incoming and self.outgoing else "→" if self.outgoing else "←"

    def in_pipedrive(self, record: Mapping[str, Any] | None) -> Any:
        """Return the value in a record of Pipedrive, as for Hull; None without a value."""
        custom = (record or {}).get("custom_fields")
        holder = (custom if isinstance(custom, dict) else {}) if self.is_custom else (record or {})
        return self.read(holder.get(self.key))

    def in_report(self, report: Mapping[str, Any] | None) -> Any:
        """Return the value in a report of Hull; None without a value."""
        found = find_attribute(report, self.attribute) if report else ABSENT
        return None if found is ABSENT else found

    def written(self, fields: Mapping[str, Any]) -> Any:
        """Return the value in a write, as for Hull; ABSENT if it does not contain the field."""
        custom = fields.get("custom_fields")
        flat = {**fields, **custom} if isinstance(custom, dict) else fields
        if self.key in flat:
            return self.read(flat[self.key])
        if self.key == "name" and any(part in flat for part in _NAME_PARTS):
            return " ".join(str(flat[part]) for part in _NAME_PARTS if flat.get(part))
        return ABSENT

    def read(self, raw: Any) -> Any:
        """Return a value of Pipedrive as for Hull, or unchanged if it cannot be read."""
        if raw is None or self.reader is None:
            return raw
        try:
            found = self.reader(raw)
        except Rejected:
            return raw
        return None if found is NOT_SENT else found


class FieldShape(Shape):
    """A mapped field. `owner` wins conflicts of an outgoing field; `arrow` shows its directions."""

    name: str
    attribute: str
    label: str
    code: str
    key: str
    type: str
    is_custom: bool
    incoming: bool
    outgoing: bool
    owner: str | None
    arrow: str


def mapped_fields(plan: CompiledSettings) -> tuple[MappedField, ...]:
    """Return every mapped field in the order of the settings, the id first."""
    found = {(ID_ATTRIBUTE, "id"): _id_field()}
    for is_custom, (attribute, code, key, reader, _, _) in plan.incoming.columns:
        source = find_source(code, plan.catalog)
        kind = source.type if source else ""
        found[attribute, key] = MappedField(
            name=attribute,
            attribute=attribute,
            label=_label(plan, code, key),
            code=code,
            key=key,
            type=kind,
            is_custom=is_custom,
            incoming=True,
            reader=reader,
        )
    for row in plan.settings.outgoing(plan.catalog.entity):
        source = find_source(row.service, plan.catalog)
        if source is None:
            continue
        attribute = attribute_name(row.hull)
        known = found.get((attribute, source.key)) or _outgoing(plan, attribute, source, row.form)
        owner = plan.outgoing.owners.get(source.key, "hull")
        found[attribute, source.key] = replace(known, outgoing=True, owner=owner)
    return _named(_in_order(found.values(), plan))


def find_field(fields: Iterable[MappedField], wanted: str) -> MappedField:
    """Return the field with this name, attribute, code or label; else a field that is not mapped, with `wanted` as attribute."""
    known = list(fields)
    for matches in (
        lambda each: each.name == wanted,
        lambda each: each.attribute == attribute_name(wanted),
        lambda each: wanted in (each.code, each.key),
        lambda each: each.label.casefold() == wanted.casefold(),
    ):
        found = next(filter(matches, known), None)
        if found is not None:
            return found
    return MappedField(name=wanted, attribute=attribute_name(wanted), label="", code=wanted, key=wanted, type="")


def value_in(row: SyncEvent, field: MappedField) -> Any:
    """Return the value that a successful event wrote, as for Hull; ABSENT if it did not write the field."""
    if not row.event.endswith(".success") or row.after is None:
        return ABSENT
    return value_of(row, field, row.after)


def value_of(row: SyncEvent, field: MappedField, body: bytes | None) -> Any:
    """Return the value in `body`, the `before` or `after` of an event of any outcome."""
    values = values_of(body)
    if row.event.startswith(Direction.OUTGOING):
        is_ours = field.outgoing or not field.incoming
        return field.written(values) if is_ours else ABSENT
    return values.get(field.attribute, ABSENT)


def is_about_rejected(row: SyncEvent, field: MappedField) -> bool:
    """Return whether an event names the field as left out, in a direction of its mapping; an event can name several fields."""
    is_outgoing = row.event.startswith(Direction.OUTGOING)
    is_ours, is_other = (field.outgoing, field.incoming) if is_outgoing else (field.incoming, field.outgoing)
    if is_other and not is_ours:
        return False
    if row.field is not None:
        return bool({field.code, field.key} & set(row.field.split(", ")))
    return (row.detail or "").startswith((f"{field.code}: ", f"{field.key}: "))


def _label(plan: CompiledSettings, code: str, key: str) -> str:
    names = labels_of(plan)
    return names.get(code) or names.get(key) or code


def _outgoing(plan: CompiledSettings, attribute: str, source: FieldSource, form: str) -> MappedField:
    return MappedField(
        name=attribute,
        attribute=attribute,
        label=_label(plan, source.code, source.key),
        code=source.code,
        key=source.key,
        type=source.type,
        is_custom=source.is_custom,
        reader=reader_for(source, form),
    )


def _id_field() -> MappedField:
    return MappedField(
        name=ID_ATTRIBUTE, attribute=ID_ATTRIBUTE, label="ID", code="id", key="id", type="int", incoming=True
    )


def _in_order(fields: Iterable[MappedField], plan: CompiledSettings) -> list[MappedField]:
    """Return the fields in the order of the settings, the id first."""
    entity = plan.catalog.entity
    rows = [attribute_name(row.hull) for row in (*plan.settings.incoming(entity), *plan.settings.outgoing(entity))]
    places = {name: place for place, name in reversed(list(enumerate(rows)))}

    def place(each: MappedField) -> int:
        if each.attribute == ID_ATTRIBUTE:
            return -1
        parents = (places[name] for name in places if each.attribute.startswith(f"{name}_"))
        return places[each.attribute] if each.attribute in places else min(parents, default=len(places))

    return sorted(fields, key=place)


def _named(fields: list[MappedField]) -> tuple[MappedField, ...]:
    counts = [each.attribute for each in fields]
    returned: dict[str, list[str]] = {}
    for each in fields:
        returned.setdefault(each.key, []).extend([each.attribute] if each.incoming else [])
    return tuple(
        replace(
            each,
            name=f"{each.attribute}~{each.code}" if counts.count(each.attribute) > 1 else each.attribute,
            returns_as=tuple(returned[each.key]),
        )
        for each in fields
    )
