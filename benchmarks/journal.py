"""The sandbox's Pipedrive with a journal of all changes at `/__sandbox__/journal`.

GET journal?after=n returns the changes after the n-th as JSON lines: entity, id, moment (epoch seconds), and the record since then,
or null after its deletion.
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response, request

from sandbox.company import Event
from sandbox.pipedrive.app import PipedriveApp
from sandbox.pipedrive.start import make_app

FACTORY = "benchmarks.journal:create_pipedrive"


def create_pipedrive(**options: Any) -> PipedriveApp:
    """Return the sandbox's app with a journal; `options` are those of `sandbox.pipedrive.start`."""
    app = make_app(**options)
    lines: list[bytes] = []

    def record(event: Event) -> None:
        change = {"entity": event.entity, "id": event.id, "moment": event.moment, "state": event.after}
        lines.append(orjson.dumps(change) + b"\n")

    def show() -> Response:
        return Response(b"".join(lines[request.args.get("after", 0, type=int) :]), content_type="application/x-ndjson")

    app.company.listeners.append(record)
    app.add_controls([("GET", "journal", show)])
    return app
