"""Reshape bodies as the query string asks: chosen custom fields, extra members, labels spelt out.

In: stored bodies. Out: bodies. Nothing asked: the very same bytes, which keeps the usual page fast.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from sandbox.company import Company, Entity, Field, Record
from sandbox.company.fields import OPTIONAL_FIELDS
from sandbox.company.records import decode, encode
from sandbox.pipedrive import query
from sandbox.pipedrive.answers import invalid

Step = Callable[[Record], None]


def reshape(company: Company, entity: Entity, parameters: query.Parameters, bodies: list[bytes]) -> list[bytes]:
    """Apply `custom_fields`, `include_fields`, `include_labels` and `include_option_labels`."""
    steps = [
        step for make in (_selection, _extras, _labels, _option_labels) if (step := make(company, entity, parameters))
    ]
    return [_apply(steps, body) for body in bodies] if steps else bodies


def _apply(steps: list[Step], body: bytes) -> bytes:
    record = decode(body)
    try:
        for step in steps:
            step(record)
    except (TypeError, ValueError, AttributeError, KeyError):
        return body  # malformed on purpose: what cannot be reshaped is given as it is
    return encode(record)


def _selection(company: Company, entity: Entity, parameters: query.Parameters) -> Step | None:
    if "custom_fields" not in parameters:
        return None
    codes = query.words(parameters, "custom_fields")
    if len(codes) > query.MAX_CUSTOM_FIELDS:
        raise invalid(f"custom_fields: at most {query.MAX_CUSTOM_FIELDS} fields can be requested")
    known = {field.code for field in company.custom_fields(entity)}

    def select(record: Record) -> None:
        held = _members(record)
        record["custom_fields"] = {code: held.get(code) for code in codes if code in known}

    return select


def _extras(company: Company, entity: Entity, parameters: query.Parameters) -> Step | None:
    asked = query.words(parameters, "include_fields")
    kinds = OPTIONAL_FIELDS[entity]
    for name in asked:
        if name not in kinds:
            raise invalid(f"include_fields: {name} is not one of the optional fields")

    def extend(record: Record) -> None:
        record.update({name: _extra(company, entity, record, name) for name in asked})

    return extend if asked else None


def _extra(company: Company, entity: Entity, record: Record, name: str) -> Any:
    """Make up an optional member; the counters follow from the id, so that they stay the same."""
    if name == "smart_bcc_email":
        return f"{company.domain}+{entity}{record.get('id')}@pipedrivemail.com"
    if name == "marketing_status":
        return "no_consent"
    if OPTIONAL_FIELDS[entity][name] != "int":
        return None
    return hashlib.blake2b(f"{name}:{record.get('id')}".encode(), digest_size=1).digest()[0] % 7


def _labels(company: Company, entity: Entity, parameters: query.Parameters) -> Step | None:
    if not query.boolean(parameters, "include_labels"):
        return None
    field = company.field(entity, "label_ids")
    spelt = _spelt(field) if field else {}

    def label(record: Record) -> None:
        record["labels"] = [spelt[number] for number in record.get("label_ids") or () if number in spelt]

    return label


def _option_labels(company: Company, entity: Entity, parameters: query.Parameters) -> Step | None:
    if not query.boolean(parameters, "include_option_labels"):
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
