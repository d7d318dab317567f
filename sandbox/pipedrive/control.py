"""The sandbox's own controls, under /__sandbox__/: not part of Pipedrive, no token, no limits.

GET ledger, stats, export; POST edit, create, delete, raw, faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import orjson
from flask import Response, request

from sandbox.company import ENTITIES, Company, Entity, Invalid
from sandbox.company.bodies import encode
from sandbox.pipedrive import answers
from sandbox.pipedrive.gate.faults import Faults
from sandbox.pipedrive.gate.ledger import Ledger
from sandbox.pipedrive.records import json_object

PREFIX = "/__sandbox__/"


def ledger(kept: Ledger) -> Response:
    """List the mutations, those after number `after` if given."""
    return answers.plain({"mutations": kept.entries(request.args.get("after", 0, type=int))})


def stats(kept: Ledger, company: Company) -> Response:
    """Count requests, tokens and live records."""
    return answers.plain({**kept.stats(), "records": {entity: company.count(entity) for entity in ENTITIES}})


def export(company: Company) -> Response:
    """Stream all live records of an entity, one JSON object a line, by id."""
    entity = _entity(request.args.to_dict())

    def lines() -> Iterator[bytes]:
        block: list[bytes] = []
        for body in company.export(entity):
            block.append(body)
            if len(block) == 500:
                yield b"\n".join(block) + b"\n"
                block = []
        if block:
            yield b"\n".join(block) + b"\n"

    return Response(lines(), content_type="application/x-ndjson")


def edit(company: Company) -> Response:
    """Change a record as somebody in the app would: {entity, id, fields}."""
    body = json_object()
    try:
        record = company.edit(_entity(body), body["id"], body["fields"], source="app")
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    if record is None:
        raise answers.not_found()
    return answers.item(encode(record))


def create(company: Company) -> Response:
    """Create a record as somebody in the app would: {entity, fields}."""
    body = json_object()
    try:
        return answers.item(encode(company.create(_entity(body), body["fields"], source="app")))
    except Invalid as error:
        raise answers.invalid(str(error)) from error


def delete(company: Company) -> Response:
    """Delete a record as somebody in the app would: {entity, id}."""
    body = json_object()
    if not company.delete(_entity(body), body["id"], source="app"):
        raise answers.not_found()
    return answers.plain({"success": True})


def raw(company: Company) -> Response:
    """Store the body of a record as it comes: ?entity=person, then any JSON object."""
    record_id = company.put_raw(_entity(request.args.to_dict()), request.get_data())
    return answers.plain({"success": True, "data": {"id": record_id}})


def faults(rules: Faults) -> Response:
    """Put other rules in force: a list of objects, or [] for good behaviour."""
    try:
        rules.replace(orjson.loads(request.get_data()))
    except (ValueError, TypeError) as error:
        raise answers.invalid(str(error)) from error
    return answers.plain({"success": True, "data": {"rules": len(rules.rules)}})


def _entity(given: dict[str, Any]) -> Entity:
    if given.get("entity") not in ENTITIES:
        raise answers.invalid(f"entity: must be one of {', '.join(ENTITIES)}")
    return cast("Entity", given["entity"])
