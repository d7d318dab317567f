"""Who may call Hull's API, its refusals, and its kinds of faults."""

from __future__ import annotations

import hmac
from functools import wraps
from typing import Any, cast

import orjson
from flask import Response, current_app, request

from sandbox.app import View, json_answer
from sandbox.faults import Fault, FaultKinds
from sandbox.hull.firehose import TokenContent, TokenRefused, TokenVerifier
from sandbox.hull.state import HullState

_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"


def refusal(status: int, message: str) -> Response:
    return json_answer({"status": status, "message": message}, status)


def current_state() -> HullState:
    return cast("HullState", current_app.extensions["hull"])


def current_verifier() -> TokenVerifier:
    return cast("TokenVerifier", current_app.extensions["hull_verifier"])


def json_object() -> dict[str, Any] | None:
    """Return the request's JSON object; None when the body is something else."""
    try:
        body = orjson.loads(request.get_data(cache=False) or b"{}")
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def is_known_connector() -> bool:
    """Return whether Hull-App-Id and Hull-Access-Token are the connector and its secret."""
    connector = current_state().connector
    given_id, given_secret = request.headers.get("Hull-App-Id", ""), request.headers.get("Hull-Access-Token", "")
    same_secret = hmac.compare_digest(given_secret.encode(), connector["secret"].encode())
    return given_id == connector["id"] and same_secret


def read_entity_token() -> TokenContent | None:
    """Return the content of an entity token, which scoped clients send in place of the secret; None without one."""
    if request.headers.get("Hull-App-Id") != current_state().connector["id"]:
        return None
    try:
        return current_verifier().read(request.headers.get("Hull-Access-Token"), current_state().clock())
    except TokenRefused:
        return None


def for_connector(view: View) -> View:
    """Answer 401 unless the connector calls, with its secret or with a token signed with it."""

    @wraps(view)
    def guarded(**path: Any) -> Response:
        if is_known_connector() or read_entity_token() is not None:
            return view(**path)
        return refusal(401, "Unauthorized: Hull-App-Id and Hull-Access-Token do not name a connector")

    return guarded


def _html(fault: Fault) -> Response:
    return Response(_PAGE, fault.status, mimetype="text/html")


FAULT_KINDS = FaultKinds(
    defaults={
        "status": {"status": 503},
        "html": {"status": 502},
        "empty": {"status": 200},
        "slow": {"seconds": 30.0},
        "drip": {"seconds": 1.0},
    },
    make={"status": lambda fault: refusal(fault.status, "as ordered by a fault rule"), "html": _html},
)
