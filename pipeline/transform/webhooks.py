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
from pipeline.transform.webhook_values import UNREADABLE, decode_address, decode_custom

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
        return WebhookRecord(head=head, record=None, previous=previous, absent=(), unreadable=())
    data = payload.get("data")
    if not isinstance(data, dict):
        raise malformed("no data object")
    if read_id(data.get("id", head.pipedrive_id)) != head.pipedrive_id:
        raise malformed("data and meta name different records")
    record = _decode_record(data, catalog)
    record |= {"id": head.pipedrive_id, "is_deleted": record.get("is_deleted", False)}
    told, given = record.setdefault("custom_fields", {}), _custom_of(data)
    if data.get("custom_fields") is not None:  # absent or null, it says nothing of any of them
        for code in _custom_of(_read_object(payload.get("previous"), "previous")):
            if code not in given:
                told[code] = None  # it changed and is not there any more: it was emptied
        unreadable = tuple(code for code in given if code not in told)
    else:
        unreadable = tuple(code for code, definition in catalog.by_code.items() if definition.is_custom)
    absent = tuple(code for code, definition in catalog.by_code.items() if definition.is_custom and code not in given)
    absent = tuple(code for code in absent if code not in told and code not in unreadable)
    return WebhookRecord(head=head, record=record, previous=previous, absent=absent, unreadable=unreadable)


def complete_record(
    webhook: WebhookRecord, snapshot: Mapping[str, Any] | None, used: Collection[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fill what a webhook leaves out from the last snapshot.

    Shape:  webhook with a record, last whole record or None, mapped custom fields and keys given on request
            → (the record, those of the mapped that only a new fetch can tell)
    Keys that webhooks never carry keep their snapshot value. A custom field that was empty and is not mentioned is
    still empty. One that was set and is not mentioned is either unchanged or emptied, and one in a shape that is not
    known has any value: only a fetch can tell.
    """
    assert webhook.record is not None, "a delete has no record"  # noqa: S101 - a caller's mistake
    before = snapshot or {}
    custom_before = before.get("custom_fields") or {}
    untold = (*webhook.absent, *webhook.unreadable)
    filled = {code: custom_before[code] for code in untold if code in custom_before}
    unsure = tuple(code for code in webhook.absent if code in used and filled.get(code, True) is not None)
    unsure += tuple(code for code in webhook.unreadable if code in used)
    record = {**before, **webhook.record}
    record["custom_fields"] = {**filled, **webhook.record["custom_fields"]}
    on_request = tuple(key for key in OPTIONAL[webhook.head.entity] if key in used and key not in record)
    return record, unsure + on_request


def _decode_record(data: dict[str, Any], catalog: FieldCatalog) -> dict[str, Any]:
    """Give a webhook's record the shapes of API v2; custom fields in a shape that is not known are left out.

    Raises: Rejected("webhook_malformed") for another field in such a shape: the whole record is read by its id then.
    """
    record = {
        key: _SYSTEM_DECODERS[key](value) if key in _SYSTEM_DECODERS and value is not None else value
        for key, value in data.items()
        if key not in _NEVER_IN_RECORDS and key != "custom_fields"
    }
    if UNREADABLE in record.values():
        raise malformed("a field in a shape that is not known")
    if "label" in data and "label_ids" not in data:
        record["label_ids"] = _decode_labels(data["label"])
    if record.get("label_ids", ()) is None:
        record["label_ids"] = []
    if data.get("custom_fields") is not None:
        decoded = {code: _decode_custom(code, value, catalog) for code, value in _custom_of(data).items()}
        record["custom_fields"] = {code: value for code, value in decoded.items() if value is not UNREADABLE}
    return record


def _custom_of(data: dict[str, Any]) -> dict[str, Any]:
    return _read_object(data.get("custom_fields"), "custom_fields")


def _decode_custom(code: str, value: Any, catalog: FieldCatalog) -> Any:
    definition = catalog.find(code)
    kind = definition.type if definition is not None else value.get("type") if isinstance(value, dict) else None
    return decode_custom(kind if isinstance(kind, str) else None, value)


def _decode_id(value: Any) -> Any:
    found = value.get("id", value.get("value")) if isinstance(value, dict) else value
    return read_number(found) if type(found) in (int, str) else UNREADABLE


def _decode_members(value: Any) -> Any:
    """Let a list of e-mails or phones pass of which every member shows its value."""
    is_known = isinstance(value, str) or (
        isinstance(value, list)
        and all("value" in member if isinstance(member, dict) else isinstance(member, str) for member in value)
    )
    return value if is_known else UNREADABLE


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
    "visible_to": _decode_id,
    "owner_id": _decode_id,
    "org_id": _decode_id,
    "address": decode_address,
    "postal_address": decode_address,
    "emails": _decode_members,
    "phones": _decode_members,
    "im": _decode_members,
}
"""Record key → how a webhook's value becomes the API's."""
