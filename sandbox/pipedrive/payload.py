"""Webhook payloads of versions 2.0 and 1.0: what a subscriber receives about one change.

In version 2.0 values of custom fields have shapes of their own, which differ from the API's for every type. In version 1.0
`current` and `previous` are whole, custom fields flat, ids numbers, and retries counted from 0. Sources: docs pages
guide-for-webhooks-v2 and webhooks-v2-migration-guide.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from sandbox.company import Company, Entity, Event, Field, Record
from sandbox.company.fields import ADDRESS_PARTS, FIRMOGRAPHICS, SUBFIELDS
from sandbox.pipedrive.answers import milliseconds

OWNER_ONLY = 1
_KEPT: dict[Entity, tuple[str, ...]] = {
    "person": (
        "add_time", "custom_fields", "emails", "first_name", "id", "label_ids", "last_name", "name", "org_id", "owner_id",
        "phones", "update_time", "visible_to",
    ),
    "organization": (
        "add_time", "address", "custom_fields", "id", "label_ids", "name", "owner_id", "picture_id", "update_time",
        "visible_to", *(code for code, _, _ in FIRMOGRAPHICS),
    ),
}  # fmt: skip
_LEGACY_ACTIONS = {"create": "added", "change": "updated", "delete": "deleted"}
_LEGACY_NAMES = {"emails": "email", "phones": "phone"}
_LEGACY_RESHAPED = {"custom_fields", "label_ids", "visible_to"}
_TIMES = ("add_time", "update_time")


def payload(company: Company, event: Event, subscription: dict[str, Any], *, attempt: int = 1) -> dict[str, Any]:
    """Describe one event to one subscription. The ids in `meta` are strings, those in `data` are not."""
    fields = {field.code: field for field in company.custom_fields(event.entity)}
    before = None if event.before is None else _described(event.entity, event.before, fields)
    after = None if event.after is None else _described(event.entity, event.after, fields)
    previous = _changed(before, after) if event.action == "change" else before
    return {"meta": _meta(company, event, subscription, attempt), "data": after, "previous": previous}


def legacy_payload(company: Company, event: Event, subscription: dict[str, Any], *, attempt: int = 1) -> dict[str, Any]:
    """Describe one event to one subscription in the shape of version 1.0."""
    fields = {field.code: field for field in company.custom_fields(event.entity)}
    return {
        "v": 1,
        "matches_filters": None,
        "meta": _legacy_meta(company, event, subscription),
        "current": _legacy_record(event.entity, event.after, fields),
        "previous": _legacy_record(event.entity, event.before, fields),
        "event": f"{_LEGACY_ACTIONS[event.action]}.{event.entity}",
        "retry": attempt - 1,
    }


def permitted_users(company: Company, event: Event) -> list[int]:
    """List who may see the record: all users, or its owner and the admins where it is visible to its owner only."""
    record = event.after or event.before or {}
    if record.get("visible_to") != OWNER_ONLY:
        return [user.id for user in company.users]
    return [user.id for user in company.users if user.admin or user.id == record.get("owner_id")]


def _meta(company: Company, event: Event, subscription: dict[str, Any], attempt: int) -> dict[str, Any]:
    trace = f"{event.entity}:{event.id}:{event.moment}"
    # The event's id stays the same for every attempt, so that a receiver recognizes retries.
    name = f"{trace}:{event.action}:{subscription['id']}"
    return {
        "action": event.action,
        "entity": event.entity,
        "entity_id": str(event.id),
        "company_id": str(company.id),
        "correlation_id": str(event.context.correlation or uuid.uuid5(uuid.NAMESPACE_OID, trace)),
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
        "is_bulk_edit": event.context.bulk,
        "timestamp": milliseconds(event.moment),
        "type": subscription["type"],
        "user_id": str(event.context.user_id or company.users[0].id),
        "version": subscription["version"],
        "webhook_id": str(subscription["id"]),
        "webhook_owner_id": str(subscription["owner_id"]),
        "change_source": event.source,
        "attempt": attempt,
        "host": f"{company.domain}.pipedrive.com",
        "permitted_user_ids": [str(user_id) for user_id in permitted_users(company, event)],
        **_merged(event),
    }


def _merged(event: Event) -> dict[str, str]:
    """Name the other record of a merge; members that no other event has."""
    named = {"merged_to_id": event.merged_to, "merged_from_id": event.merged_from}
    return {name: str(record_id) for name, record_id in named.items() if record_id is not None}


def _described(entity: Entity, record: Record, fields: dict[str, Field]) -> Record:
    """Reduce a record to what webhooks carry; unset custom fields are left out."""
    described = {key: record[key] for key in _KEPT[entity] if key in record}
    labels = record.get("label_ids")
    described["label"] = labels[0] if isinstance(labels, list) and labels else None
    described["visible_to"] = None if record.get("visible_to") is None else str(record["visible_to"])
    held = record.get("custom_fields")
    described["custom_fields"] = {
        code: _typed(fields[code], value)
        for code, value in (held.items() if isinstance(held, dict) else ())
        if code in fields and value is not None
    }
    return described


def _changed(before: Record | None, after: Record | None) -> Record:
    """Keep the old values of what changed; a custom field that was unset is null."""
    old, new = before or {}, after or {}
    changed = {key: old.get(key) for key in new if key != "custom_fields" and old.get(key) != new[key]}
    old_custom, new_custom = old.get("custom_fields", {}), new.get("custom_fields", {})
    custom = {
        code: old_custom.get(code)
        for code in (*old_custom, *(code for code in new_custom if code not in old_custom))
        if old_custom.get(code) != new_custom.get(code)
    }
    return {**changed, "custom_fields": custom} if custom else changed


def _typed(field: Field, value: Any) -> dict[str, Any]:
    """Put the value of a custom field in its webhook shape, for instance 17 → {"type": "enum", "id": 17}.

    A raw value of a wrong shape is sent as it is.
    """
    shape = _SHAPES.get(field.type, _plain)
    try:
        return {"type": field.type, **shape(value)}
    except (TypeError, AttributeError, KeyError):
        return {"type": field.type, "value": value}


def _plain(value: Any) -> dict[str, Any]:
    return {"value": value}


def _reference(value: Any) -> dict[str, Any]:
    return {"id": value}


def _references(value: Any) -> dict[str, Any]:
    return {"values": [{"id": option} for option in value]}


def _money(value: Any) -> dict[str, Any]:
    return {"value": value["value"], "currency": value["currency"]}


def _range(value: Any) -> dict[str, Any]:
    return {"from": value["value"], "until": value["until"]}


def _time(value: Any) -> dict[str, Any]:
    return {"value": value["value"], "timezone_id": value["timezone_id"]}


def _time_range(value: Any) -> dict[str, Any]:
    return {**_range(value), "timezone_id": value["timezone_id"]}


def _address(value: Any) -> dict[str, Any]:
    return {part: value.get(part) or "" for part in ADDRESS_PARTS}


_SHAPES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "enum": _reference,
    "user": _reference,
    "people": _reference,
    "org": _reference,
    "set": _references,
    "monetary": _money,
    "daterange": _range,
    "time": _time,
    "timerange": _time_range,
    "address": _address,
}


def _legacy_meta(company: Company, event: Event, subscription: dict[str, Any]) -> dict[str, Any]:
    return {
        "v": 1,
        "action": _LEGACY_ACTIONS[event.action],
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


def _legacy_record(entity: Entity, record: Record | None, fields: dict[str, Field]) -> Record | None:
    if record is None:
        return None
    described = {
        _LEGACY_NAMES.get(key, key): record[key]
        for key in _KEPT[entity]
        if key in record and key not in _LEGACY_RESHAPED
    }
    labels, visible_to = record.get("label_ids"), record.get("visible_to")
    described["label"] = labels[0] if isinstance(labels, list) and labels else None
    described["visible_to"] = None if visible_to is None else str(visible_to)
    for key in _TIMES:
        if isinstance(described.get(key), str):
            described[key] = described[key].replace("T", " ").removesuffix("Z")
    held = record.get("custom_fields")
    for code, value in held.items() if isinstance(held, dict) else ():
        if code in fields:
            described |= _legacy_values(fields[code], value)
    return described


def _legacy_values(field: Field, value: Any) -> Record:
    """Spread a custom value over a key for each of its parts; a set is written with commas."""
    if isinstance(value, list):
        return {field.code: ",".join(map(str, value))}
    parts = SUBFIELDS.get(field.type, ())[1:]
    if not isinstance(value, dict):
        return {field.code: value, **{f"{field.code}_{part}": None for part, _, _ in parts}}
    return {field.code: value.get("value"), **{f"{field.code}_{part}": value.get(part) for part, _, _ in parts}}
