"""PUT /v1/persons/{id}/merge and its sister: the record in the path goes into another, which stays.

The answer of a Person is v1's, of an Organization its id alone. Custom fields are left out: the OpenAPI file has none there.
Sources: the v1 OpenAPI file, paths /persons/{id}/merge and /organizations/{id}/merge; docs page guide-for-webhooks-v2.
"""

from __future__ import annotations

from typing import Any

from flask import Response

from sandbox.company import Company, Entity, Invalid, Record
from sandbox.pipedrive import answers
from sandbox.pipedrive.records import json_object, missing

_COUNTS = (
    "email_messages", "activities", "done_activities", "undone_activities", "files", "notes", "followers", "open_deals",
    "related_open_deals", "closed_deals", "related_closed_deals", "won_deals", "related_won_deals", "lost_deals",
    "related_lost_deals", "participant_open_deals", "participant_closed_deals",
)  # fmt: skip
_UNSET = (
    "last_incoming_mail_time", "last_outgoing_mail_time", "next_activity_date", "next_activity_time", "next_activity_id",
    "last_activity_id", "last_activity_date", "picture_id",
)  # fmt: skip


def merge(company: Company, entity: Entity, record_id: int) -> Response:
    """Answer PUT /v1/persons/{id}/merge with the record that stayed."""
    other = json_object().get("merge_with_id")
    if isinstance(other, bool) or not isinstance(other, int):
        raise answers.invalid("merge_with_id: must be an integer")
    try:
        record = company.merge(entity, record_id, other)
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    if record is None:
        raise missing(company, entity, record_id)
    data = {"id": other} if entity == "organization" else _person(company, record, merged=record_id)
    return answers.plain({"success": True, "data": data})


def _person(company: Company, record: Record, *, merged: int) -> dict[str, Any]:
    """Say a Person as v1 does."""
    organization = company.record("organization", record["org_id"]) if record.get("org_id") else None
    owner = next((user.name for user in company.users if user.id == record.get("owner_id")), None)
    labels = record.get("label_ids") or []
    same = {key: record.get(key) for key in ("id", "owner_id", "org_id", "name", "first_name", "last_name")}
    return {
        **same,
        "company_id": company.id,
        "active_flag": True,
        "email": record.get("emails"),
        "phone": record.get("phones"),
        "first_char": str(record.get("name"))[:1].lower(),
        "add_time": _time(record.get("add_time")),
        "update_time": _time(record.get("update_time")),
        "visible_to": str(record.get("visible_to")),
        "label": labels[0] if labels else None,
        "label_ids": labels,
        "org_name": organization and organization.get("name"),
        "owner_name": owner,
        "cc_email": f"{company.domain}@pipedrivemail.com",
        "merge_what_id": merged,
        **{f"{name}_count": 0 for name in _COUNTS},
        **dict.fromkeys(_UNSET),
    }


def _time(value: Any) -> Any:
    """2026-01-10T08:00:00Z → 2026-01-10 08:00:00"""
    return value.replace("T", " ").removesuffix("Z") if isinstance(value, str) else value
