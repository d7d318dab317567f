"""Hull's route `POST /smart-notifier`: signed notifications of changed Users and Accounts.

The answer `next` means stored: Hull continues with the next messages. `retry` makes it send the same ones again. The
signature in the headers is verified before the body is read, so an unsigned request is limited to
`pipeline.web.request_body.UNAUTHENTICATED_BYTES`. The signature proves the notification's id only: the connector's secret
in the body must be correct too, settings are read from Hull itself, and an unknown connector is created only after Hull
has confirmed it.
Source: packages/hull/src/utils/notification-validator.js and packages/hull/src/handlers/notification-handler of
https://github.com/hull/hull-connectors
"""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint, Response, jsonify, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import RequestEntityTooLarge

from db import delivery
from db.session import transaction
from pipeline.clients.hull_notifications import NotificationRefused, NotificationVerifier
from pipeline.domain.json_text import write_lenient
from pipeline.errors import Retryable
from pipeline.jobs import connector_creation
from pipeline.slow_work import Overloaded
from pipeline.sync.connectors.settings_change import enqueue_settings_sync
from pipeline.sync.connectors.webhooks import clean_key
from pipeline.telemetry import logger
from pipeline.web.answers import RETRY_AFTER_S
from pipeline.web.credentials_check import CredentialsCheck
from pipeline.web.deliveries import Notifier, store_delivery
from pipeline.web.request_body import BodyRefused, read_object, wait_for_large_body

MAX_BYTES = 20 * 1024 * 1024
KEPT_CHANNELS: Final = frozenset({"user:update", "account:update"})
SETTINGS_CHANNEL: Final = "ship:update"
SEGMENT_CHANNEL: Final = re.compile(r"(users_|accounts_)?segment:(update|delete)")
"""Acknowledged and ignored: every message contains its segments."""

_FLAG = "X-Hull-Smart-Notifier"
_RETRY: Final = {"type": "retry", "size": 10, "in": 1000, "in_time": 10}
_UNKNOWN_CHANNEL: Final = {"type": "next", "size": 10, "in": 5, "in_time": 10}
_KEPT_PARTS: Final = ("notification_id", "channel", "is_export", "messages")


class InvalidNotification(Exception):
    """The notification is malformed or not for us; `code` is Hull's own code if it has one."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class ConnectorPending(Exception):
    """The connector is being created; Hull sends the notification again, and then it is stored."""


def blueprint(credentials: CredentialsCheck, notifier: Notifier, verifier: NotificationVerifier) -> Blueprint:
    """Return the routes."""
    routes = Blueprint("notifications", __name__)
    view = partial(receive, credentials, notifier, verifier)
    routes.add_url_rule("/smart-notifier", endpoint="receive", methods=["POST"], view_func=view)
    for error, status in _STATUSES.items():
        routes.register_error_handler(error, partial(_answer_retry, status))
    return routes


def receive(credentials: CredentialsCheck, notifier: Notifier, verifier: NotificationVerifier) -> Response:
    """Verify, store, commit, answer `next`, and notify the workers."""
    _check_headers()
    proven_id = verifier.proven_id(request.headers)
    with wait_for_large_body():
        return _receive_body(credentials, notifier, proven_id)


def body_limit(verifier: NotificationVerifier) -> int:
    """Return how many bytes the sender may send: 0 if the headers do not prove a notification."""
    try:
        _check_headers()
        verifier.proven_id(request.headers)
    except (InvalidNotification, NotificationRefused):
        return 0
    return MAX_BYTES


def _receive_body(credentials: CredentialsCheck, notifier: Notifier, proven_id: str) -> Response:
    body = read_object(MAX_BYTES, cuts=True)
    notification_id = _text(body, "notification_id")
    if notification_id is None:
        raise InvalidNotification("MISSING_NOTIFICATION_PAYLOAD", "the body has no notification_id")
    if notification_id != proven_id:
        raise NotificationRefused("INVALID_SIGNATURE", "the signature belongs to another notification")
    credentials_in_body = _configuration(body)
    connector_key = credentials.authenticate_hull(*credentials_in_body)
    if connector_key is None and not connector_creation.is_possible(*credentials_in_body[:2]):
        raise _unknown_connector()
    _check_shape(body)
    if connector_key is None:
        return _create_connector(notifier, credentials_in_body)
    return _accept(notifier, connector_key, notification_id, body)


def _accept(notifier: Notifier, connector_key: int, notification_id: str, body: dict[str, Any]) -> Response:
    """Store the notification, have the settings read, or ignore it, by its channel."""
    channel = body["channel"]
    is_new: bool | None = False
    if channel in KEPT_CHANNELS and body["messages"]:
        is_new = store_delivery(connector_key, "hull", clean_key(notification_id), write_lenient(_kept(body)))
    elif channel == SETTINGS_CHANNEL:
        with transaction() as session:
            enqueue_settings_sync(session, connector_key)
        is_new = True
    elif channel not in KEPT_CHANNELS and SEGMENT_CHANNEL.fullmatch(channel) is None:
        return _no_handler(channel)
    if is_new:
        notifier.notify()
    return jsonify(flow_control=current_flow_control(connector_key))


def _create_connector(notifier: Notifier, credentials: tuple[str, str, str]) -> Response:
    """Enqueue the creation: a worker calls Hull, and Hull retries until the connector exists."""
    if not connector_creation.enqueue(*credentials):
        raise _unknown_connector()
    notifier.notify()
    raise ConnectorPending


def _no_handler(channel: str) -> Response:
    message = f"Missing handler for this channel: {channel[:60] if channel.isprintable() else '?'}"
    error = {"message": message, "name": "MissingHandlerError", "code": "HULL_ERR_MISSING_CHANNEL"}
    return jsonify(flow_control=_UNKNOWN_CHANNEL, error=error)


def _check_headers() -> None:
    """Reject a request without the headers of a notification; the verifier then checks their values."""
    if _FLAG not in request.headers:
        raise InvalidNotification("MISSING_FLAG_HEADER", f"{_FLAG} is missing")
    if request.headers.get(f"{_FLAG}-Signature-Version") != "v1":
        raise InvalidNotification("UNSUPPORTED_SIGNATURE_VERSION", "only signature version v1 is known")
    if not all(request.headers.get(f"{_FLAG}-{name}") for name in ("Signature", "Signature-Public-Key-Url")):
        raise InvalidNotification("MISSING_SIGNATURE_HEADERS", "the signature or the address of its key is missing")


def _configuration(body: dict[str, Any]) -> tuple[str, str, str]:
    """Return the connector's id, organization and secret from the body."""
    given = body.get("configuration")
    if not isinstance(given, dict):
        raise InvalidNotification("MISSING_CONFIGURATION", "the body has no configuration")
    connector_id, organization, secret = (_text(given, name) for name in ("id", "organization", "secret"))
    if not (connector_id and organization and secret):
        raise InvalidNotification("MISSING_CONFIGURATION", "the configuration lacks id, organization or secret")
    return connector_id, organization, secret


