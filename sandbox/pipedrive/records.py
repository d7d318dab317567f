"""Persons and Organizations: list, get, create, update, delete.

Sources: the v2 OpenAPI file, paths /persons and /organizations; docs page pipedrive-api-v2-migration-guide.
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response, request

from sandbox.company import Company, Entity, Invalid
from sandbox.company.records import encode
from sandbox.pipedrive import answers, query, shape
from sandbox.pipedrive.answers import ApiError


def list_page(company: Company, entity: Entity) -> Response:
    """Answer GET /api/v2/persons."""
    parameters = request.args
    asked = query.page_query(parameters, with_organization=entity == "person")
    rows, bodies = company.page(entity, asked)
    wanted = asked.limit - 1
    marker = query.write_cursor(rows[wanted - 1], asked) if len(rows) > wanted else None
    return answers.page(shape.reshape(company, entity, parameters, bodies[:wanted]), marker)


def get(company: Company, entity: Entity, record_id: int) -> Response:
    """Answer GET /api/v2/persons/{id}."""
    body = company.body(entity, record_id)
    if body is None:
        raise missing(company, entity, record_id)
    return answers.item(shape.reshape(company, entity, request.args, [body])[0])


def create(company: Company, entity: Entity) -> Response:
    """Answer POST /api/v2/persons."""
    try:
        record = company.create(entity, json_object())
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    return answers.item(encode(record))


def update(company: Company, entity: Entity, record_id: int) -> Response:
    """Answer PATCH /api/v2/persons/{id}."""
    try:
        record = company.edit(entity, record_id, json_object())
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    if record is None:
        raise missing(company, entity, record_id)
    return answers.item(encode(record))


def delete(company: Company, entity: Entity, record_id: int) -> Response:
    """Answer DELETE /api/v2/persons/{id}; a second time is a 404."""
    if not company.delete(entity, record_id):
        raise missing(company, entity, record_id)
    return answers.item(b'{"id":%d}' % record_id)


def missing(company: Company, entity: Entity, record_id: int) -> ApiError:
    """Say that a record is not there; one that was may answer otherwise."""
    if company.was_deleted(entity, record_id) and company.behaviour.gone_status != 404:
        return answers.gone(company.behaviour.gone_status)
    return answers.not_found()


def json_object() -> dict[str, Any]:
    """Read the request's body, which v2 takes as a JSON object only."""
    body = json_body()
    if not isinstance(body, dict):
        raise answers.invalid("body: must be an object")
    return body


def json_body() -> Any:
    """Read the request's body as JSON."""
    if request.mimetype != answers.JSON:
        raise answers.gateway(415, "Unsupported Media Type")
    try:
        return orjson.loads(request.get_data())
    except orjson.JSONDecodeError as error:
        raise answers.invalid("body: is not valid JSON") from error
