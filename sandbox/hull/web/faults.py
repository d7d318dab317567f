"""How Hull fails on order: its own answers."""

from __future__ import annotations

from flask import Response

from sandbox.faults import Fault, FaultKinds
from sandbox.hull.web.answers import refusal

_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"


def _page(fault: Fault) -> Response:
    return Response(_PAGE, fault.status, mimetype="text/html")


FAULT_KINDS = FaultKinds(
    defaults={
        "status": {"status": 503},
        "html": {"status": 502},
        "empty": {"status": 200},
        "slow": {"seconds": 30.0},
        "drip": {"seconds": 1.0},
    },
    make={"status": lambda fault: refusal(fault.status, "as ordered by a fault rule"), "html": _page},
)
