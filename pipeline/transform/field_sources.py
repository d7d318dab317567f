"""Finds where in a record a field of the settings stands, and what kind of value stands there.

A setting may name a field by its code in the field definitions (`email`), by its key in the record (`emails`), or as
the connector being replaced did (`label`, `active_flag`, `address_country`, `<hash>_currency`): all lead to one place.
Codes and keys differ, see https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide (Persons, Organizations).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from pipeline.domain.fields import FieldCatalog, FieldDefinition
from pipeline.domain.kinds import Entity

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
"""Field type → the parts of its value that can be named on their own, as `<code>_<part>`."""

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
"""Record key → type, for the keys a record carries only when `include_fields` asks for them."""

_OF_BOTH: Final = {
    "id": "int",
    "name": "varchar",
    "owner_id": "user",
    "add_time": "moment",
    "update_time": "moment",
    "is_deleted": "boolean",
    "visible_to": "int",
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
"""Record key → type of the fields every company has; the definitions' own types are coarser here (`email`: varchar)."""

ALIASES: Final[Mapping[str, str]] = {
    "email": "emails",
    "phone": "phones",
    "ims": "im",
    "label": "label_ids",
    "cc_email": "smart_bcc_email",
}
"""Other names of record keys: codes of the field definitions, and names of the interface's first version."""

_CONTACT_SYNC: Final = ("im", "postal_address", "notes", "birthday", "job_title")
_COMPANY_PROFILE: Final = ("website", "linkedin", "industry", "annual_revenue", "employee_count")
FEATURES: Final = frozenset({*_CONTACT_SYNC, *_COMPANY_PROFILE})
"""Record keys that only some companies have, by what they pay for."""

UNKNOWN: Final = "unknown"
"""The type of a custom field that the definitions do not list."""

_NO_OPTIONS: Final[Mapping[int | str, str]] = MappingProxyType({})
_CUSTOM_CODE: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSource:
    """Where a field stands.

    code  as the settings name it
    key   its key in the record, or below `custom_fields`
    type  kind of value, a key of the tables in `pipeline.transform.values`
    part  the one part of the value that is meant (`currency`, `until`, `locality`), else None
    """

    code: str
    key: str
    type: str
    options: Mapping[int | str, str]
    is_custom: bool = False
    part: str | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        return PARTS.get(self.type, ())

    def with_part(self, part: str) -> FieldSource:
        return replace(self, part=part)


def find_source(code: str, catalog: FieldCatalog) -> FieldSource | None:
    """Find the place a code leads to; None when neither Pipedrive nor this company knows such a field."""
    found = _find_whole(code, catalog) or _find_part(code, catalog)
    if found is None and is_custom_code(code):
        return FieldSource(code=code, key=code, type=UNKNOWN, is_custom=True, options=_NO_OPTIONS)
    return found


def is_listed(source: FieldSource, catalog: FieldCatalog) -> bool:
    """Tell whether the company has this field, as far as its field definitions say."""
    if source.type == UNKNOWN:
        return False
    return source.key not in FEATURES or _definition(source.key, catalog) is not None


def is_custom_code(code: str) -> bool:
    """Tell a custom field's code, 40 hex digits, from the words that name the fields every company has."""
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
