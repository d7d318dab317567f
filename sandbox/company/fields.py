"""Fields of Persons and Organizations: those a company starts with, and their v1 and v2 JSON.

A custom field's code and option ids follow from the seed, so that a mapping made for one run fits the next. Sources:
https://developers.pipedrive.com/docs/api/v1/PersonFields (v1 and v2), docs page core-api-concepts-custom-fields.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

Entity = Literal["person", "organization"]
ENTITIES: tuple[Entity, ...] = ("person", "organization")
SEARCHABLE_TYPES = frozenset({"address", "varchar", "text", "varchar_auto", "double", "monetary", "phone"})
CREATABLE_TYPES = (
    "varchar", "text", "double", "phone", "date", "daterange", "time", "timerange", "set", "enum", "varchar_auto",
    "address", "monetary", "org", "people", "user",
)  # fmt: skip
ADDRESS_PARTS = (
    "value", "country", "admin_area_level_1", "admin_area_level_2", "locality", "sublocality", "route", "street_number",
    "subpremise", "postal_code", "formatted_address",
)  # fmt: skip
SUBFIELDS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "monetary": (("value", "Amount", "double"), ("currency", "Currency", "varchar")),
    "address": tuple((part, part.replace("_", " ").capitalize(), "varchar") for part in ADDRESS_PARTS),
    "daterange": (("value", "Start date", "date"), ("until", "End date", "date")),
    "time": (
        ("value", "Time", "time"),
        ("timezone_id", "Timezone ID", "int"),
        ("timezone_name", "Timezone", "varchar"),
    ),
    "timerange": (
        ("value", "Start time", "time"),
        ("until", "End time", "time"),
        ("timezone_id", "Timezone ID", "int"),
        ("timezone_name", "Timezone", "varchar"),
    ),
}
FIRMOGRAPHICS = (
    ("website", "Website", "varchar"),
    ("linkedin", "LinkedIn profile", "varchar"),
    ("industry", "Industry", "enum"),
    ("annual_revenue", "Annual revenue", "double"),
    ("employee_count", "Number of employees", "int"),
)
_COUNTERS = (
    "open_deals_count", "related_open_deals_count", "closed_deals_count", "related_closed_deals_count",
    "email_messages_count", "activities_count", "done_activities_count", "undone_activities_count", "files_count",
    "notes_count", "followers_count", "won_deals_count", "related_won_deals_count", "lost_deals_count",
    "related_lost_deals_count",
)  # fmt: skip
# `include_fields` of GET /api/v2/persons and /organizations: name → field type.
OPTIONAL_FIELDS: dict[Entity, dict[str, str]] = {
    "person": {
        **dict.fromkeys(_COUNTERS, "int"),
        "next_activity_id": "activity",
        "last_activity_id": "activity",
        "participant_open_deals_count": "int",
        "participant_closed_deals_count": "int",
        "last_incoming_mail_time": "date",
        "last_outgoing_mail_time": "date",
        "marketing_status": "varchar",
        "doi_status": "varchar",
        "smart_bcc_email": "varchar",
    },
    "organization": {
        **dict.fromkeys(_COUNTERS, "int"),
        "next_activity_id": "activity",
        "last_activity_id": "activity",
        "people_count": "int",
        "smart_bcc_email": "varchar",
    },
}
# v1 keys whose v2 code is another one.
_RENAMED = {"label": "label_ids"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One choice of an enum, set or label field."""

    id: int | str
    label: str
    color: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field. `optional` ones appear on a record only when `include_fields` names them.

    `recorded` is a v1 definition as it was read from a real company, given back unchanged by the v1 endpoints.
    """

    id: int
    code: str
    name: str
    type: str
    options: tuple[Option, ...] = ()
    custom: bool = False
    optional: bool = False
    recorded: dict[str, Any] | None = None

    def option_ids(self) -> set[int | str]:
        """Collect the ids a value of this field may hold."""
        return {option.id for option in self.options}


def make_fields(seed: int, entity: Entity, *, firmographics: bool) -> list[Field]:
    """List the fields of a company's Persons or Organizations, system fields first."""
    plain = [*_SHARED, *_OWN[entity]]
    if entity == "organization" and firmographics:
        plain += FIRMOGRAPHICS
    described = [(*field, False) for field in plain]
    described += [(n, n.replace("_", " ").capitalize(), kind, True) for n, kind in OPTIONAL_FIELDS[entity].items()]
    first_id = 1000 if entity == "person" else 4000
    system = [
        Field(id=first_id + n, code=code, name=name, type=kind, options=_system_options(code), optional=optional)
        for n, (code, name, kind, optional) in enumerate(described)
    ]
    return [*system, *_custom_fields(seed, entity)]


