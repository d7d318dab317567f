"""How Hull fails on order: its own answers."""

from __future__ import annotations

from flask import Flask, Response, request

from sandbox.control import PREFIX
from sandbox.faults import Fault, Faults, Style
from sandbox.hull.web.answers import refusal

_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"


def _page(fault: Fault) -> Response:
    return Response(_PAGE, fault.status, mimetype="text/html")


STYLE = Style(
    usual={
        "status": {"status": 503},
        "html": {"status": 502},
        "empty": {"status": 200},
        "slow": {"seconds": 30.0},
        "drip": {"seconds": 1.0},
    },
    instead={"status": lambda fault: refusal(fault.status, "as ordered by a fault rule"), "html": _page},
)


def install(app: Flask, faults: Faults) -> None:
    """Put the faults between the network and the app."""

    @app.before_request
    def enter() -> Response | None:
        return None if request.path.startswith(PREFIX) else faults.enter()

    app.after_request(faults.leave)
