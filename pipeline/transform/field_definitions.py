"""Reads the lists of fields that Pipedrive gives, of either version of its interface, into field definitions.

Version 2 describes a field by `field_code, field_name, field_type, options, is_custom_field`; version 1 by `key, name,
field_type, options`, and lists the parts of a composed field (`<hash>_currency`) as rows of their own.
Source: https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide (Fields API)
"""

from __future__ import annotations

from typing import Any, TypeGuard

from pipeline.domain.fields import FieldDefinition
from pipeline.transform.field_sources import is_custom_code
from pipeline.transform.record_shapes import PARTS
from pipeline.transform.texts import is_usable


def read_field_definitions(rows: list[object]) -> list[FieldDefinition]:
    """Read every field that is in use, in Pipedrive's order.

    Left out are deleted fields, the rows of parts, and rows without a code or a type: a setting that names one of these
    is then reported as `field_missing` when the mapping is compiled.
    """
    found: dict[str, FieldDefinition] = {}
    for row in rows:
        definition = _read_row(row)
        if definition is not None:
            found.setdefault(definition.code, definition)
    return [definition for definition in found.values() if not _is_part(definition.code, found)]


def _read_row(row: object) -> FieldDefinition | None:
    if not isinstance(row, dict) or row.get("active_flag") is False or row.get("is_subfield") is True:
        return None
    code, kind = row.get("field_code", row.get("key")), row.get("field_type")
    if not _is_text(code) or not _is_text(kind):
        return None
    name = row.get("field_name", row.get("name"))
    return FieldDefinition(
        code=code,
        name=name if _is_text(name) else code,
        type=kind,
        is_custom=is_custom_code(code) if row.get("is_custom_field") is None else row["is_custom_field"] is True,
        options=_read_options(row.get("options")),
    )


def _read_options(rows: Any) -> dict[int | str, str]:
    """Read `[{id, label}]`: ids are numbers for custom fields, words for some of Pipedrive's own."""
    if not isinstance(rows, list):
        return {}
    options: dict[int | str, str] = {}
    for row in rows:
        if isinstance(row, dict) and type(row.get("id")) in (int, str) and _is_text(row.get("label")):
            options[row["id"]] = row["label"]
    return options


def _is_part(code: str, found: dict[str, FieldDefinition]) -> bool:
    """Tell the row of a part, `<code>_<part>`, from a field whose own code happens to end like one."""
    for kind, parts in PARTS.items():
        for part in (*parts, "timezone_name"):
            whole = found.get(code.removesuffix(f"_{part}"))
            if whole is not None and whole.code != code and whole.type == kind:
                return True
    return False


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and is_usable(value)
