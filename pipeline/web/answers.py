"""Common parts of every answer: security headers, a request id, and errors without internal details."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, g, jsonify, redirect, request
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bind_contextvars, clear_contextvars
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from db import audit
from pipeline.operations.registry import Download
from pipeline.slow_work import Overloaded
from pipeline.telemetry import logger
from pipeline.web.request_origin import HSTS, is_internal, is_secure

RETRY_AFTER_S = 5
OVERLOADED = "Too many requests are waiting. Try again in a few seconds."
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
CODES = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large"}
"""Codes that differ from the name of the status."""


def register_answers(app: Flask) -> None:
    """Give an app these headers and error answers."""
    app.before_request(_begin_request)
    app.after_request(_add_headers)
    app.teardown_request(_end_request)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(SQLAlchemyError, _database_error)
    app.register_error_handler(Overloaded, _overloaded)
    app.register_error_handler(Exception, _defect)


def error(status: HTTPStatus, code: str, sentence: str = "") -> tuple[Response, int]:
    """Return an error as JSON, or as a line of text for a browser."""
    wants_text = request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    if wants_text:
        line = f"{int(status)} {sentence or status.phrase}. Request {g.request_id}\n"
        return Response(line, mimetype="text/plain"), status
    return jsonify(error=code, message=sentence or status.phrase, request_id=g.request_id), status


def internal_only(view: Callable[..., Any], or_else: Callable[[], bool] = lambda: False) -> Callable[..., Any]:
    """Restrict a view to internal requests; others get a 401.

    or_else  returns whether an external request is allowed too
    """

    @wraps(view)
    def checked(**given: Any) -> Any:
        if is_internal() or or_else():
            return view(**given)
        sentence = "Send METRICS_TOKEN as a bearer token, or call from INTERNAL_NETWORKS."
        answer, status = error(HTTPStatus.UNAUTHORIZED, "internal_only", sentence)
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer, status

    return checked


def download(found: Download) -> Response:
    """Return a file for a browser to store."""
    headers = {"Content-Disposition": f'attachment; filename="{found.name}"', "X-Content-Type-Options": "nosniff"}
    return Response(found.chunks, mimetype=found.content_type, headers=headers)


def common_headers() -> dict[str, str]:
    """Return the headers of every answer."""
    return HEADERS | ({"Strict-Transport-Security": HSTS} if is_secure() else {})


def _begin_request() -> None:
    g.request_id = secrets.token_hex(8)
    bind_contextvars(request_id=g.request_id)
    audit.begin(request.remote_addr)


def _add_headers(answer: Response) -> Response:
    if isinstance(request.routing_exception, RequestRedirect):
        answer = _within_host(request.routing_exception)
    answer.headers.update(common_headers() | g.get("own_headers", {}))
    answer.headers["X-Request-Id"] = g.request_id
    return answer


def _end_request(_error: BaseException | None) -> None:
    clear_contextvars()
    audit.begin(None)


def _http_error(refused: HTTPException) -> tuple[Response, int] | HTTPException:
    if refused.code is None or refused.code < HTTPStatus.BAD_REQUEST:
        return refused  # a redirect is not an error
    status = HTTPStatus(refused.code)
    answer, _ = error(status, CODES.get(status, status.name.lower()))
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["Allow"] = ", ".join(getattr(refused, "valid_methods", None) or ())
    return answer, status


def _within_host(redirected: RequestRedirect) -> Response:
    """Redirect to the path only: the router uses scheme and host of the proxy's request, which browsers may not reach."""
    parts = urlsplit(redirected.new_url)
    path = "/" + parts.path.lstrip("/\\")
    answer: Response = current_app.make_response(
        redirect(f"{path}?{parts.query}" if parts.query else path, redirected.code)
    )
    return answer


def _database_error(failure: SQLAlchemyError) -> tuple[Response, int]:
    """Answer a database error, so that the sender retries. The driver's message may contain values of records."""
    logger().error("database.unavailable", error=type(failure).__name__)
    return _unavailable("database_unavailable", "The database cannot be reached")


def _overloaded(overloaded: Overloaded) -> tuple[Response, int]:
    logger().warning("web.overloaded", lane=overloaded.lane)
    return _unavailable("overloaded", OVERLOADED)


def _unavailable(code: str, sentence: str) -> tuple[Response, int]:
    answer, status = error(HTTPStatus.SERVICE_UNAVAILABLE, code, sentence)
    answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    return answer, status


def _defect(failure: Exception) -> tuple[Response, int]:
    """Log the type and place only, because the text of an exception may contain values of records."""
    place = traceback.extract_tb(failure.__traceback__)[-1]
    logger().error("web.error", error=type(failure).__name__, at=f"{place.filename}:{place.lineno}")
    return error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "Internal error")
