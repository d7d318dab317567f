"""The keys of API v2 records, their types, and which of them can be written.

Sources: https://developers.pipedrive.com/docs/api/v1/openapi-v2.yaml and
https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide (Persons, Organizations, Custom Fields)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
"""Record key → type of the fields every company has; the definitions' own types are coarser here (`email`: varchar)."""

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
"""Record keys that the API takes in a PATCH (https://developers.pipedrive.com/docs/api/v1/openapi-v2.yaml)."""

ALIASES: Final[Mapping[str, str]] = {
    "email": "emails",
    "phone": "phones",
    "ims": "im",
    "label": "label_ids",
    "cc_email": "smart_bcc_email",
}
"""Other names of record keys: codes of the field definitions, and names of the interface's first version."""

FEATURES: Final = frozenset({*_CONTACT_SYNC, *_COMPANY_PROFILE})
"""Record keys that only some companies have, by what they pay for."""
