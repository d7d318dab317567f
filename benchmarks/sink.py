"""A Hull that accepts everything and stores nothing, to measure a sender without checking its messages.

It counts messages by a byte string, parses and verifies nothing, and answers the firehose, `GET app` and the segment lists.
`create_hull` also notes when each mark arrived, a text such as `mark-b-17` anywhere in a message: `/__sandbox__/arrivals` returns
mark → seconds since the epoch, `/__sandbox__/times` mark → number of requests with it.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import orjson

FACTORY = "benchmarks.sink:create_hull"
MARK = re.compile(rb"mark-[a-z]+-\d+")
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Sink = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
_OK = b'{"ok":true}'
_TRAITS = b'"type":"traits"'  # how JSON.stringify and orjson write it; other spacing is not counted
_FIREHOSE = frozenset({"/", "/firehose", "/api/v1/firehose"})


def create_sink(*, connector_id: str, secret: str, organization: str) -> Sink:
    """Return the WSGI callable. `/__sandbox__/stats` shows {batches, messages, bytes}."""
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
                counts["messages"] += body.count(_TRAITS)
                counts["bytes"] += len(body)
            return _answer(start_response, _OK)
        if path == "/__sandbox__/stats":
            return _answer(
                start_response, orjson.dumps({name: counts[name] for name in ("batches", "messages", "bytes")})
            )
        return _answer(start_response, b"[]" if path.endswith("segments") else app)

    return sink


def create_hull(*, connector_id: str, secret: str, organization: str) -> Sink:
    """Return a sink that notes marks."""
    sink = create_sink(connector_id=connector_id, secret=secret, organization=organization)
    arrived: dict[str, float] = {}
    times: Counter[str] = Counter()
    shown: dict[str, dict[str, Any]] = {"/__sandbox__/arrivals": arrived, "/__sandbox__/times": times}

    def hull(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] in shown:
            body = orjson.dumps(dict(shown[environ["PATH_INFO"]]))
            start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
            return (body,)
        if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            now = time.time()
            for mark in set(MARK.findall(body)):
                arrived.setdefault(mark.decode(), now)
                times[mark.decode()] += 1
            environ["wsgi.input"] = io.BytesIO(body)
        return sink(environ, start_response)

    return hull


def _answer(start_response: StartResponse, body: bytes, status: str = "200 OK") -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return (body,)
