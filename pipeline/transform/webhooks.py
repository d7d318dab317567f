"""Turns the body of a webhook into the record a fetch of the same state would give.

Webhooks spell every custom value as an object with its type, ids of the head as text, `visible_to` as text and
missing parts of an address as `""`. All of that ends here: whatever comes later sees one shape.
Source: https://pipedrive.readme.io/docs/guide-for-webhooks-v2 and .../webhooks-v2-migration-guide
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from pipeline.domain.fields import FieldCatalog
from pipeline.domain.webhooks import WebhookAction, WebhookRecord
from pipeline.transform.record_shapes import OPTIONAL
from pipeline.transform.webhook_heads import decode_head, malformed, read_id, read_number

_NEVER_IN_RECORDS: Final = frozenset({"country_code", "label"})
"""Keys of webhooks that API v2 records do not have, under these names."""


def decode_webhook(payload: object, catalog: FieldCatalog) -> WebhookRecord:
    """Read a whole webhook.

    Raises: Rejected("webhook_malformed"); Skip("not_synchronised").
    """
    head = decode_head(payload)
    assert isinstance(payload, dict)  # noqa: S101 - decode_head has looked
    if head.is_old_format:
        raise malformed("not of version 2.0")
    if head.entity is not catalog.entity:
        raise malformed(f"a webhook of {head.entity} read with the fields of {catalog.entity}")
    previous = _decode_record(_read_object(payload.get("previous"), "previous"), catalog)
    if head.action is WebhookAction.DELETE:
        return WebhookRecord(head=head, record=None, previous=previous, absent=())
    data = payload.get("data")
    if not isinstance(data, dict):
        raise malformed("no data object")
    if read_id(data.get("id", head.pipedrive_id)) != head.pipedrive_id:
        raise malformed("data and meta name different records")
    record = _decode_record(data, catalog)
    record |= {"id": head.pipedrive_id, "is_deleted": record.get("is_deleted", False)}
    custom = record.setdefault("custom_fields", {})
    for code in previous.get("custom_fields", {}):
        custom.setdefault(code, None)  # it changed and is not there any more: it was emptied
    absent = tuple(code for code, definition in catalog.by_code.items() if definition.is_custom and code not in custom)
    return WebhookRecord(head=head, record=record, previous=previous, absent=absent)


def complete_record(
    webhook: WebhookRecord, snapshot: Mapping[str, Any] | None, used: Collection[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fill what a webhook leaves out from the last snapshot.

    Shape:  webhook with a record, last whole record or None, mapped custom fields and keys given on request
            → (the record, those of the mapped that only a new fetch can tell)
    Keys that webhooks never carry keep their snapshot value. A custom field that was empty and is not mentioned is
    still empty. One that was set and is not mentioned is either unchanged or emptied, which only a fetch can tell.
    """
    assert webhook.record is not None, "a delete has no record"  # noqa: S101 - a caller's mistake
    before = snapshot or {}
    custom_before = before.get("custom_fields") or {}
    filled = {code: custom_before[code] for code in webhook.absent if code in custom_before}
    unsure = tuple(code for code in webhook.absent if code in used and filled.get(code, True) is not None)
    record = {**before, **webhook.record}
    record["custom_fields"] = {**filled, **webhook.record["custom_fields"]}
    on_request = tuple(key for key in OPTIONAL[webhook.head.entity] if key in used and key not in record)
    return record, unsure + on_request


def _decode_record(data: dict[str, Any], catalog: FieldCatalog) -> dict[str, Any]:
    record = {
        key: _SYSTEM_DECODERS[key](value) if key in _SYSTEM_DECODERS and value is not None else value
        for key, value in data.items()
        if key not in _NEVER_IN_RECORDS and key != "custom_fields"
    }
    if "label" in data and "label_ids" not in data:
        record["label_ids"] = _decode_labels(data["label"])
    if record.get("label_ids", ()) is None:
        record["label_ids"] = []
    custom = data.get("custom_fields")
    if custom is not None:
        values = _read_object(custom, "custom_fields")
        record["custom_fields"] = {code: _decode_custom(code, value, catalog) for code, value in values.items()}
    return record


def _decode_custom(code: str, value: Any, catalog: FieldCatalog) -> Any:
    if not isinstance(value, dict):
        return value
    definition = catalog.find(code)
    kind = definition.type if definition is not None else value.get("type")
    decode = _CUSTOM_DECODERS.get(kind) if isinstance(kind, str) else None
    return decode(value) if decode is not None else value.get("value", value.get("id"))


def _decode_amount(value: dict[str, Any]) -> Any:
    if value.get("value") is None:
        return None
    return {"value": value["value"], "currency": value.get("currency")}


def _decode_set(value: dict[str, Any]) -> Any:
    members = value.get("values", value.get("value"))
    if not isinstance(members, list):
        return members
    return [member.get("id") if isinstance(member, dict) else member for member in members] or None


def _decode_range(value: dict[str, Any]) -> Any:
    start, until = value.get("from", value.get("value")), value.get("until")
    if start is None and until is None:
        return None
    return {"value": start, "until": until} | _zone(value)


def _decode_time(value: dict[str, Any]) -> Any:
    return None if value.get("value") is None else {"value": value["value"]} | _zone(value)


def _zone(value: dict[str, Any]) -> dict[str, Any]:
    return {"timezone_id": value["timezone_id"]} if "timezone_id" in value else {}


def _decode_address(value: Any) -> Any:
    if not isinstance(value, dict):
        return value or None
    parts = {key: None if part == "" else part for key, part in value.items() if key != "type"}
    return parts if any(part is not None for part in parts.values()) else None


def _decode_labels(value: Any) -> Any:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [read_number(part.strip()) for part in value.split(",")]
    return value if isinstance(value, list) else [value]


def _read_object(value: Any, name: str) -> dict[str, Any]:
    if value is None or value == []:  # an empty list is how some servers write an empty object
        return {}
    if not isinstance(value, dict):
        raise malformed(f"{name} is no object")
    return value


_SYSTEM_DECODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "visible_to": read_number,
    "owner_id": read_number,
    "org_id": read_number,
    "address": _decode_address,
    "postal_address": _decode_address,
}
"""Record key → how a webhook's value becomes the API's."""

_CUSTOM_DECODERS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "enum": lambda value: value.get("id", value.get("value")),
    "user": lambda value: value.get("id", value.get("value")),
    "people": lambda value: value.get("id", value.get("value")),
    "org": lambda value: value.get("id", value.get("value")),
    "set": _decode_set,
    "monetary": _decode_amount,
    "daterange": _decode_range,
    "timerange": _decode_range,
    "time": _decode_time,
    "address": _decode_address,
}
"""Field type → how a webhook's object becomes the API's value; all others carry it under `value`."""
