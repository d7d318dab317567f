"""Read the body of a webhook, a notification or a batch within its limits, and store the delivery before it is acknowledged."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import orjson
from flask import request
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import RequestEntityTooLarge

from db import delivery as deliveries
from db.session import transaction
from pipeline.domain.lenient_json import cut_below, has_more_values, is_nested_deeper
from pipeline.slow_work import SlowLane

MAX_DEPTH = 32
CUT_DEPTH: Final = 150
"""More than a message may nest (`pipeline.sync.changes.hull_messages.LEVELS`), less than what cannot be written as JSON again."""
LARGEST_BYTES: Final = 64 * 1024 * 1024
"""Limit of a body that is stored in any case: the rest is not read, and the body counts as too large."""
MOST_VALUES: Final = 1_000_000
"""Of one body. A notification of 20 MB with texts of 20 characters holds fewer."""
LARGE_BYTES: Final = 1024 * 1024
LARGE: Final = SlowLane("large bodies", at_once=1, waiting=8, patience_s=20.0)
"""Bodies above LARGE_BYTES are parsed one after the other: each takes many times its length in memory."""
TOO_DEEP: Final = "too_deep"
ENDS_BYTES: Final = 32 * 1024
PIECE_BYTES: Final = 64 * 1024
STATEMENT_TIMEOUT_MS = 5_000
"""Pipedrive stops waiting after 10 s: an honest 503 before that brings the delivery again."""


class BodyRefused(Exception):
    """The body is not a delivery; `code` is `not_json`, `not_an_object` or `too_deep`."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def read_object(max_bytes: int, *, cuts: bool = False) -> tuple[bytes, dict[str, Any]]:
    """Return the request's body as received, and the object in it.

    cuts  replace values deeper than CUT_DEPTH by null, instead of refusing a body deeper than MAX_DEPTH
    Raises: BodyRefused; RequestEntityTooLarge (413) above `max_bytes`, with or without a Content-Length, and above
    MOST_VALUES.
    """
    request.max_content_length = max_bytes + 1  # a body of unknown length is cut there without a word
    body = request.get_data(cache=False)
    if len(body) > max_bytes or has_more_values(body, MOST_VALUES):
        raise RequestEntityTooLarge
    return body, _parse_cut(body) if cuts else _parse_object(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyBody:
    """A body that is stored in any case.

    kept     the stored bytes: all, or both ends of a body above the limit
    value    the object in it; None if there is a problem
    problem  `too_large`, or the code of a BodyRefused
    digest   of the complete body
    """

    kept: bytes = field(repr=False)
    value: dict[str, Any] | None = field(repr=False)
    problem: str | None
    size: int
    digest: str


def read_any(max_bytes: int) -> AnyBody:
    """Return the request's body, whatever its content and length; above `max_bytes`, keep only its ends in memory."""
    request.max_content_length = sys.maxsize  # `pipeline.web.server` accepts LARGEST_BYTES
    start, end, size, is_cut = bytearray(), b"", 0, False
    digest = hashlib.blake2b(digest_size=16)
    try:
        while piece := request.stream.read(PIECE_BYTES):
            size += len(piece)
            digest.update(piece)
            room = max_bytes - len(start)
            start += piece[:room]
            end = (end + piece)[-ENDS_BYTES:]
    except RequestEntityTooLarge:  # above LARGEST_BYTES
        is_cut = True
    value, problem, kept = None, None, bytes(start)
    if is_cut or size > max_bytes:
        problem, kept = "too_large", kept[:ENDS_BYTES] + b"\n" + end
    else:
        try:
            value = _parse_object(kept)
        except BodyRefused as refused:
            problem = refused.code
    return AnyBody(kept=kept, value=value, problem=problem, size=size, digest=digest.hexdigest())


@contextmanager
def room_for_body() -> Iterator[None]:
    """Wait until this request's body may be parsed: large ones take turns."""
    with LARGE.entered() if (request.content_length or 0) > LARGE_BYTES else nullcontext():
        yield


def store(connector_key: int, source: str, key: str, body: bytes) -> bool | None:
    """Keep a delivery and commit: True when it is new, False when it was here, None when the connector is gone."""
    try:
        with transaction() as session:
            kept = deliveries.keep_delivery(session, connector_key, source, key, body, timeout_ms=STATEMENT_TIMEOUT_MS)
            return kept is not None
    except IntegrityError:
        return None  # the one constraint left to break is that on the connector, removed a moment ago


def _parse_object(body: bytes) -> dict[str, Any]:
    value = _parse(body)
    if not isinstance(value, dict):
        raise BodyRefused("not_an_object")
    if is_nested_deeper(value, MAX_DEPTH):
        raise BodyRefused(TOO_DEEP)
    return value


def _parse_cut(body: bytes) -> dict[str, Any]:
    try:
        value = _parse(body)
    except BodyRefused as refused:
        if refused.code != TOO_DEEP:
            raise
        value = None
    if value is None or is_nested_deeper(value, CUT_DEPTH):
        value = _parse(cut_below(body, CUT_DEPTH))
    if not isinstance(value, dict):
        raise BodyRefused("not_an_object")
    return value


def _parse(body: bytes) -> Any:
    """JSON of UTF-8; lone surrogates may pass, because one bad name must not cost the delivery. No NaN, no Infinity."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:  # whether it is JSON was not read any further
        raise BodyRefused(TOO_DEEP) from None
    except ValueError:
        raise BodyRefused("not_json") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
