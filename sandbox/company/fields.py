"""Field definitions of a company: what a Person and an Organization are made of, and the v1 and v2 forms of saying so.

A custom field's code and option ids follow from the seed, so that a mapping made for one run fits the next. Sources:
https://developers.pipedrive.com/docs/api/v1/PersonFields (v1 and v2), docs page core-api-concepts-custom-fields.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One choice of an enum, set or label field."""

    id: int | str
    label: str
    color: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field. `optional` ones appear on a record only when asked for by `include_fields`.

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


# v1 keys whose v2 code is another one.
_RENAMED = {"label": "label_ids"}


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
