"""What the two doors share: read a body within its limits, and write the delivery down before anybody says yes."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson
from flask import request
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import RequestEntityTooLarge

from db import delivery as deliveries
from db.session import transaction

MAX_DEPTH = 32
STATEMENT_TIMEOUT_MS = 5_000
"""Pipedrive gives up after 10 s: an honest 503 before that brings the delivery again."""


class BodyRefused(Exception):
    """The body is no delivery, whoever sent it; `code` says why: `not_json`, `not_an_object`, `too_deep`."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def read_object(max_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """The request's body as it came, and the object in it.

    Raises: BodyRefused; RequestEntityTooLarge (413) above `max_bytes`, whether the length was announced or not.
    """
    request.max_content_length = max_bytes + 1  # a body of unknown length is cut there without a word
    body = request.get_data(cache=False)
    if len(body) > max_bytes:
        raise RequestEntityTooLarge
    value = _parse(body)
    if not isinstance(value, dict):
        raise BodyRefused("not_an_object")
    if _is_deeper(value, MAX_DEPTH):
        raise BodyRefused("too_deep")
    return body, value


def store(connector_key: int, source: str, key: str, body: bytes) -> bool | None:
    """Keep a delivery and commit: True when it is new, False when it was here, None when the connector is gone."""
    try:
        with transaction() as session:
            kept = deliveries.keep_delivery(session, connector_key, source, key, body, timeout_ms=STATEMENT_TIMEOUT_MS)
            return kept is not None
    except IntegrityError:
        return None  # the one constraint left to break is that on the connector, removed a moment ago


def _parse(body: bytes) -> Any:
    """JSON of UTF-8; lone surrogates may pass, because one bad name must not cost the delivery. No NaN, no Infinity."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BodyRefused("not_json") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        inner = [each for each in level if isinstance(each, dict | list)]
        if not inner:
            return False
        level = [child for each in inner for child in (each.values() if isinstance(each, dict) else each)]
    return any(isinstance(each, dict | list) for each in level)
