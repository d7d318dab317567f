"""Field definitions: read and managed under v2, read in the older form under v1.

Sources: the OpenAPI files, paths /personFields and /organizationFields.
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response, request

from sandbox.app import json_answer
from sandbox.company import Company, Entity, Field, Option
from sandbox.company.fields import CREATABLE_TYPES, to_v1, to_v2
from sandbox.pipedrive import answers, query
from sandbox.pipedrive.records import json_body, json_object

MAX_NAME = 255
SETTINGS = ("ui_visibility", "important_fields", "required_fields")
_DIALOG = {"show": False, "order": None}
_SETTINGS: dict[str, dict[str, Any]] = {
    "ui_visibility": {"add_visible_flag": False, "details_visible_flag": True, "show_in_add_deal_dialog": _DIALOG},
    "important_fields": {"enabled": False, "stage_ids": []},
    "required_fields": {"enabled": False},
}


def list_v2(company: Company, entity: Entity) -> Response:
    """Answer GET /api/v2/personFields."""
    parameters = request.args
    wanted = query.limit(parameters)
    cursor = parameters.get("cursor")
    after = query.decode_cursor(cursor).get("id", 0) if cursor is not None else 0
    if not isinstance(after, int):
        raise answers.invalid("cursor: is malformed")
    fields = sorted((field for field in company.fields[entity] if field.id > after), key=lambda field: field.id)
    marker = None
    if len(fields) > wanted:
        last = fields[wanted - 1].id
        marker = query.encode_cursor({"field": "id", "fieldValue": last, "sortDirection": "asc", "id": last})
    bodies = [orjson.dumps(to_v2(field) | _settings(parameters)) for field in fields[:wanted]]
    return answers.page(bodies, marker)


def get_v2(company: Company, entity: Entity, code: str) -> Response:
    """Answer GET /api/v2/personFields/{field_code}."""
    return answers.item(orjson.dumps(to_v2(_known(company, entity, code)) | _settings(request.args)))


def list_v1(company: Company, entity: Entity) -> Response:
    """Answer GET /v1/personFields, with the paging members in both places clients look for them."""
    start = query.integer(request.args, "start") or 0
    wanted = query.limit(request.args)
    rows = [row for n, field in enumerate(company.fields[entity], 1) for row in to_v1(field, n)]
    more = len(rows) > start + wanted
    paging: dict[str, Any] = {"start": start, "limit": wanted, "more_items_in_collection": more}
    nested = {**paging, "next_start": start + wanted} if more else paging
    additional = {**paging, "pagination": nested}
    return json_answer({"success": True, "data": rows[start : start + wanted], "additional_data": additional})


def create(company: Company, entity: Entity) -> Response:
    """Answer POST /api/v2/personFields."""
    body = json_object()
    _refuse_unknown(body, {"field_name", "field_type", "options", "description", *SETTINGS})
    kind = body.get("field_type")
    if kind not in CREATABLE_TYPES:
        raise answers.invalid(f"field_type: must be one of {', '.join(CREATABLE_TYPES)}")
    labels = _labels(body.get("options") or [])
    if (kind in {"enum", "set"}) != bool(labels):
        raise answers.invalid("options: Required for enum and set fields, and only for them")
    field = company.add_field(entity, name=_name(body.get("field_name")), kind=kind, labels=labels)
    return answers.item(orjson.dumps(to_v2(field)))


def update(company: Company, entity: Entity, code: str) -> Response:
    """Answer PATCH /api/v2/personFields/{field_code}: the name; code and type stay."""
    field = _known(company, entity, code)
    body = json_object()
    _refuse_unknown(body, {"field_name", "description", *SETTINGS})
    if not body:
        raise answers.invalid("body: at least one property is required")
    if "field_name" in body:
        field = company.change_field(entity, field, name=_name(body["field_name"]))
    return answers.item(orjson.dumps(to_v2(field)))


def delete(company: Company, entity: Entity, code: str) -> Response:
    """Answer DELETE /api/v2/personFields/{field_code}."""
    field = _known(company, entity, code)
    if not field.custom:
        raise answers.gateway(403, "System fields cannot be deleted")
    company.remove_field(entity, code)
    return answers.item(orjson.dumps(to_v2(field)))


def add_options(company: Company, entity: Entity, code: str) -> Response:
    """Answer POST .../options with the options that were added."""
    added = company.add_options(entity, _choosable(company, entity, code), _labels(json_body(), at_least=1))
    return _options(added)


def rename_options(company: Company, entity: Entity, code: str) -> Response:
    """Answer PATCH .../options: all or none."""
    field = _choosable(company, entity, code)
    items = json_body()
    ids = _option_ids(field, items)
    renamed = [Option(id=number, label=label) for number, label in zip(ids, _labels(items), strict=True)]
    by_id = {option.id: option for option in renamed}
    company.change_field(entity, field, options=tuple(by_id.get(option.id, option) for option in field.options))
    return _options(renamed)


def remove_options(company: Company, entity: Entity, code: str) -> Response:
    """Answer DELETE .../options with the options that are gone: all or none."""
    field = _choosable(company, entity, code)
    ids = set(_option_ids(field, json_body()))
    company.change_field(entity, field, options=tuple(option for option in field.options if option.id not in ids))
    return _options([option for option in field.options if option.id in ids])


def _options(options: list[Option]) -> Response:
    data = [{"id": option.id, "label": option.label} for option in options]
    return json_answer({"success": True, "data": data, "additional_data": None})


def _settings(parameters: query.Parameters) -> dict[str, Any]:
    wanted = query.words(parameters, "include_fields")
    for name in wanted:
        if name not in SETTINGS:
            raise answers.invalid(f"include_fields: must be among {', '.join(SETTINGS)}")
    return {name: _SETTINGS[name] for name in wanted}


def _known(company: Company, entity: Entity, code: str) -> Field:
    field = company.field(entity, code)
    if field is None:
        raise answers.not_found()
    return field


def _choosable(company: Company, entity: Entity, code: str) -> Field:
    field = _known(company, entity, code)
    if not field.custom or field.type not in {"enum", "set"}:
        raise answers.invalid(f"{code}: has no options of its own")
    return field


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise answers.invalid(f"field_name: must have 1 to {MAX_NAME} characters")
    return value


def _labels(items: Any, *, at_least: int = 0) -> list[str]:
    if not isinstance(items, list) or len(items) < at_least:
        raise answers.invalid("options: must be a non-empty array")
    labels = [item.get("label") if isinstance(item, dict) else None for item in items]
    if not all(isinstance(label, str) and 1 <= len(label) <= MAX_NAME for label in labels):
        raise answers.invalid("options: every option needs a label")
    return [str(label) for label in labels]


def _option_ids(field: Field, items: Any) -> list[int | str]:
    if not isinstance(items, list) or not items:
        raise answers.invalid("options: must be a non-empty array")
    ids = [item.get("id") if isinstance(item, dict) else None for item in items]
    for number in ids:
        if number not in field.option_ids():
            raise answers.invalid(f"options: option {number} was not found")
    return [number for number in ids if number is not None]


def _refuse_unknown(body: dict[str, Any], known: set[str]) -> None:
    unknown = set(body) - known
    if unknown:
        raise answers.invalid(f"{min(unknown)}: unknown parameter")
