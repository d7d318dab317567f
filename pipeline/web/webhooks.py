"""Pipedrive's door: `POST /webhooks/pipedrive/{connector_id}/{path_token}` with Basic auth.

Pipedrive signs nothing, so the path and the credentials are all there is. 200 means stored; everything else makes
Pipedrive try again after 3, 30 and 150 s (https://pipedrive.readme.io/docs/guide-for-webhooks-v2). What a webhook says is
judged later: one that makes no sense is kept and refused by name, because a 400 would only count towards a ban.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request

from pipeline.tasks.webhooks import delivery_key
from pipeline.telemetry import logger
from pipeline.web.doors import Doors
from pipeline.web.intake import BodyRefused, read_object, store
from pipeline.web.waker import Waker

MAX_BYTES = 1024 * 1024


def room(doors: Doors, waker: Waker) -> Blueprint:
    """The routes of this door."""
    routes = Blueprint("webhooks", __name__)
    routes.add_url_rule(
        "/webhooks/pipedrive/<connector_id>/<path_token>",
        endpoint="pipedrive",
        methods=["POST"],
        view_func=partial(receive, doors, waker),
    )
    routes.register_error_handler(BodyRefused, _refuse_body)
    return routes


def receive(doors: Doors, waker: Waker, connector_id: str, path_token: str) -> Response:
    """Verify, store, commit, answer; the workers are told meanwhile."""
    given = request.authorization
    connector_key = doors.admit_webhook(
        connector_id, path_token, (given and given.username) or "", (given and given.password) or ""
    )
    if connector_key is None:
        return _turn_away()
    body, payload = read_object(MAX_BYTES)
    is_new = store(connector_key, "pipedrive", delivery_key(payload, body), body)
    if is_new is None:
        return _turn_away()
    if is_new:
        waker.wake()
    return jsonify(status="stored" if is_new else "known")


def _turn_away() -> Response:
    """One answer for an unknown connector, a wrong path and wrong credentials."""
    logger().warning("webhook.refused", reason="unauthorized")
    answer = jsonify(error="unauthorized")
    answer.status_code = HTTPStatus.UNAUTHORIZED
    answer.headers["WWW-Authenticate"] = 'Basic realm="webhooks", charset="UTF-8"'
    return answer


def _refuse_body(refused: BodyRefused) -> tuple[Response, int]:
    logger().warning("webhook.refused", reason=refused.code)
    return jsonify(error=refused.code), HTTPStatus.BAD_REQUEST
