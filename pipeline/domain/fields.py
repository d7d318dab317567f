"""Pipedrive's field definitions: types, labels of options. Read once per connector, looked up per value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pipeline.domain.kinds import Entity

_NOTHING: Mapping[int | str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDefinition:
    """One field of Persons or Organizations.

    code     40 hex digits for a custom field, else the system code (`name`, `email`, `label_ids`, ...)
    type     Pipedrive's `field_type`
    options  option id → label, for enum, set and label fields
    """

    code: str
    name: str
    type: str
    is_custom: bool = False
    options: Mapping[int | str, str] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class FieldCatalog:
    """All fields of one entity of one Pipedrive company, by code.

    default_currency  the currency of an amount without one, as far as it is known
    """

    entity: Entity
    by_code: Mapping[str, FieldDefinition]
    default_currency: str | None = None

    @classmethod
    def of(
        cls, entity: Entity, definitions: Iterable[FieldDefinition], *, default_currency: str | None = None
    ) -> FieldCatalog:
        return cls(entity, {definition.code: definition for definition in definitions}, default_currency)

    def find(self, code: str) -> FieldDefinition | None:
        return self.by_code.get(code)
