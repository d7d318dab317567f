"""One Pipedrive company to test with: its fields, and a Person and an Organization that fill all of them.

Shapes: https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide
"""

from __future__ import annotations

import copy
from typing import Any

from pipeline.domain.fields import FieldCatalog, FieldDefinition
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import AttributeMapping, ClaimRule, ConnectorSettings

COLOURS = {1: "Red", 2: "Green", 3: "Blue"}
LABELS = {4: "Hot lead", 7: "Customer"}


def code_of(name: str) -> str:
    """The 40 hex digits of the custom field that carries this name in the tests."""
    return name.encode().hex().ljust(40, "0")[:40]


TEXT_TYPES = ("varchar", "varchar_auto", "text", "phone")
OTHER_TYPES = ("double", "monetary", "enum", "set", "date", "daterange", "time", "timerange", "address")
LINK_TYPES = ("user", "people", "org")
CUSTOM_TYPES = (*TEXT_TYPES, *OTHER_TYPES, *LINK_TYPES)
CODES = {kind: code_of(kind) for kind in CUSTOM_TYPES}

CUSTOM = [
    FieldDefinition(
        code=CODES[kind], name=kind, type=kind, is_custom=True, options=COLOURS if kind in ("enum", "set") else {}
    )
    for kind in CUSTOM_TYPES
]
PERSON_FIELDS = FieldCatalog.of(
    Entity.PERSON,
    [
        FieldDefinition(code="name", name="Name", type="varchar"),
        FieldDefinition(code="email", name="Email", type="varchar"),
        FieldDefinition(code="phone", name="Phone", type="phone"),
        FieldDefinition(code="label_ids", name="Labels", type="set", options=LABELS),
        FieldDefinition(code="add_time", name="Person created", type="date"),
        *CUSTOM,
    ],
)
ORGANIZATION_FIELDS = FieldCatalog.of(
    Entity.ORGANIZATION,
    [
        FieldDefinition(code="name", name="Name", type="varchar"),
        FieldDefinition(code="address", name="Address", type="address"),
        FieldDefinition(code="label", name="Labels", type="set", options=LABELS),
        FieldDefinition(code="website", name="Website", type="varchar"),
        FieldDefinition(code="industry", name="Industry", type="enum", options={9: "Steel"}),
        FieldDefinition(code="annual_revenue", name="Annual revenue", type="double"),
        *CUSTOM,
    ],
)

ADDRESS = {
    "value": "Mustamae tee 3a, Tallinn",
    "country": "Estonia",
    "admin_area_level_1": "Harju maakond",
    "admin_area_level_2": None,
    "locality": "Tallinn",
    "sublocality": None,
    "route": "Mustamae tee",
    "street_number": "3a",
    "subpremise": None,
    "postal_code": "10616",
    "formatted_address": "Mustamäe tee 3a, 10616 Tallinn, Estonia",
}
CUSTOM_VALUES: dict[str, Any] = {
    CODES["varchar"]: "short",
    CODES["varchar_auto"]: "completed",
    CODES["text"]: "A long story.",
    CODES["phone"]: "+372 555 0100",
    CODES["double"]: 12.5,
    CODES["monetary"]: {"value": 500, "currency": "EUR"},
    CODES["enum"]: 2,
    CODES["set"]: [3, 1],
    CODES["date"]: "2026-01-31",
    CODES["daterange"]: {"value": "2026-01-01", "until": "2026-02-01"},
    CODES["time"]: {"value": "09:00:00", "timezone_id": 318, "timezone_name": "Europe/London"},
    CODES["timerange"]: {
        "value": "09:00:00",
        "until": "11:30:00",
        "timezone_id": 318,
        "timezone_name": "Europe/London",
    },
    CODES["address"]: ADDRESS,
    CODES["user"]: 12415231,
    CODES["people"]: 77,
    CODES["org"]: 88,
}

_ADA: dict[str, Any] = {
    "id": 1,
    "name": "Ada Lovelace",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "owner_id": 12415231,
    "org_id": 5,
    "add_time": "2026-01-10T08:00:00Z",
    "update_time": "2026-02-01T09:30:00Z",
    "emails": [
        {"value": "old@acme.test", "primary": False, "label": "home"},
        {"value": "ada@acme.test", "primary": True, "label": "work"},
    ],
    "phones": [{"value": "+372 555", "primary": True, "label": "work"}],
    "is_deleted": False,
    "visible_to": 3,
    "label_ids": [7, 4],
    "picture_id": None,
    "custom_fields": CUSTOM_VALUES,
}
_ACME: dict[str, Any] = {
    "id": 5,
    "name": "Acme OU",
    "owner_id": 12415231,
    "add_time": "2026-01-10T08:00:00Z",
    "update_time": "2026-02-01T09:30:00Z",
    "is_deleted": False,
    "visible_to": 3,
    "label_ids": [],
    "picture_id": None,
    "address": ADDRESS,
    "website": "https://www.acme.test/about",
    "linkedin": None,
    "industry": 9,
    "annual_revenue": 1000000,
    "employee_count": 12,
    "custom_fields": CUSTOM_VALUES,
}


def ada(**changes: Any) -> dict[str, Any]:
    """A Person with everything, and a list of her own."""
    return {**copy.deepcopy(_ADA), **changes}


def acme(**changes: Any) -> dict[str, Any]:
    """An Organization with everything."""
    return {**copy.deepcopy(_ACME), **changes}


def ada_with(custom: dict[str, Any]) -> dict[str, Any]:
    """Ada with other values in some of her custom fields, by type."""
    record = ada()
    record["custom_fields"] |= {CODES[kind]: value for kind, value in custom.items()}
    return record


Row = tuple[str, str] | AttributeMapping
Claims = tuple[tuple[str, str], ...] | None


def settings(*rows: Row, outgoing: tuple[Row, ...] = (), claims: Claims = None) -> ConnectorSettings:
    """Settings with these incoming and outgoing rows, for Persons and Organizations alike, and with these claims."""
    document: dict[str, Any] = {
        "incoming_user_attributes": _mappings(rows),
        "incoming_account_attributes": _mappings(rows),
        "outgoing_user_attributes": _mappings(outgoing),
        "outgoing_account_attributes": _mappings(outgoing),
    }
    if claims is not None:
        rules = tuple(ClaimRule.model_validate({"hull": hull, "service": service}) for hull, service in claims)
        is_account = any(rule.hull == "domain" for rule in rules)
        document["account_claims" if is_account else "user_claims"] = rules
    return ConnectorSettings(**document)


def _mappings(rows: tuple[Row, ...]) -> tuple[AttributeMapping, ...]:
    return tuple(
        row if isinstance(row, AttributeMapping) else AttributeMapping(hull=row[0], service=row[1]) for row in rows
    )
