"""Pipedrive's route `POST /webhooks/pipedrive/{connector_id}/{path_token}` with Basic auth.

Pipedrive does not sign webhooks, so the path and the credentials authenticate them. 200 means stored. After any other
status Pipedrive retries after 3, 30 and 150 s (https://pipedrive.readme.io/docs/guide-for-webhooks-v2). Ten failed first
attempts ban the webhook for half an hour, and events are lost. So an authenticated sender gets 200 whatever the body is: a
body that is too large, nested too deeply or not JSON is stored, and its record is read by the id that can be found in
it. The content of a webhook is checked later, and rejected with a reason if it is invalid.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request

from pipeline.sync.connectors.webhooks import delivery_key
from pipeline.telemetry import logger
from pipeline.web.credentials_check import CredentialsCheck
from pipeline.web.deliveries import Notifier, store_delivery
from pipeline.web.request_body import LARGEST_BYTES, read_any

MAX_BYTES = 1024 * 1024
"""Only both ends of a larger body are stored."""


def blueprint(credentials: CredentialsCheck, notifier: Notifier) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("webhooks", __name__)
    routes.add_url_rule(
        "/webhooks/pipedrive/<connector_id>/<path_token>",
        endpoint="pipedrive",
        methods=["POST"],
        view_func=partial(receive, credentials, notifier),
    )
    return routes


def receive(credentials: CredentialsCheck, notifier: Notifier, connector_id: str, path_token: str) -> Response:
    """Verify, store, commit, answer, and notify the workers."""
    connector_key = _sender(credentials, connector_id, path_token)
    if connector_key is None:
        return _unauthorized()
    body = read_any(MAX_BYTES)
    if body.problem is not None:
        logger().warning("webhook.unreadable", connector_id=connector_id, reason=body.problem, size_bytes=body.size)
    key = body.digest if body.value is None else delivery_key(body.value, body.kept)
    is_new = store_delivery(connector_key, "pipedrive", key, body.kept)
    if is_new is None:
        return _unauthorized()
    if is_new:
        notifier.notify()
    return jsonify(status="stored" if is_new else "known")


def body_limit(credentials: CredentialsCheck) -> int:
    """Return how many bytes the sender may send: 0 if path or credentials are wrong."""
    given = request.view_args or {}
    return 0 if _sender(credentials, given["connector_id"], given["path_token"]) is None else LARGEST_BYTES


def _sender(credentials: CredentialsCheck, connector_id: str, path_token: str) -> int | None:
    given = request.authorization
    return credentials.authenticate_webhook(
        connector_id, path_token, (given and given.username) or "", (given and given.password) or ""
    )


def _unauthorized() -> Response:
    """Return the same answer for an unknown connector, a wrong path and wrong credentials."""
    logger().warning("webhook.refused", reason="unauthorized")
    answer = jsonify(error="unauthorized")
    answer.status_code = HTTPStatus.UNAUTHORIZED
    answer.headers["WWW-Authenticate"] = 'Basic realm="webhooks", charset="UTF-8"'
    return answer
