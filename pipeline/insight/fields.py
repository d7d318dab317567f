"""Pipedrive's fields as choices, by name, custom fields separately. From stored definitions, without a call."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from db import connector as connectors
from pipeline.domain.fields import FieldCatalog, find_source, is_listed, is_writable, read_field_definitions
from pipeline.domain.kinds import Entity
from pipeline.insight.conversion_words import type_words


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChoice:
    """A field that may be mapped. `options` are the labels of one that has any."""

    code: str
    name: str
    type: str
    kind: str
    """Pipedrive's own word for the type."""
    is_custom: bool
    is_writable: bool
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The fields of one entity. `read_at` is when they were last read from Pipedrive, None if never."""

    entity: Entity
    catalog: FieldCatalog
    choices: tuple[FieldChoice, ...]
    read_at: datetime | None

    @property
    def writable(self) -> tuple[FieldChoice, ...]:
        return tuple(each for each in self.choices if each.is_writable)


def fields_of(session: Session, connector_key: int, entity: Entity) -> Fields:
    """Return the fields as last read from Pipedrive."""
    known = connectors.find_fields(session, connector_key, entity)
    catalog = FieldCatalog.of(
        entity,
        read_field_definitions(known.rows if known else []),
        default_currency=connectors.default_currency(session, connector_key),
    )
    return Fields(
        entity=entity, catalog=catalog, choices=choices_of(catalog), read_at=known.fetched_at if known else None
    )


def choices_of(catalog: FieldCatalog) -> tuple[FieldChoice, ...]:
    """Every field that can be read, in Pipedrive's order."""
    return tuple(
        FieldChoice(
            code=each.code,
            name=each.name,
            type=type_words(source),
            kind=source.type,
            is_custom=each.is_custom,
            is_writable=is_writable(source, catalog.entity),
            options=tuple(each.options.values()),
        )
        for each in catalog.by_code.values()
        if (source := find_source(each.code, catalog)) is not None and is_listed(source, catalog)
    )
