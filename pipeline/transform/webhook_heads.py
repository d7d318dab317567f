"""Reads the head of a webhook: whom it is about, which event it is, and how old it says it is.

Version 2.0 is what we subscribe to. The older format names the record under other words; of such a one the head alone is
read. Source: https://pipedrive.readme.io/docs/guide-for-webhooks-v2 and .../webhooks-v2-migration-guide
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.kinds import Entity
from pipeline.domain.times import epoch_milliseconds
from pipeline.domain.webhooks import WebhookAction, WebhookHead
from pipeline.errors import Rejected, Skip

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


def decode_head(payload: object) -> WebhookHead:
    """Read whom a webhook is about.

    Raises: Rejected("webhook_malformed"); Skip("not_synchronised") for deals and all else that has no place in Hull.
    """
    meta = payload.get("meta") if isinstance(payload, dict) else None
    if not isinstance(payload, dict) or not isinstance(meta, dict):
        raise malformed("no meta object")
    is_old = "entity" not in meta and "object" in meta
    entity, action = (meta.get("object" if is_old else "entity"), meta.get("action"))
    if not isinstance(entity, str) or not isinstance(action, str):
        raise malformed("meta names no entity and action")
    if entity not in (Entity.PERSON, Entity.ORGANIZATION):
        raise Skip("not_synchronised", "neither a Person nor an Organization")
    known_action = (_OLD_ACTIONS if is_old else _ACTIONS).get(action)
    if known_action is None:
        raise malformed("meta.action is none that is known")
    pipedrive_id = read_id(meta.get("id" if is_old else "entity_id"))
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
        attempt=read_id(meta.get("attempt")) or 1,
        company_id=read_id(meta.get("company_id")),
        merged_to_id=read_id(meta.get("merged_to_id")),
        merged_from_id=read_id(meta.get("merged_from_id")),
        is_old_format=is_old,
    )


def find_head(body: bytes) -> WebhookHead | None:
    """Look for a head in a body that cannot be read whole: cut, too deep, or no JSON. None without an entity and an id.

    Inside a text value the quotes of such a word would be escaped.
    """
    found = {name: match.group(1).decode() for name, word in _WORDS.items() if (match := word.search(body))}
    pipedrive_id = read_id(found.get("entity_id"))
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
        company_id=read_id(found.get("company_id")),
        merged_to_id=None,
        merged_from_id=None,
        is_old_format=False,
    )


def malformed(detail: str) -> Rejected:
    return Rejected("webhook_malformed", detail)


def read_number(value: Any) -> Any:
    """Read digits as a number; anything else stays what it is, for the transform to name."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18 else value


def read_id(value: Any) -> int | None:
    number = read_number(value)
    return number if type(number) is int and 0 < number < 2**63 else None


def _updated_ms(payload: dict[str, Any]) -> int | None:
    data = payload.get("data")
    return epoch_milliseconds(data.get("update_time")) if isinstance(data, dict) else None


def _event_id(payload: dict[str, Any], meta: dict[str, Any]) -> str:
    """Give `meta.id`; where it is missing, a digest of all that does not change from one delivery to the next."""
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
    """Write a value so that the order of keys does not matter."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{_canonical(value[key])}" for key in sorted(value, key=str)) + "}"
    return repr(value)
