"""Authentication of a request to `/api/v1`: the owner of a key, or the operator of a browser's session."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from flask import g, request
from flask_openapi3.types import SecuritySchemesDict

from db import audit
from db.operator import Present
from pipeline.accounts import operators
from pipeline.domain.kinds import Role
from pipeline.operations.errors import OperationError, forbidden
from pipeline.telemetry import logger
from pipeline.web.console import guard

SCHEMES: Final[SecuritySchemesDict] = {"key": {"type": "http", "scheme": "bearer"}}
SECURITY: Final[list[dict[str, list[str]]]] = [{"key": []}]
CHANGING: Final = {"POST", "PUT", "PATCH", "DELETE"}


def authenticate(needed: Role) -> None:
    """Store the sender of the request, and refuse a role below `needed`. Raises OperationError."""
    present = _present()
    if present is None:
        if request.authorization is not None:
            logger().warning("api.refused", why="credentials", operation=request.endpoint)
        message = "No key, or one that opens nothing."
        next_step = "Make a key under your account in the console."
        raise OperationError(HTTPStatus.UNAUTHORIZED, "unauthorized", message, next_step)
    g.operator = present
    if present.key:
        audit.begin(f"{request.remote_addr}, key {present.key}")
    if not Role(present.role).may(needed):
        logger().warning("api.refused", why="role", operation=request.endpoint, operator_id=present.id)
        raise forbidden("role", f"This needs the role {needed}; you are {present.role}.")
    request.max_content_length = guard.MAX_FORM_BYTES


def is_authenticated() -> bool:
    """Return whether the request brings a key or a session."""
    return _present() is not None


def allowance() -> int:
    """Return how many bytes the sender of a request may send, by key or session."""
    given = request.authorization
    if given is not None and given.type == "bearer":
        return guard.MAX_FORM_BYTES if operators.holder_of(given.token or "") is not None else 0
    return guard.allowance()


def _present() -> Present | None:
    """A key goes before a session; a session's changes carry the token that its pages know."""
    given = request.authorization
    if given is not None and given.type == "bearer":
        return operators.holder_of(given.token or "")
    token = guard.token()
    if not token:
        return None
    present = guard.present()
    if present is not None and request.method in CHANGING:
        guard.require_own_form()
    return present
