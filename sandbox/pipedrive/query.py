"""Read the query string of list and search requests, and write and read page markers.

A marker is unpadded base64url JSON, {"field", "fieldValue", "sortDirection", "id"}, as in the examples of the v2 OpenAPI
file: a keyset position, not a snapshot. Unknown parameters are ignored; a known one that cannot be read is a 400.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import cast

import orjson

from sandbox.company import Invalid, PageQuery
from sandbox.company.generator import rfc3339
from sandbox.company.records import Bound, Row, SortField
from sandbox.company.validation import read_moment
from sandbox.pipedrive.answers import invalid

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
MAX_IDS = 100
MAX_CUSTOM_FIELDS = 15
_HIGHEST_ID = 2**53

Parameters = Mapping[str, str]


def page_query(parameters: Parameters, *, with_organization: bool) -> PageQuery:
    """Read the parameters of GET /api/v2/persons or /organizations.

    The limit is one higher than asked for: the extra row tells whether there is a next page.
    """
    sort_by = cast("SortField", choice(parameters, "sort_by", ("id", "update_time", "add_time")))
    direction = choice(parameters, "sort_direction", ("asc", "desc"))
    after = read_cursor(parameters.get("cursor"), sort_by, direction)
    filtered = "filter_id" in parameters
    if not filtered and "deal_id" in parameters:
        integer(parameters, "deal_id")
    return PageQuery(
        sort_by=sort_by,
        descending=direction == "desc",
        limit=limit(parameters) + 1,
        after=after,
        ids=None if filtered else id_list(parameters),
        owner_id=None if filtered else integer(parameters, "owner_id"),
        org_id=integer(parameters, "org_id") if with_organization and not filtered else None,
        updated_since=instant(parameters, "updated_since"),
        updated_until=instant(parameters, "updated_until"),
    )


def limit(parameters: Parameters) -> int:
    """Read `limit`: 1 to 500, 100 when absent."""
    asked = integer(parameters, "limit")
    if asked is None:
        return DEFAULT_LIMIT
    if not 1 <= asked <= MAX_LIMIT:
        raise invalid(f"limit: must be between 1 and {MAX_LIMIT}")
    return asked


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


def choice(parameters: Parameters, name: str, allowed: tuple[str, ...]) -> str:
    """Read one of several words; the first is the default."""
    value = parameters.get(name, allowed[0])
    if value not in allowed:
        raise invalid(f"{name}: must be one of {', '.join(allowed)}")
    return value


def words(parameters: Parameters, name: str) -> list[str]:
    """Read a comma separated list."""
    return [word.strip() for word in parameters.get(name, "").split(",") if word.strip()]


def id_list(parameters: Parameters) -> tuple[int, ...] | None:
    """Read `ids`, at most a hundred."""
    if "ids" not in parameters:
        return None
    ids = words(parameters, "ids")
    if len(ids) > MAX_IDS:
        raise invalid(f"ids: at most {MAX_IDS} ids can be requested")
    return tuple(integer({"ids": word}, "ids") or 0 for word in ids)


def instant(parameters: Parameters, name: str) -> int | None:
    """Read an RFC 3339 time of whole seconds as epoch seconds; fractions are refused, as the live API was seen to do."""
    if name not in parameters:
        return None
    try:
        return int(datetime.fromisoformat(read_moment(parameters[name], name)).timestamp())
    except Invalid as error:
        raise invalid(str(error)) from error


def write_cursor(row: Row, query: PageQuery) -> str:
    """Mark the position after a row."""
    value = row.id if query.sort_by == "id" else rfc3339(getattr(row, query.sort_by)).decode()
    direction = "desc" if query.descending else "asc"
    return encode_cursor({"field": query.sort_by, "fieldValue": value, "sortDirection": direction, "id": row.id})


def read_cursor(cursor: str | None, sort_by: SortField, direction: str) -> Bound | None:
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
    return cast("int", instant({"cursor": value}, "cursor")), cast("int", record_id)


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


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _HIGHEST_ID
