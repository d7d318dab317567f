"""Convert the body of a webhook to the record that a fetch of the same state would return.

Webhooks have every custom value as an object with its type, ids of the head as text, `visible_to` as text and
missing parts of an address as `""`. This module removes all of that: later code sees one format.
Source: https://pipedrive.readme.io/docs/guide-for-webhooks-v2 and .../webhooks-v2-migration-guide
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pipeline.domain.deletions import DeletionNotice
from pipeline.domain.fields import OPTIONAL, FieldCatalog
from pipeline.domain.kinds import Entity, parse_record_id
from pipeline.domain.times import epoch_milliseconds
from pipeline.errors import Rejected, Skip
from pipeline.transform.webhook_values import UNREADABLE, decode_address, decode_custom


class WebhookAction(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookHead:
    """The head of a webhook, read when it is received, before its fields.

    event_id         the same for every delivery of one event
    sent_at_ms       `meta.timestamp` in milliseconds since the epoch: finer than any `update_time`
    updated_ms       the record's `update_time`, if it has one
    attempt          1 for the first delivery
    merged_to_id     on the delete of a record that was merged into another: that other record
    merged_from_id   on the change of a record that another was merged into: the merged record
    is_old_format    of version 1.0: only the record's id is used
    """

    entity: Entity
    action: WebhookAction
    pipedrive_id: int
    event_id: str
    sent_at_ms: int
    updated_ms: int | None
    attempt: int
    company_id: int | None
    merged_to_id: int | None
    merged_from_id: int | None
    is_old_format: bool

    @property
    def latest_ms(self) -> int:
        """Return the later of `meta.timestamp` and the record's `update_time`."""
        return max(self.sent_at_ms, self.updated_ms or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRecord:
    """A webhook in the format of API v2.

    record      the record as a fetch would have returned it, less what webhooks omit; None after a delete
    previous    record key → value before the change, custom fields under `custom_fields`; after a delete the last state
    absent      codes of custom fields that are missing in the webhook
    unreadable  codes of those in an unknown format; of all of them if it has no custom fields
    """

    head: WebhookHead
    record: dict[str, Any] | None
    previous: dict[str, Any]
    absent: tuple[str, ...]
    unreadable: tuple[str, ...]


_NEVER_IN_RECORDS: Final = frozenset({"country_code", "label"})
"""Keys of webhooks that API v2 records do not have, under these names."""


def decode_head(payload: object) -> WebhookHead:
    """Return the head of a webhook.

    Raises: Rejected("webhook_malformed"); Skip("not_synchronized") for deals and everything else that Hull does not need.
    """
    meta = payload.get("meta") if isinstance(payload, dict) else None
    if not isinstance(payload, dict) or not isinstance(meta, dict):
        raise malformed("no meta object")
    is_old = "entity" not in meta and "object" in meta
    entity, action = (meta.get("object" if is_old else "entity"), meta.get("action"))
    if not isinstance(entity, str) or not isinstance(action, str):
        raise malformed("meta has no entity or no action")
    if entity not in (Entity.PERSON, Entity.ORGANIZATION):
        raise Skip("not_synchronized", "neither a Person nor an Organization")
    known_action = (_OLD_ACTIONS if is_old else _ACTIONS).get(action)
    if known_action is None:
        raise malformed("meta.action is not known")
    pipedrive_id = parse_record_id(meta.get("id" if is_old else "entity_id"))
    sent_at_ms = epoch_milliseconds(meta.get("timestamp"))
    if pipedrive_id is None or sent_at_ms is None:
        raise malformed("meta has no readable id and timestamp")
    return WebhookHead(
        entity=Entity(entity),
        action=known_action,
        pipedrive_id=pipedrive_id,
        event_id=_digest(payload, meta) if is_old else _event_id(payload, meta),
        sent_at_ms=sent_at_ms,
        updated_ms=_updated_ms(payload),
        attempt=parse_record_id(meta.get("attempt")) or 1,
        company_id=parse_record_id(meta.get("company_id")),
        merged_to_id=parse_record_id(meta.get("merged_to_id")),
        merged_from_id=parse_record_id(meta.get("merged_from_id")),
        is_old_format=is_old,
    )


def decode_webhook(payload: object, catalog: FieldCatalog) -> WebhookRecord:
    """Read a whole webhook.

    Raises: Rejected("webhook_malformed"); Skip("not_synchronized").
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
    if parse_record_id(data.get("id", head.pipedrive_id)) != head.pipedrive_id:
        raise malformed("data and meta name different records")
    record = _decode_record(data, catalog)
    record |= {"id": head.pipedrive_id, "is_deleted": record.get("is_deleted", False)}
    decoded, given = record.setdefault("custom_fields", {}), _custom_of(data)
    if data.get("custom_fields") is not None:  # absent or null: unknown for all of them
        for code in _custom_of(_read_object(payload.get("previous"), "previous")):
            if code not in given:
                decoded[code] = None  # it changed and is missing now: it was emptied
        unreadable = tuple(code for code in given if code not in decoded)
    else:
        unreadable = tuple(code for code, definition in catalog.by_code.items() if definition.is_custom)
    absent = tuple(code for code, definition in catalog.by_code.items() if definition.is_custom and code not in given)
    absent = tuple(code for code in absent if code not in decoded and code not in unreadable)
    return WebhookRecord(head=head, record=record, previous=previous, absent=absent, unreadable=unreadable)


def complete_record(
    webhook: WebhookRecord, snapshot: Mapping[str, Any] | None, used: Collection[str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Complete a webhook from the last snapshot.

    Shape:  webhook with a record, last complete record or None, mapped custom fields and keys returned on request
            → (the record, those mapped fields that need a new fetch)
    Keys that webhooks never have keep their snapshot value. A custom field that was empty and is not mentioned is
    still empty. One that was set and is not mentioned is either unchanged or emptied, and one in an unknown format
    may have any value: both need a fetch.
    """
    assert webhook.record is not None, "a delete has no record"  # noqa: S101 - a caller's mistake
    before = snapshot or {}
    custom_before = before.get("custom_fields") or {}
    omitted = (*webhook.absent, *webhook.unreadable)
    filled = {code: custom_before[code] for code in omitted if code in custom_before}
    unsure = tuple(code for code in webhook.absent if code in used and filled.get(code, True) is not None)
    unsure += tuple(code for code in webhook.unreadable if code in used)
    record = {**before, **webhook.record}
    record["custom_fields"] = {**filled, **webhook.record["custom_fields"]}
    on_request = tuple(key for key in OPTIONAL[webhook.head.entity] if key in used and key not in record)
    return record, unsure + on_request


def deletion_notice(payload: object, pipedrive_id: int) -> DeletionNotice | None:
    """Return the deletion notice of a webhook for this record: its own delete, or the change of the record it was
    merged into.

    None if it contains no deletion, or that of another record.
    """
    try:
        head = decode_head(payload)
    except (Rejected, Skip):
        return None
    if head.pipedrive_id == pipedrive_id and head.action is WebhookAction.DELETE:
        merged_into = head.merged_to_id if head.merged_to_id != pipedrive_id else None
        return DeletionNotice(at_ms=head.sent_at_ms, merged_into=merged_into)
    if head.merged_from_id == pipedrive_id != head.pipedrive_id:
        return DeletionNotice(at_ms=head.sent_at_ms, merged_into=head.pipedrive_id)
    return None


def find_head(body: bytes) -> WebhookHead | None:
    """Search a body that cannot be parsed (cut off, too deep, or not JSON) for a head. None without an entity and an id.

    Inside a text value the quotes of these words would be escaped.
    """
    found = {name: match.group(1).decode() for name, word in _WORDS.items() if (match := word.search(body))}
    pipedrive_id = parse_record_id(found.get("entity_id"))
    if pipedrive_id is None or found.get("entity") not in (Entity.PERSON, Entity.ORGANIZATION):
        return None
    return WebhookHead(
        entity=Entity(found["entity"]),
        action=_ACTIONS.get(found.get("action", ""), WebhookAction.CHANGE),
        pipedrive_id=pipedrive_id,
        event_id=hashlib.blake2b(body, digest_size=16).hexdigest(),
        sent_at_ms=epoch_milliseconds(found.get("timestamp")) or 0,
        updated_ms=None,
        attempt=1,
        company_id=parse_record_id(found.get("company_id")),
        merged_to_id=None,
        merged_from_id=None,
        is_old_format=False,
    )


def _decode_record(data: dict[str, Any], catalog: FieldCatalog) -> dict[str, Any]:
    """Return a webhook's record in the format of API v2, without custom fields in an unknown format.

    Raises: Rejected("webhook_malformed") for other fields in an unknown format: the record is then read by its id.
    """
    record = {
        key: _SYSTEM_DECODERS[key](value) if key in _SYSTEM_DECODERS and value is not None else value
        for key, value in data.items()
        if key not in _NEVER_IN_RECORDS and key != "custom_fields"
    }
    if UNREADABLE in record.values():
        raise malformed("a field in an unknown format")
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
    """Return a list of e-mails or phones if every member has a value."""
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
        raise malformed(f"{name} is not an object")
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
"""Record key → the decoder of a webhook's value."""


_ACTIONS: Final = {action.value: action for action in WebhookAction}
_OLD_ACTIONS: Final[Mapping[str, WebhookAction]] = {
    "added": WebhookAction.CREATE,
    "updated": WebhookAction.CHANGE,
    "merged": WebhookAction.CHANGE,
    "deleted": WebhookAction.DELETE,
}
_WORDS: Final = {
    name: re.compile(rb'(?<!\\)"%s"\s*:\s*"?([A-Za-z0-9_.:+-]{1,40})' % name.encode())
    for name in ("entity", "entity_id", "action", "timestamp", "company_id")
}
_DIFFERS_BY_DELIVERY: Final = frozenset({"attempt", "webhook_id"})


def read_number(value: Any) -> Any:
    """Return digits as a number; anything else unchanged, so that the transform reports it."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18 else value


def _updated_ms(payload: dict[str, Any]) -> int | None:
    data = payload.get("data")
    return epoch_milliseconds(data.get("update_time")) if isinstance(data, dict) else None


def _event_id(payload: dict[str, Any], meta: dict[str, Any]) -> str:
    """Return `meta.id`; if it is missing, a digest of everything that is the same in each delivery."""
    given = meta.get("id")
    return given if isinstance(given, str) and 0 < len(given) <= 255 else _digest(payload, meta)


def _digest(payload: dict[str, Any], meta: dict[str, Any]) -> str:
    same = {key: value for key, value in meta.items() if key not in _DIFFERS_BY_DELIVERY}
    stable = {**{key: value for key, value in payload.items() if key != "retry"}, "meta": same}
    try:
        text = _canonical(stable)
    except RecursionError:
        raise malformed("nested too deeply") from None
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=16).hexdigest()


def _canonical(value: Any) -> str:
    """Return a text of a value that does not depend on the order of keys."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{_canonical(value[key])}" for key in sorted(value, key=str)) + "}"
    return repr(value)


def malformed(detail: str) -> Rejected:
    return Rejected("webhook_malformed", detail)
