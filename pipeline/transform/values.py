"""Turns a field's value into the value of a Hull attribute: one reader per kind of field, found in a table.

Shape:  API v2 value (never None) → text, number, boolean, list of texts, or None where Pipedrive holds nothing
Raises: Rejected(reason, detail) for a value its field cannot have; the detail never repeats the value.
Source: https://pipedrive.readme.io/docs/core-api-concepts-custom-fields and the migration guide's "Custom Fields"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from pipeline.transform.field_definitions import UNKNOWN, FieldSource
from pipeline.transform.reading.composed import (
    read_address,
    read_amount,
    read_date_of,
    read_list,
    read_part,
    read_primary,
    read_time_of,
    read_until,
    read_zone,
)
from pipeline.transform.reading.options import (
    enum_reader,
    options_reader,
    read_ids,
    read_plain_ids,
    set_reader,
)
from pipeline.transform.reading.simple import (
    read_boolean,
    read_id,
    read_moment,
    read_negated,
    read_number,
    read_plain,
    read_text,
    read_unknown,
)

Reader = Callable[[Any], Any]
"""Value of a field, not None → value of an attribute."""


def reader_for(source: FieldSource, form: str) -> Reader:
    """Return how one field is read. `form` is that of the AttributeMapping: default, id or list."""
    if source.part is not None:
        return _PARTS[source.part] if source.part in _PARTS else partial(read_part, source.part)
    if source.type == "enum":
        return read_id if form == "id" else enum_reader(source.options)
    if source.type in ("set", "labels"):
        return read_ids if form == "id" else set_reader(source.options)
    if source.type in ("emails", "phones") and form == "list":
        return read_list
    if source.type not in INCOMING and source.options:
        return read_plain_ids if form == "id" else options_reader(source.options)
    return INCOMING.get(source.type, read_plain)


INCOMING: Final[Mapping[str, Reader]] = {
    "varchar": read_text,
    "varchar_auto": read_text,
    "text": read_text,
    "phone": read_text,
    "int": read_number,
    "double": read_number,
    "boolean": read_boolean,
    "negated": read_negated,
    "monetary": read_amount,
    "date": partial(read_date_of, "value"),
    "daterange": partial(read_date_of, "value"),
    "time": partial(read_time_of, "value"),
    "timerange": partial(read_time_of, "value"),
    "moment": read_moment,
    "address": read_address,
    "user": read_id,
    "people": read_id,
    "org": read_id,
    "deal": read_id,
    "lead": read_id,
    "activity": read_id,
    "project": read_id,
    "stage": read_id,
    "picture": read_id,
    "visible_to": read_number,
    UNKNOWN: read_unknown,
    "emails": read_primary,
    "phones": read_primary,
}
"""Kind of field → its default reader; other kinds are passed unchanged."""


_PARTS: Final[Mapping[str, Reader]] = {"until": read_until, "timezone_id": read_zone}