def _unknown_connector() -> InvalidNotification:
    return InvalidNotification("UNKNOWN_CONNECTOR", "no connector here has this id, organization and secret")


def _check_shape(body: dict[str, Any]) -> None:
    segments = body.get("segments", body.get("users_segments"))
    account_segments = body.get("accounts_segments", body.get("account_segments"))
    is_whole = (
        _text(body, "channel") is not None
        and isinstance(body.get("connector"), dict)
        and all(isinstance(rows, list) for rows in (segments, account_segments, body.get("messages")))
    )
    if not is_whole:
        raise InvalidNotification("N/A", "didn't get a correct notification")


def _kept(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body without the connector's secret and settings: their secrets are stored encrypted or not at all."""
    return {name: body[name] for name in _KEPT_PARTS if name in body}


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    return value if isinstance(value, str) and value else None


def _answer_retry(status: HTTPStatus, error: Exception) -> tuple[Response, int]:
    """Return Hull's format of an error, which makes it send the same messages again in a second."""
    code, message = _describe(error)
    logger().warning("notification.refused", reason=code, error=type(error).__name__, status=int(status))
    answer = jsonify(flow_control=_RETRY, error={"message": message, "name": type(error).__name__, "code": code})
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer, status


def _describe(error: Exception) -> tuple[str, str]:
    """Return (code, message) for the answer, without text from other programs."""
    if isinstance(error, BodyRefused):
        return "MISSING_NOTIFICATION_PAYLOAD", error.code
    if isinstance(error, InvalidNotification | NotificationRefused):
        return error.code, str(error)
    if isinstance(error, ConnectorPending):
        return "CONNECTOR_PENDING", "the connector is being created; send the notification again"
    return "N/A", "not stored; send the notification again"


_STATUSES: Final[dict[type[Exception], HTTPStatus]] = {
    InvalidNotification: HTTPStatus.BAD_REQUEST,
    NotificationRefused: HTTPStatus.BAD_REQUEST,
    BodyRefused: HTTPStatus.BAD_REQUEST,
    RequestEntityTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ConnectorPending: HTTPStatus.SERVICE_UNAVAILABLE,
    Retryable: HTTPStatus.SERVICE_UNAVAILABLE,
    SQLAlchemyError: HTTPStatus.SERVICE_UNAVAILABLE,
    Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
}


STEPS: Final = ((50_000, 100, 60_000), (20_000, 100, 15_000), (5_000, 100, 5_000), (1_000, 100, 1_000))
"""(messages that wait, messages to the next notification, milliseconds until it): 100, 20, 7 and 2 messages a second."""
MOST: Final = STEPS[0][0] + 1


def flow_control(waiting: int) -> dict[str, Any]:
    """Return the answer to an accepted notification, for this number of waiting messages."""
    for above, size, in_ms in STEPS:
        if waiting > above:
            return {"type": "next", "size": size, "in": in_ms}
    return {"type": "next"}


def current_flow_control(connector_key: int) -> dict[str, Any]:
    """Return it for the messages that wait now. An error of the count is ignored, because the notification is stored."""
    try:
        with transaction() as session:
            waiting = delivery.waiting_outgoing(session, connector_key, most=MOST)
    except SQLAlchemyError as error:
        logger().warning("notification.waiting_not_counted", error=type(error).__name__)
        waiting = 0
    return flow_control(waiting)
