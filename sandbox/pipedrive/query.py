"""The query string of list and search requests: read it, write and read page markers, and reshape bodies by it.

A marker is unpadded base64url JSON, {"field", "fieldValue", "sortDirection", "id"}, as in the examples of the v2 OpenAPI
file: a keyset position, not a snapshot. Unknown parameters are ignored; a known one that cannot be read is a 400.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

import orjson

from sandbox.company import Company, Entity, Field, Invalid, PageQuery, Record
from sandbox.company.fields import OPTIONAL_FIELDS
from sandbox.company.generator import rfc3339
from sandbox.company.records import Bound, Row, SortField, decode, encode
from sandbox.company.validation import read_moment
from sandbox.pipedrive.answers import invalid

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 500
_MAX_IDS = 100
_MAX_CUSTOM_FIELDS = 15
_HIGHEST_ID = 2**53
Parameters = Mapping[str, str]
_Step = Callable[[Record], None]


def page_query(parameters: Parameters, *, with_organization: bool) -> PageQuery:
    """Read the parameters of GET /api/v2/persons or /organizations.

    The limit is one higher than requested: the extra row shows whether there is a next page.
    """
    sort_by = cast("SortField", _choice(parameters, "sort_by", ("id", "update_time", "add_time")))
    direction = _choice(parameters, "sort_direction", ("asc", "desc"))
    after = _read_position(parameters.get("cursor"), sort_by, direction)
    filtered = "filter_id" in parameters
    if not filtered and "deal_id" in parameters:
        integer(parameters, "deal_id")
    return PageQuery(
        sort_by=sort_by,
        descending=direction == "desc",
        limit=limit(parameters) + 1,
        after=after,
        ids=None if filtered else _id_list(parameters),
        owner_id=None if filtered else integer(parameters, "owner_id"),
        org_id=integer(parameters, "org_id") if with_organization and not filtered else None,
        updated_since=_instant(parameters, "updated_since"),
        updated_until=_instant(parameters, "updated_until"),
    )


def write_cursor(row: Row, query: PageQuery) -> str:
    """Mark the position after a row."""
    value = row.id if query.sort_by == "id" else rfc3339(getattr(row, query.sort_by)).decode()
    direction = "desc" if query.descending else "asc"
    return encode_cursor({"field": query.sort_by, "fieldValue": value, "sortDirection": direction, "id": row.id})


def encode_cursor(marker: dict[str, object]) -> str:
    """Write a marker."""
    return base64.urlsafe_b64encode(orjson.dumps(marker)).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> dict[str, object]:
    """Read a marker, whatever it marks."""
    try:
        marker = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise invalid("cursor: is malformed") from error
    if not isinstance(marker, dict):
        raise invalid("cursor: is malformed")
    return marker


def limit(parameters: Parameters) -> int:
    """Read `limit`: 1 to 500, 100 when absent."""
    wanted = integer(parameters, "limit")
    if wanted is None:
        return _DEFAULT_LIMIT
    if not 1 <= wanted <= _MAX_LIMIT:
        raise invalid(f"limit: must be between 1 and {_MAX_LIMIT}")
    return wanted


def integer(parameters: Parameters, name: str) -> int | None:
    """Read an integer parameter."""
    value = parameters.get(name)
    if value is None:
        return None
    if not value.lstrip("-").isascii() or not value.lstrip("-").isdigit() or len(value) > 16:
        raise invalid(f"{name}: {value!r} is not an integer")
    return int(value)


def boolean(parameters: Parameters, name: str) -> bool:
    """Read a boolean parameter, false when absent."""
    value = parameters.get(name, "false").lower()
    if value not in {"true", "false", "1", "0"}:
        raise invalid(f"{name}: must be a boolean")
    return value in {"true", "1"}


def words(parameters: Parameters, name: str) -> list[str]:
    """Read a comma separated list."""
    return [word.strip() for word in parameters.get(name, "").split(",") if word.strip()]


def reshape(company: Company, entity: Entity, parameters: Parameters, bodies: list[bytes]) -> list[bytes]:
    """Apply `custom_fields`, `include_fields`, `include_labels` and `include_option_labels`."""
    steps = [
        step for make in (_selection, _extras, _labels, _option_labels) if (step := make(company, entity, parameters))
    ]
    return [_apply(steps, body) for body in bodies] if steps else bodies


def _id_list(parameters: Parameters) -> tuple[int, ...] | None:
    """Read `ids`, at most a hundred."""
    if "ids" not in parameters:
        return None
    ids = words(parameters, "ids")
    if len(ids) > _MAX_IDS:
        raise invalid(f"ids: at most {_MAX_IDS} ids can be requested")
    return tuple(integer({"ids": word}, "ids") or 0 for word in ids)


def _instant(parameters: Parameters, name: str) -> int | None:
    """Read an RFC 3339 time of whole seconds as epoch seconds; fractions are refused, as the live API was seen to do."""
    if name not in parameters:
        return None
    try:
        return int(datetime.fromisoformat(read_moment(parameters[name], name)).timestamp())
    except Invalid as error:
        raise invalid(str(error)) from error


def _choice(parameters: Parameters, name: str, allowed: tuple[str, ...]) -> str:
    """Read one of several words; the first is the default."""
    value = parameters.get(name, allowed[0])
    if value not in allowed:
        raise invalid(f"{name}: must be one of {', '.join(allowed)}")
    return value


def _read_position(cursor: str | None, sort_by: SortField, direction: str) -> Bound | None:
    """Read a marker, which must have been made under the same sort order."""
    if cursor is None:
        return None
    marker = decode_cursor(cursor)
    if (marker.get("field"), marker.get("sortDirection")) != (sort_by, direction):
        raise invalid("cursor: was issued for another sort order")
    record_id, value = marker.get("id"), marker.get("fieldValue")
    if not _is_id(record_id):
        raise invalid("cursor: is malformed")
    if sort_by == "id":
        return cast("int", record_id), cast("int", record_id)
    if not isinstance(value, str):
        raise invalid("cursor: is malformed")
    return cast("int", _instant({"cursor": value}, "cursor")), cast("int", record_id)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _HIGHEST_ID


def _apply(steps: list[_Step], body: bytes) -> bytes:
    record = decode(body)
    try:
        for step in steps:
            step(record)
    except (TypeError, ValueError, AttributeError, KeyError):
        return body  # malformed on purpose: what cannot be reshaped is given as it is
    return encode(record)


def _selection(company: Company, entity: Entity, parameters: Parameters) -> _Step | None:
    if "custom_fields" not in parameters:
        return None
    codes = words(parameters, "custom_fields")
    if len(codes) > _MAX_CUSTOM_FIELDS:
        raise invalid(f"custom_fields: at most {_MAX_CUSTOM_FIELDS} fields can be requested")
    known = {field.code for field in company.custom_fields(entity)}

    def select(record: Record) -> None:
        held = _members(record)
        record["custom_fields"] = {code: held.get(code) for code in codes if code in known}

    return select


def _extras(company: Company, entity: Entity, parameters: Parameters) -> _Step | None:
    wanted = words(parameters, "include_fields")
    kinds = OPTIONAL_FIELDS[entity]
    for name in wanted:
        if name not in kinds:
            raise invalid(f"include_fields: {name} is not one of the optional fields")

    def extend(record: Record) -> None:
        record.update({name: _extra(company, entity, record, name) for name in wanted})

    return extend if wanted else None


def _extra(company: Company, entity: Entity, record: Record, name: str) -> Any:
    """Make up an optional member; the counters follow from the id, so that they stay the same."""
    if name == "smart_bcc_email":
        return f"{company.domain}+{entity}{record.get('id')}@pipedrivemail.com"
    if name == "marketing_status":
        return "no_consent"
    if OPTIONAL_FIELDS[entity][name] != "int":
        return None
    return hashlib.blake2b(f"{name}:{record.get('id')}".encode(), digest_size=1).digest()[0] % 7


def _labels(company: Company, entity: Entity, parameters: Parameters) -> _Step | None:
    if not boolean(parameters, "include_labels"):
        return None
    field = company.field(entity, "label_ids")
    spelt = _spelt(field) if field else {}

    def label(record: Record) -> None:
        record["labels"] = [spelt[number] for number in record.get("label_ids") or () if number in spelt]

    return label


def _option_labels(company: Company, entity: Entity, parameters: Parameters) -> _Step | None:
    if not boolean(parameters, "include_option_labels"):
        return None
    spelt = {field.code: _spelt(field) for field in company.custom_fields(entity) if field.options}

    def spell(record: Record) -> None:
        held = _members(record)
        for code, options in spelt.items():
            value = held.get(code)
            if isinstance(value, list):
                held[code] = [options.get(number, {"id": number, "label": None}) for number in value]
            elif value is not None:
                held[code] = options.get(value, {"id": value, "label": None})

    return spell


def _spelt(field: Field) -> dict[int | str, dict[str, Any]]:
    return {option.id: {"id": option.id, "label": option.label} for option in field.options}


def _members(record: Record) -> dict[str, Any]:
    held = record.get("custom_fields")
    return held if isinstance(held, dict) else {}
