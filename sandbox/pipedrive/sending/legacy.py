"""Webhook payloads, version 1.0: what a subscriber of the old kind is sent, and what a stray one looks like today.

In: an `Event`. Out: the JSON object: `current` and `previous` whole, custom fields flat, ids as numbers, retries counted from 0.
Source: docs page webhooks-v2-migration-guide, which lists what became of each key.
"""

from __future__ import annotations

from typing import Any

from sandbox.company import Company, Entity, Event, Field, Record
from sandbox.company.fields import SUBFIELDS
from sandbox.pipedrive.payload import KEPT, permitted_users

ACTIONS = {"create": "added", "change": "updated", "delete": "deleted"}
RENAMED = {"emails": "email", "phones": "phone"}
RESHAPED = {"custom_fields", "label_ids", "visible_to"}
TIMES = ("add_time", "update_time")


def legacy_payload(company: Company, event: Event, subscription: dict[str, Any], *, attempt: int = 1) -> dict[str, Any]:
    """Describe one event to one subscription in the shape of version 1.0."""
    fields = {field.code: field for field in company.custom_fields(event.entity)}
    return {
        "v": 1,
        "matches_filters": None,
        "meta": _meta(company, event, subscription),
        "current": _described(event.entity, event.after, fields),
        "previous": _described(event.entity, event.before, fields),
        "event": f"{ACTIONS[event.action]}.{event.entity}",
        "retry": attempt - 1,
    }


def _meta(company: Company, event: Event, subscription: dict[str, Any]) -> dict[str, Any]:
    return {
        "v": 1,
        "action": ACTIONS[event.action],
        "object": event.entity,
        "id": event.id,
        "company_id": company.id,
        "user_id": event.context.user_id or company.users[0].id,
        "host": f"{company.domain}.pipedrive.com",
        "timestamp": int(event.moment),
        "timestamp_micro": int(event.moment * 1_000_000),
        "permitted_user_ids": permitted_users(company, event),
        "trans_pending": False,
        "is_bulk_update": event.context.bulk,
        "pipedrive_service_name": False,
        "change_source": event.source,
        "matches_filters": None,
        "webhook_id": str(subscription["id"]),
    }


def _described(entity: Entity, record: Record | None, fields: dict[str, Field]) -> Record | None:
    if record is None:
        return None
    described = {RENAMED.get(key, key): record[key] for key in KEPT[entity] if key in record and key not in RESHAPED}
    labels, visible_to = record.get("label_ids"), record.get("visible_to")
    described["label"] = labels[0] if isinstance(labels, list) and labels else None
    described["visible_to"] = None if visible_to is None else str(visible_to)
    for key in TIMES:
        if isinstance(described.get(key), str):
            described[key] = described[key].replace("T", " ").removesuffix("Z")
    held = record.get("custom_fields")
    for code, value in held.items() if isinstance(held, dict) else ():
        if code in fields:
            described |= _flat(fields[code], value)
    return described


def _flat(field: Field, value: Any) -> Record:
    """Spread a custom value over a key for each of its parts; a set is written with commas."""
    if isinstance(value, list):
        return {field.code: ",".join(map(str, value))}
    parts = SUBFIELDS.get(field.type, ())[1:]
    if not isinstance(value, dict):
        return {field.code: value, **{f"{field.code}_{part}": None for part, _, _ in parts}}
    return {field.code: value.get("value"), **{f"{field.code}_{part}": value.get(part) for part, _, _ in parts}}
