"""Change the fields of a company: custom fields come and go, options are added, renamed and dropped.

Records follow at once: their `custom_fields` always hold all custom fields there are, and no others.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sandbox.company.catalogue import code_of
from sandbox.company.fields import Entity, Field, Option

if TYPE_CHECKING:
    from sandbox.company.company import Company


def add_field(company: Company, entity: Entity, *, name: str, kind: str, labels: list[str]) -> Field:
    """Define a custom field; every record has it at once, as null."""
    with company.lock:
        number = next(company.numbers)
        code = code_of(company.seed, entity, f"{name}:{number}")
        field = Field(id=number, code=code, name=name, type=kind, options=_new_options(company, labels), custom=True)
        company.fields[entity].append(field)
        return field


def change_field(company: Company, entity: Entity, field: Field, **changes: Any) -> Field:
    """Rename a field or replace its options."""
    with company.lock:
        changed = dataclasses.replace(field, recorded=None, **changes)
        company.fields[entity] = [changed if known.code == field.code else known for known in company.fields[entity]]
        return changed


def add_options(company: Company, entity: Entity, field: Field, labels: list[str]) -> list[Option]:
    """Append options to a field; their ids were never used before."""
    with company.lock:
        added = _new_options(company, labels)
        change_field(company, entity, field, options=(*field.options, *added))
        return list(added)


def remove_field(company: Company, entity: Entity, code: str) -> None:
    """Drop a custom field; it disappears from every record too."""
    with company.lock:
        company.fields[entity] = [field for field in company.fields[entity] if field.code != code]


def _new_options(company: Company, labels: list[str]) -> tuple[Option, ...]:
    return tuple(Option(id=next(company.numbers), label=label) for label in labels)
