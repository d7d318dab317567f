"""How the Hull sandbox answers, and who may ask."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import orjson
from flask import Response, current_app, request

from sandbox.hull.state import HullState
from sandbox.hull.web.token import Mandate, TokenRefused, TokenVerifier

View = Callable[..., Response]


def answer(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, mimetype="application/json")


def refusal(status: int, message: str) -> Response:
    return answer({"status": status, "message": message}, status)


def the_state() -> HullState:
    return cast("HullState", current_app.extensions["hull"])


def the_verifier() -> TokenVerifier:
    return cast("TokenVerifier", current_app.extensions["hull_verifier"])


def sent_object() -> dict[str, Any] | None:
    """The request's JSON object; None when the body is something else."""
    try:
        body = orjson.loads(request.get_data(cache=False) or b"{}")
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def known_connector() -> bool:
    """Hull-App-Id and Hull-Access-Token name the connector and its secret."""
    connector = the_state().connector
    given_id, given_secret = request.headers.get("Hull-App-Id", ""), request.headers.get("Hull-Access-Token", "")
    same_secret = hmac.compare_digest(given_secret.encode(), connector["secret"].encode())
    return given_id == connector["id"] and same_secret


def scoped_mandate() -> Mandate | None:
    """The claims of an entity token sent instead of the secret, as scoped clients do."""
    if request.headers.get("Hull-App-Id") != the_state().connector["id"]:
        return None
    try:
        return the_verifier().read(request.headers.get("Hull-Access-Token"), the_state().clock())
    except TokenRefused:
        return None


def for_connector(view: View) -> View:
    """Answer 401 to anybody but the connector, who signs with its secret or with a token made with it."""

    @wraps(view)
    def guarded(**path: Any) -> Response:
        if known_connector() or scoped_mandate() is not None:
            return view(**path)
        return refusal(401, "Unauthorized: Hull-App-Id and Hull-Access-Token do not name a connector")

    return guarded
