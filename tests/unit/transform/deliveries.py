"""Convert an API record to the format of a webhook, by Pipedrive's description and not by our decoder.

Source: https://pipedrive.readme.io/docs/webhooks-v2-migration-guide and .../guide-for-webhooks-v2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.domain.fields import FieldCatalog

PERSON_KEYS = (
    "id",
    "name",
    "first_name",
    "last_name",
    "org_id",
    "owner_id",
    "emails",
    "phones",
    "add_time",
    "update_time",
)
ORGANIZATION_KEYS = ("id", "name", "owner_id", "picture_id", "add_time", "update_time", "website", "linkedin", "industry",
                     "annual_revenue", "employee_count")  # fmt: skip


def webhook(
    record: Mapping[str, Any] | None,
    catalog: FieldCatalog,
    *,
    action: str = "change",
    previous: Any = None,
    sparse: bool = True,
    **meta: Any,
) -> dict[str, Any]:
    """Build the body of one delivery. `sparse`: custom fields that are not set are left out, as in Pipedrive's examples."""
    entity_id = str(record["id"]) if record is not None else str(previous["id"])
    return {
        "meta": {
            "action": action,
            "entity": catalog.entity.value,
            "entity_id": entity_id,
            "company_id": "8087566",
            "correlation_id": "43cb94f3-bbbd-406c-ae19-ddeec349d896",
            "id": "7c812ffd-8f50-45ea-a597-b8fcba2da9c0",
            "is_bulk_edit": False,
            "timestamp": "2026-02-01T09:30:00.616Z",
            "type": "general",
            "user_id": "12415231",
            "version": "2.0",
            "webhook_id": "4710827",
            "change_source": "app",
            "attempt": 1,
            "permitted_user_ids": ["12415231"],
            **meta,
        },
        "data": None if record is None else webhook_data(record, catalog, sparse=sparse),
        "previous": previous,
    }


def webhook_data(record: Mapping[str, Any], catalog: FieldCatalog, *, sparse: bool = True) -> dict[str, Any]:
    keys = PERSON_KEYS if catalog.entity == "person" else ORGANIZATION_KEYS
    data = {key: record[key] for key in keys if key in record}
    data["visible_to"] = str(record["visible_to"])
    data["label_ids"] = record["label_ids"]
    data["label"] = record["label_ids"][0] if record["label_ids"] else None
    if catalog.entity == "organization":
        data["address"] = _address(record["address"])
        data["country_code"] = None
    custom = {code: _custom(catalog.by_code[code].type, value) for code, value in record["custom_fields"].items()}
    data["custom_fields"] = {code: value for code, value in custom.items() if not sparse or value is not None}
    return data


def _custom(kind: str, value: Any) -> Any:  # noqa: PLR0911 - one line per row of the table
    if value is None:
        return None
    if kind in ("enum", "user", "people", "org"):
        return {"type": kind, "id": value}
    if kind == "set":
        return {"type": kind, "values": [{"id": member} for member in value]}
    if kind == "monetary":
        return {"type": kind, **value}
    if kind in ("daterange", "timerange"):
        zone = {"timezone_id": value["timezone_id"]} if "timezone_id" in value else {}
        return {"type": kind, "from": value["value"], "until": value["until"], **zone}
    if kind == "time":
        return {"type": kind, "value": value["value"], "timezone_id": value["timezone_id"]}
    if kind == "address":
        return {"type": kind, **_address(value)}
    return {"type": kind, "value": value}


def _address(value: dict[str, Any] | None) -> Any:
    return None if value is None else {part: "" if text is None else text for part, text in value.items()}
