"""Bodies: a record as v2 JSON bytes, and as a dict.

In and out: what `GET /api/v2/persons/{id}` has under `data`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson

from sandbox.company.fields import FIRMOGRAPHICS, Entity

Record = dict[str, Any]


def decode(body: bytes) -> Record:
    """Read a stored body; the standard library's reader takes what orjson refuses, such as a lone surrogate."""
    try:
        record: Record = orjson.loads(body)
    except orjson.JSONDecodeError:
        record = json.loads(body)
    return record


def encode(record: Record) -> bytes:
    """Write a body, escaping what orjson refuses to write."""
    try:
        return orjson.dumps(record)
    except (TypeError, orjson.JSONEncodeError):
        return json.dumps(record).encode()


def reshape(body: bytes, codes: list[str]) -> bytes:
    """Bring `custom_fields` in line with the fields as they stand: all of them, null where unset, and no others."""
    record = decode(body)
    held = record.get("custom_fields") or {}
    record["custom_fields"] = {code: held.get(code) for code in codes}
    return encode(record)


def blank(entity: Entity, record_id: int, now: str, owner_id: int, *, firmographics: bool) -> Record:
    """Make a record of which nothing is known but its owner and its time, members in their usual order."""
    stamps = {"add_time": now, "update_time": now}
    shared = {"is_deleted": False, "visible_to": 3, "label_ids": [], "picture_id": None}
    if entity == "person":
        names = {"name": None, "first_name": None, "last_name": None}
        contacts: Record = {"emails": [], "phones": []}
        return {"id": record_id, **names, "owner_id": owner_id, "org_id": None, **stamps, **contacts, **shared}
    more = {code: None for code, _, _ in FIRMOGRAPHICS} if firmographics else {}
    return {"id": record_id, "name": None, "owner_id": owner_id, **stamps, **shared, "address": None, **more}


def completed(kept: Record, lost: Record) -> Record:
    """Fill the empty members and custom fields of one record from another; names are never mixed."""
    fixed = {"id", "name", "first_name", "last_name", "add_time", "update_time", "is_deleted", "custom_fields"}
    filled = {key: value for key, value in lost.items() if key not in fixed and _empty(kept.get(key))}
    held, given = kept.get("custom_fields"), lost.get("custom_fields")
    if isinstance(held, dict) and isinstance(given, dict):
        filled["custom_fields"] = held | {code: value for code, value in given.items() if _empty(held.get(code))}
    return {**kept, **filled}


def _empty(value: Any) -> bool:
    return value is None or value in ("", [])


def seconds(value: Any, otherwise: int) -> int:
    """Read a time of a body as epoch seconds, `otherwise` where it is none."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return otherwise
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def plain_integer(value: Any) -> int | None:
    """Read a reference of a body, None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None
