"""A Pipedrive that remembers: the sandbox's, with every change it ever made at `/__sandbox__/journal`.

GET journal?after=n gives the changes beyond the n-th as JSON lines: entity, id, moment (epoch seconds), and the record as it was
from then on, null once it was gone.
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
    """The sandbox's app, with an ear in its company; `options` are those of `sandbox.pipedrive.start`."""
    app = make_app(**options)
    lines: list[bytes] = []

    def hear(event: Event) -> None:
        said = {"entity": event.entity, "id": event.id, "moment": event.moment, "state": event.after}
        lines.append(orjson.dumps(said) + b"\n")

    def show() -> Response:
        return Response(b"".join(lines[request.args.get("after", 0, type=int) :]), content_type="application/x-ndjson")

    app.company.listeners.append(hear)
    app.add_controls([("GET", "journal", show)])
    return app