def code_of(seed: int, entity: Entity, name: str) -> str:
    """Derive a custom field's code, 40 lower-case hex digits, from the seed and its name."""
    return hashlib.sha1(f"{seed}:{entity}:{name}".encode(), usedforsecurity=False).hexdigest()


def _custom_fields(seed: int, entity: Entity) -> list[Field]:
    fields: list[Field] = []
    first_id = _FIRST_CUSTOM_FIELD_ID + (0 if entity == "person" else 500)
    option_id = _FIRST_OPTION_ID + seed % 40 + (0 if entity == "person" else 100)
    for n, (name, kind, labels) in enumerate(_CUSTOM_NAMES[entity]):
        options = tuple(Option(id=option_id + 3 * m, label=label) for m, label in enumerate(labels))
        option_id += 3 * len(labels)
        code = code_of(seed, entity, name)
        fields.append(Field(id=first_id + n, code=code, name=name, type=kind, options=options, custom=True))
    return fields


def _system_options(code: str) -> tuple[Option, ...]:
    if code == "label_ids":
        return tuple(Option(id=n, label=label, color=color) for n, (label, color) in enumerate(_LABELS, 1))
    if code == "visible_to":
        return tuple(Option(id=n, label=label) for n, label in _VISIBILITY)
    if code == "industry":
        return tuple(Option(id=n, label=label) for n, label in enumerate(_INDUSTRIES, 1))
    return ()


def to_v2(field: Field) -> dict[str, Any]:
    """Put a field in the form of GET /api/v2/personFields."""
    options = [
        {"id": option.id, "label": option.label, "color": option.color, "update_time": None, "add_time": None}
        for option in field.options
    ]
    subfields = [
        {"field_code": code, "field_name": f"{label} of {field.name}", "field_type": kind}
        for code, label, kind in SUBFIELDS.get(field.type, ())
    ]
    return {
        "field_code": field.code,
        "field_name": field.name,
        "description": None,
        "field_type": field.type,
        "options": options or None,
        "subfields": subfields or None,
        "is_custom_field": field.custom,
        "is_optional_response_field": field.optional,
    }


def to_v1(field: Field, order_nr: int) -> list[dict[str, Any]]:
    """Put a field in the form of GET /v1/personFields: the field itself, then a row for each of its parts."""
    if field.recorded is not None:
        return [field.recorded]
    key = "label" if field.code == "label_ids" else field.code
    row = {
        "id": field.id,
        "key": key,
        "name": field.name,
        "order_nr": order_nr,
        "field_type": field.type,
        "json_column_flag": field.custom,
        "add_time": "2019-09-17 20:28:21",
        "update_time": "2019-09-17 20:28:21",
        "last_updated_by_user_id": None,
        "created_by_user_id": None,
        "active_flag": True,
        "edit_flag": field.custom,
        "index_visible_flag": True,
        "details_visible_flag": True,
        "add_visible_flag": False,
        "important_flag": False,
        "bulk_edit_allowed": field.custom,
        "filtering_allowed": True,
        "sortable_flag": True,
        "searchable_flag": field.custom and field.type in SEARCHABLE_TYPES,
        "mandatory_flag": field.code == "name",
        "options": [_v1_option(option) for option in field.options] or None,
    }
    parts = SUBFIELDS.get(field.type, ())[1:] if field.custom else ()
    return [row, *(_v1_part(row, part) for part in parts)]


def _v1_option(option: Option) -> dict[str, Any]:
    color = {"color": option.color} if option.color else {}
    return {"id": option.id, "label": option.label, **color}


