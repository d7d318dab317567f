"""A Hull that takes everything and keeps nothing: for measuring a sender, not for checking what it sends.

It counts messages by counting a byte string, never parses, never verifies, and answers the firehose, `GET app` and
the segment lists.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import orjson

StartResponse = Callable[[str, list[tuple[str, str]]], object]
Sink = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_OK = b'{"ok":true}'
_MARK = b'"type":"traits"'  # how JSON.stringify and orjson write it; other spacing is not counted
_FIREHOSE = frozenset({"/", "/firehose", "/api/v1/firehose"})


def create_sink(*, connector_id: str, secret: str, organization: str) -> Sink:
    """Make the WSGI callable. `/__sandbox__/stats` shows {batches, messages, bytes}."""
    connector = {
        "id": connector_id, "name": "Pipedrive", "type": "ship", "organization": organization, "private_settings": {},
        "settings": {}, "manifest": {}, "status": {}, "accept_incoming_webhooks": True,
    }  # fmt: skip
    app, counts, lock = orjson.dumps(connector), Counter[str](), threading.Lock()
    refused = orjson.dumps({"status": 401, "message": "Unauthorized"})

    def sink(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "POST" and path in _FIREHOSE:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if environ.get("HTTP_HULL_ACCESS_TOKEN") != secret:
                return _answer(start_response, refused, "401 Unauthorized")
            with lock:
                counts["batches"] += 1
                counts["messages"] += body.count(_MARK)
                counts["bytes"] += len(body)
            return _answer(start_response, _OK)
        if path == "/__sandbox__/stats":
            return _answer(
                start_response, orjson.dumps({name: counts[name] for name in ("batches", "messages", "bytes")})
            )
        return _answer(start_response, b"[]" if path.endswith("segments") else app)

    return sink


def _answer(start_response: StartResponse, body: bytes, status: str = "200 OK") -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return (body,)
