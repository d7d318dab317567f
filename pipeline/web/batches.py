"""Hull's older way to send a selection: `POST /batch` and `/batch-accounts` name a file that a worker downloads.

The answer is `ok` when the job is stored.
Source: packages/hull/src/handlers/batch-handler of https://github.com/hull/hull-connectors
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request

from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import describe
from pipeline.errors import Rejected
from pipeline.jobs import exports
from pipeline.telemetry import logger
from pipeline.web.credentials_check import CredentialsCheck
from pipeline.web.deliveries import Notifier
from pipeline.web.request_body import UNAUTHENTICATED_BYTES, BodyRefused, read_object, wait_for_large_body

MAX_BYTES = 5 * 1024 * 1024
MAX_URL = 8 * 1024
KINDS: Final = {"user_report": Entity.PERSON, "account_report": Entity.ORGANIZATION}
_SEGMENT_LISTS: Final = {
    Entity.PERSON: ("users_segments", "segments"),
    Entity.ORGANIZATION: ("accounts_segments", "account_segments"),
}
_SEGMENT_PARTS: Final = ("id", "name", "type")

Answer = Response | tuple[Response, int]


def blueprint(credentials: CredentialsCheck, notifier: Notifier) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("batches", __name__)
    for rule, entity in (("/batch", Entity.PERSON), ("/batch-accounts", Entity.ORGANIZATION)):
        routes.add_url_rule(rule, rule, partial(receive, credentials, notifier, entity), methods=["POST"])
    routes.register_error_handler(BodyRefused, _refuse_body)
    return routes


def receive(credentials: CredentialsCheck, notifier: Notifier, entity: Entity) -> Answer:
    """Verify, store and answer. `object_type` names the entity in the file; without it, the route decides."""
    connector_key = credentials.authenticate_dashboard(request.values)
    if connector_key is None:
        return _refusal("unauthorized", "Hull's credentials are missing or wrong.", HTTPStatus.UNAUTHORIZED)
    try:
        with wait_for_large_body():
            body = read_object(MAX_BYTES)
            exports.enqueue(connector_key, _order(body, entity))
    except Rejected as refused:
        return _refusal(refused.reason, describe(refused.reason), HTTPStatus.BAD_REQUEST)
    notifier.notify()
    return Response("ok", mimetype="text/plain")


def body_limit(credentials: CredentialsCheck) -> int:
    """Return how many bytes the sender may send: a batch with credentials in the query, else no more than a form."""
    return UNAUTHENTICATED_BYTES if credentials.authenticate_dashboard(request.args) is None else MAX_BYTES


def _order(body: dict[str, Any], entity: Entity) -> exports.ExportOrder:
    url, form, kind = (body.get(name) for name in ("url", "format", "object_type"))
    entity = KINDS.get(kind, entity) if isinstance(kind, str) else entity
    is_url = isinstance(url, str) and url.isascii() and len(url) <= MAX_URL
    return exports.ExportOrder(
        url=url if isinstance(url, str) and is_url else "",
        form=form if isinstance(form, str) else "",
        entity=entity,
        segments=_segments(body, entity),
        segment_id=request.args.get("segment_id") or None,
    )


def _segments(body: dict[str, Any], entity: Entity) -> dict[str, dict[str, Any]]:
    """Return the objects by id, with their distinguishing fields."""
    rows: list[Any] = next((body[name] for name in _SEGMENT_LISTS[entity] if isinstance(body.get(name), list)), [])
    return {
        row["id"]: {name: row[name] for name in _SEGMENT_PARTS if name in row}
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("id"), str)
    }


def _refuse_body(refused: BodyRefused) -> Answer:
    return _refusal(refused.code, "The body is not a JSON object.", HTTPStatus.BAD_REQUEST)


def _refusal(error: str, message: str, status: HTTPStatus) -> Answer:
    logger().warning("batch.refused", reason=error)
    return jsonify(message=message, error=error), status
