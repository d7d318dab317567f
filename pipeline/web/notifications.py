"""Hull's door: `POST /smart-notifier`, signed notifications of changed Users and Accounts.

`next` means stored: Hull goes on with the next messages. `retry` brings the same ones again. Headers are looked at before
the body is read, the connector's secret before Hull's key is fetched. The signature proves the notification's id alone.
Source: packages/hull/src/utils/notification-validator.js and packages/hull/src/handlers/notification-handler of
https://github.com/hull/hull-connectors
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import RequestEntityTooLarge

from pipeline.domain.lenient_json import write_lenient
from pipeline.errors import Retryable
from pipeline.tasks.webhooks import clean_key
from pipeline.telemetry import logger
from pipeline.web.answers import RETRY_AFTER_S
from pipeline.web.doors import Doors
from pipeline.web.intake import BodyRefused, read_object, store
from pipeline.web.waker import Waker
from pipeline.wiring import NotificationRefused, NotificationVerifier

MAX_BYTES = 20 * 1024 * 1024
KEPT_CHANNELS: Final = frozenset({"user:update", "account:update"})
"""All others are answered and forgotten: settings are asked of Hull itself, segments come with every message."""

_FLAG = "X-Hull-Smart-Notifier"
_RETRY: Final = {"type": "retry", "size": 10, "in": 1000, "in_time": 10}
_KEPT_PARTS: Final = ("notification_id", "channel", "is_export", "messages")


class Incorrect(Exception):
    """Not a notification of ours; `code` is Hull's own word for it where it has one."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


def room(doors: Doors, waker: Waker, verifier: NotificationVerifier) -> Blueprint:
    """The route of this door."""
    routes = Blueprint("notifications", __name__)
    view = partial(receive, doors, waker, verifier)
    routes.add_url_rule("/smart-notifier", endpoint="receive", methods=["POST"], view_func=view)
    for error, status in _STATUSES.items():
        routes.register_error_handler(error, partial(_ask_again, status))
    return routes


def receive(doors: Doors, waker: Waker, verifier: NotificationVerifier) -> Response:
    """Verify, store, commit, answer `next`; the workers are told meanwhile."""
    _check_headers()
    _, body = read_object(MAX_BYTES)
    notification_id = _text(body, "notification_id")
    if notification_id is None:
        raise Incorrect("MISSING_NOTIFICATION_PAYLOAD", "the body has no notification_id")
    connector_key = _admit(doors, body)
    verifier.verify(request.headers, notification_id)
    _check_shape(body)
    if body["channel"] in KEPT_CHANNELS and body["messages"]:
        is_new = store(connector_key, "hull", clean_key(notification_id), write_lenient(_kept(body)))
        if is_new:
            waker.wake()
    return jsonify(flow_control={"type": "next"})


def _check_headers() -> None:
    """Refuse what does not even claim to come from Hull before its body is read; the verifier looks again."""
    if _FLAG not in request.headers:
        raise Incorrect("MISSING_FLAG_HEADER", f"{_FLAG} is missing")
    if request.headers.get(f"{_FLAG}-Signature-Version") != "v1":
        raise Incorrect("UNSUPPORTED_SIGNATURE_VERSION", "only signature version v1 is known")
    if not all(request.headers.get(f"{_FLAG}-{name}") for name in ("Signature", "Signature-Public-Key-Url")):
        raise Incorrect("MISSING_SIGNATURE_HEADERS", "the signature or the address of its key is missing")


def _admit(doors: Doors, body: dict[str, Any]) -> int:
    given = body.get("configuration")
    if not isinstance(given, dict):
        raise Incorrect("MISSING_CONFIGURATION", "the body has no configuration")
    parts = [_text(given, name) for name in ("id", "organization", "secret")]
    if not all(parts):
        raise Incorrect("MISSING_CONFIGURATION", "the configuration lacks id, organization or secret")
    connector_key = doors.admit_hull(*(part or "" for part in parts))
    if connector_key is None:
        raise Incorrect("UNKNOWN_CONNECTOR", "no connector here has this id, organization and secret")
    return connector_key


def _check_shape(body: dict[str, Any]) -> None:
    segments = body.get("segments", body.get("users_segments"))
    account_segments = body.get("accounts_segments", body.get("account_segments"))
    is_whole = (
        _text(body, "channel") is not None
        and isinstance(body.get("connector"), dict)
        and all(isinstance(rows, list) for rows in (segments, account_segments, body.get("messages")))
    )
    if not is_whole:
        raise Incorrect("N/A", "didn't get a correct notification")


def _kept(body: dict[str, Any]) -> dict[str, Any]:
    """The delivery without the connector's secret and the tokens among its settings, which are kept sealed or not at all."""
    return {name: body[name] for name in _KEPT_PARTS if name in body}


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    return value if isinstance(value, str) and value else None


def _ask_again(status: HTTPStatus, error: Exception) -> tuple[Response, int]:
    """Hull's own form of an error: the same messages again in a second, and what was wrong with them."""
    code, message = _words(error)
    logger().warning("notification.refused", reason=code, error=type(error).__name__, status=int(status))
    answer = jsonify(flow_control=_RETRY, error={"message": message, "name": type(error).__name__, "code": code})
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer, status


def _words(error: Exception) -> tuple[str, str]:
    """(code, message) that may be told: of what is not an answer of ours, nothing."""
    if isinstance(error, BodyRefused):
        return "MISSING_NOTIFICATION_PAYLOAD", error.code
    if isinstance(error, Incorrect | NotificationRefused):
        return error.code, str(error)
    return "N/A", "not taken in; please send it again"


_STATUSES: Final[dict[type[Exception], HTTPStatus]] = {
    Incorrect: HTTPStatus.BAD_REQUEST,
    NotificationRefused: HTTPStatus.BAD_REQUEST,
    BodyRefused: HTTPStatus.BAD_REQUEST,
    RequestEntityTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Retryable: HTTPStatus.SERVICE_UNAVAILABLE,
    SQLAlchemyError: HTTPStatus.SERVICE_UNAVAILABLE,
}
