"""A Hull that takes everything, keeps nothing, and notes when each marked value arrived.

A mark is a text such as `mark-b-17` somewhere in a message; `/__sandbox__/arrivals` gives mark → seconds since the epoch,
`/__sandbox__/times` mark → how many requests carried it.
"""

from __future__ import annotations

import io
import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import orjson

from sandbox.hull.sink import Sink, StartResponse, create_sink

FACTORY = "benchmarks.arrivals:create_hull"
MARK = re.compile(rb"mark-[a-z]+-\d+")


def create_hull(*, connector_id: str, secret: str, organization: str) -> Sink:
    """The sink of the sandbox, with an ear at its door."""
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