def _v1_part(parent: dict[str, Any], part: tuple[str, str, str]) -> dict[str, Any]:
    code, label, kind = part
    own = {
        "id": None,
        "key": f"{parent['key']}_{code}",
        "name": f"{label} of {parent['name']}",
        "field_type": kind,
        "options": None,
        "is_subfield": True,
        "parent_id": parent["id"],
        "id_suffix": f"_{code}",
    }
    return {**parent, **own}


def from_v1(rows: list[dict[str, Any]], entity: Entity) -> list[Field]:
    """Read recorded v1 definitions, keeping each as it was for the v1 endpoints."""
    return [
        Field(
            id=row["id"],
            code=_RENAMED.get(row["key"], row["key"]),
            name=row["name"],
            type=row["field_type"],
            options=tuple(
                Option(id=option["id"], label=option["label"], color=option.get("color"))
                for option in row.get("options") or ()
            ),
            custom=bool(row.get("edit_flag")) and len(row["key"]) == 40,
            optional=row["key"] in OPTIONAL_FIELDS[entity],
            recorded=row,
        )
        for row in rows
        if not row.get("is_subfield")
    ]


_FIRST_CUSTOM_FIELD_ID = 9100
_FIRST_OPTION_ID = 20
_CUSTOM_NAMES: dict[Entity, tuple[tuple[str, str, tuple[str, ...]], ...]] = {
    "person": (
        ("Customer number", "varchar", ()),
        ("Job title", "varchar", ()),
        ("Remarks", "text", ()),
        ("Lead score", "double", ()),
        ("Direct line", "phone", ()),
        ("Customer since", "date", ()),
        ("Contract period", "daterange", ()),
        ("Preferred call time", "time", ()),
        ("Office hours", "timerange", ()),
        ("Interests", "set", ("Product news", "Events", "Beta programme", "Case studies", "Größe & Preise")),
        ("Lead source", "enum", ("Inbound", "Outbound", "Referral", "Trade fair", "Ümlaut <b>Inc</b>")),
        ("Greeting", "varchar_auto", ()),
        ("Delivery address", "address", ()),
        ("Credit limit", "monetary", ()),
        ("Previous employer", "org", ()),
        ("Referred by", "people", ()),
        ("Account manager", "user", ()),
    ),
    "organization": (
        ("Domains", "text", ()),
        ("Country code", "varchar", ()),
        ("Customer number", "varchar", ()),
        ("Support notes", "text", ()),
        ("Health score", "double", ()),
        ("Switchboard", "phone", ()),
        ("Founded on", "date", ()),
        ("Fiscal year", "daterange", ()),
        ("Stand-up", "time", ()),
        ("Opening hours", "timerange", ()),
        ("Products in use", "set", ("Core", "Mobile", "Analytics", "API access", "On-premise")),
        ("Tier", "enum", ("Enterprise", "Mid-market", "Small business", "Non-profit")),
        ("Billing name", "varchar_auto", ()),
        ("Billing address", "address", ()),
        ("Contract value", "monetary", ()),
        ("Parent company", "org", ()),
        ("Main contact", "people", ()),
        ("Success manager", "user", ()),
    ),
}
_LABELS = (("Customer", "green"), ("Hot lead", "red"), ("Warm lead", "yellow"), ("Cold lead", "blue"))
_VISIBILITY = ((1, "Owner & followers"), (3, "Entire company"))
_INDUSTRIES = ("Software", "Manufacturing", "Retail", "Healthcare", "Education", "Finance")
_SHARED = (
    ("id", "ID", "int"),
    ("name", "Name", "varchar"),
    ("label_ids", "Labels", "set"),
    ("owner_id", "Owner", "user"),
    ("add_time", "Created", "date"),
    ("update_time", "Update time", "date"),
    ("visible_to", "Visible to", "visible_to"),
    ("picture_id", "Profile picture", "picture"),
)
_OWN: dict[Entity, tuple[tuple[str, str, str], ...]] = {
    "person": (
        ("first_name", "First name", "varchar"),
        ("last_name", "Last name", "varchar"),
        ("phone", "Phone", "phone"),
        ("email", "Email", "varchar"),
        ("org_id", "Organization", "org"),
    ),
    "organization": (("address", "Address", "address"),),
}
