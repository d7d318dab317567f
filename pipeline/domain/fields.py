"""Pipedrive's fields: a company's field definitions, the keys and types of API v2 records, and the place of each field in them.

Version 2 describes a field by `field_code, field_name, field_type, options, is_custom_field`; version 1 by `key, name,
field_type, options`, and lists the parts of a composed field (`<hash>_currency`) as separate rows.
Sources: https://developers.pipedrive.com/docs/api/v1/openapi-v2.yaml and
https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide (Persons, Organizations, Custom Fields, Fields API)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypeGuard

from pipeline.domain.kinds import Entity
from pipeline.domain.texts import is_usable


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
    options: Mapping[int | str, str] = field(default_factory=lambda: _NO_OPTIONS)


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


ADDRESS_PARTS: Final = (
    "street_number",
    "route",
    "subpremise",
    "sublocality",
    "locality",
    "admin_area_level_1",
    "admin_area_level_2",
    "country",
    "postal_code",
    "formatted_address",
)

PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "monetary": ("currency",),
    "daterange": ("until",),
    "timerange": ("until", "timezone_id"),
    "time": ("timezone_id",),
    "address": ADDRESS_PARTS,
}
"""Field type → the parts of its value that have a code of their own, `<code>_<part>`."""

_COUNTERS: Final = (
    "open_deals_count",
    "related_open_deals_count",
    "closed_deals_count",
    "related_closed_deals_count",
    "email_messages_count",
    "activities_count",
    "done_activities_count",
    "undone_activities_count",
    "files_count",
    "notes_count",
    "followers_count",
    "won_deals_count",
    "related_won_deals_count",
    "lost_deals_count",
    "related_lost_deals_count",
)
_CONTACT_SYNC: Final = ("im", "postal_address", "notes", "birthday", "job_title")
_COMPANY_PROFILE: Final = ("website", "linkedin", "industry", "annual_revenue", "employee_count")

_OPTIONAL_OF_BOTH: Final = {
    "next_activity_id": "int",
    "last_activity_id": "int",
    "smart_bcc_email": "varchar",
    **dict.fromkeys(_COUNTERS, "int"),
}
OPTIONAL: Final[Mapping[Entity, Mapping[str, str]]] = {
    Entity.PERSON: {
        **_OPTIONAL_OF_BOTH,
        "participant_open_deals_count": "int",
        "participant_closed_deals_count": "int",
        "last_incoming_mail_time": "moment",
        "last_outgoing_mail_time": "moment",
        "marketing_status": "varchar",
        "doi_status": "plain",
    },
    Entity.ORGANIZATION: {**_OPTIONAL_OF_BOTH, "people_count": "int"},
}
"""Record key → type, for the keys that a record has only if `include_fields` requests them."""

_OF_BOTH: Final = {
    "id": "int",
    "name": "varchar",
    "owner_id": "user",
    "add_time": "moment",
    "update_time": "moment",
    "is_deleted": "boolean",
    "visible_to": "visible_to",
    "label_ids": "labels",
    "picture_id": "picture",
}
SYSTEM: Final[Mapping[Entity, Mapping[str, str]]] = {
    Entity.PERSON: {
        **_OF_BOTH,
        "first_name": "varchar",
        "last_name": "varchar",
        "org_id": "org",
        "emails": "emails",
        "phones": "phones",
        "im": "phones",
        "postal_address": "address",
        "notes": "text",
        "birthday": "date",
        "job_title": "varchar",
        **OPTIONAL[Entity.PERSON],
    },
    Entity.ORGANIZATION: {
        **_OF_BOTH,
        "address": "address",
        "website": "varchar",
        "linkedin": "varchar",
        "industry": "enum",
        "annual_revenue": "double",
        "employee_count": "int",
        **OPTIONAL[Entity.ORGANIZATION],
    },
}
"""Record key → type of the fields that every company has; the types in the definitions are less exact (`email`: varchar)."""

_WRITABLE_OF_BOTH: Final = ("name", "owner_id", "visible_to", "label_ids")
WRITABLE: Final[Mapping[Entity, frozenset[str]]] = {
    Entity.PERSON: frozenset(
        {
            *_WRITABLE_OF_BOTH,
            *("first_name", "last_name", "org_id", "emails", "phones", "marketing_status"),
            *_CONTACT_SYNC,
        }
    ),
    Entity.ORGANIZATION: frozenset({*_WRITABLE_OF_BOTH, "address", *_COMPANY_PROFILE}),
}
"""Record keys that the API accepts in a PATCH (https://developers.pipedrive.com/docs/api/v1/openapi-v2.yaml)."""

ALIASES: Final[Mapping[str, str]] = {
    "email": "emails",
    "phone": "phones",
    "ims": "im",
    "label": "label_ids",
    "cc_email": "smart_bcc_email",
}
"""Other names of record keys: codes of the field definitions, and names of the interface's first version."""

FEATURES: Final = frozenset({*_CONTACT_SYNC, *_COMPANY_PROFILE})
"""Record keys that only some companies have, depending on their plan."""


def read_field_definitions(rows: list[object]) -> list[FieldDefinition]:
    """Return every field that is in use, in Pipedrive's order.

    Deleted fields, rows of parts, and rows without a code or a type are left out: a setting that names one of these is
    reported as `field_missing` when the mapping is compiled.
    """
    found: dict[str, FieldDefinition] = {}
    for row in rows:
        definition = _read_row(row)
        if definition is not None:
            found.setdefault(definition.code, definition)
    return [definition for definition in found.values() if not _is_part(definition.code, found)]


def _read_row(row: object) -> FieldDefinition | None:
    if not isinstance(row, dict) or row.get("active_flag") is False or row.get("is_subfield") is True:
        return None
    code, kind = row.get("field_code", row.get("key")), row.get("field_type")
    if not _is_text(code) or not _is_text(kind):
        return None
    name = row.get("field_name", row.get("name"))
    return FieldDefinition(
        code=code,
        name=name if _is_text(name) else code,
        type=kind,
        is_custom=is_custom_code(code) if row.get("is_custom_field") is None else row["is_custom_field"] is True,
        options=_read_options(row.get("options")),
    )


def _read_options(rows: Any) -> dict[int | str, str]:
    """Return id → label of `[{id, label}]`; ids are numbers for custom fields, and words for some standard fields."""
    if not isinstance(rows, list):
        return {}
    options: dict[int | str, str] = {}
    for row in rows:
        if isinstance(row, dict) and type(row.get("id")) in (int, str) and _is_text(row.get("label")):
            options[row["id"]] = row["label"]
    return options


def _is_part(code: str, found: dict[str, FieldDefinition]) -> bool:
    """Return whether a row is a part, `<code>_<part>`, and not a field with a similar code."""
    for kind, parts in PARTS.items():
        for part in (*parts, "timezone_name"):
            whole = found.get(code.removesuffix(f"_{part}"))
            if whole is not None and whole.code != code and whole.type == kind:
                return True
    return False


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and is_usable(value)


UNKNOWN: Final = "unknown"
"""The type of a custom field that the definitions do not list."""

_NO_OPTIONS: Final[Mapping[int | str, str]] = MappingProxyType({})
_CUSTOM_CODE: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSource:
    """The place of a field in a record.

    code  as in the settings
    key   its key in the record, or below `custom_fields`
    type  kind of value, a key of the tables in `pipeline.transform.reading`
    part  the part of the value that is meant (`currency`, `until`, `locality`), else None
    default_currency  of an amount: the currency of one without a currency
    """

    code: str
    key: str
    type: str
    options: Mapping[int | str, str]
    is_custom: bool = False
    part: str | None = None
    default_currency: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return PARTS.get(self.type, ())

    def with_part(self, part: str) -> FieldSource:
        return replace(self, part=part)


def find_source(code: str, catalog: FieldCatalog) -> FieldSource | None:
    """Return the place of a code; None if neither Pipedrive nor this company has such a field."""
    found = _find_whole(code, catalog) or _find_part(code, catalog)
    if found is None and is_custom_code(code):
        return FieldSource(code=code, key=code, type=UNKNOWN, is_custom=True, options=_NO_OPTIONS)
    return found


def value_at(record: Any, code: str, catalog: FieldCatalog) -> Any:
    """Return the record's value of a code; None if there is no such field or no value."""
    source = find_source(code, catalog)
    if source is None or type(record) is not dict:
        return None
    place = record.get("custom_fields") if source.is_custom else record
    return place.get(source.key) if type(place) is dict else None


def is_listed(source: FieldSource, catalog: FieldCatalog) -> bool:
    """Return whether the company has this field, as far as its field definitions are known."""
    if source.type == UNKNOWN:
        return False
    return source.key not in FEATURES or _definition(source.key, catalog) is not None


def is_writable(source: FieldSource, entity: Entity) -> bool:
    """Return whether the API accepts a value for this field; it does for every custom field."""
    return source.is_custom or (source.key in WRITABLE[entity] and source.type != "negated")


def is_custom_code(code: str) -> bool:
    """Return whether a code is a custom field's (40 hex digits), and not the name of a standard field."""
    return _CUSTOM_CODE.fullmatch(code) is not None


def _find_whole(code: str, catalog: FieldCatalog) -> FieldSource | None:
    if code == "active_flag":
        return FieldSource(code=code, key="is_deleted", type="negated", options=_NO_OPTIONS)
    key = ALIASES.get(code, code)
    known = SYSTEM[catalog.entity].get(key)
    if known is not None:
        return FieldSource(code=code, key=key, type=known, options=_options(key, catalog))
    definition = catalog.find(code)
    if definition is None:
        return None
    return FieldSource(
        code=code,
        key=definition.code,
        type=definition.type,
        is_custom=definition.is_custom,
        options=definition.options,
        default_currency=catalog.default_currency if definition.type == "monetary" else None,
    )


def _definition(key: str, catalog: FieldCatalog) -> FieldDefinition | None:
    """Find the definition behind a record key, under any of the key's names."""
    names = [key, *(alias for alias, target in ALIASES.items() if target == key)]
    return next((found for name in names if (found := catalog.find(name)) is not None), None)


def _options(key: str, catalog: FieldCatalog) -> Mapping[int | str, str]:
    definition = _definition(key, catalog)
    return definition.options if definition else _NO_OPTIONS


def _find_part(code: str, catalog: FieldCatalog) -> FieldSource | None:
    for kind, parts in PARTS.items():
        for part in parts:
            if code.endswith(f"_{part}"):
                whole = _find_whole(code.removesuffix(f"_{part}"), catalog)
                if whole is not None and whole.type == kind:
                    return replace(whole, code=code, part=part)
    return None
