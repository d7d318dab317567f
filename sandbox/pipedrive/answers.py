"""The envelopes Pipedrive wraps its answers in, good and bad.

Sources: docs pages core-api-concepts-responses, core-api-concepts-http-status-codes, and the error examples of the v1
OpenAPI file. What no page settles is worded here once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from flask import Response

JSON = "application/json"
SEE_DOCS = "Please check developers.pipedrive.com"
CLOUDFLARE_PAGE = (
    "<!DOCTYPE html><html><head><title>{title}</title></head>"
    "<body><h1>{title}</h1><p>Cloudflare Ray ID: 8f3a1c5d7e9b2a40</p></body></html>"
)


class ApiError(Exception):
    """End the request with this status and body."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body.get("error", status))
        self.status = status
        self.body = body


def item(data: bytes, *, status: int = 200) -> Response:
    """Answer with one object, already encoded."""
    return Response(b'{"success":true,"data":%b}' % data, status, content_type=JSON)


def page(bodies: Sequence[bytes], next_cursor: str | None) -> Response:
    """Answer with a list of objects, already encoded, and the marker of the next page or null."""
    marker = b"null" if next_cursor is None else b'"%b"' % next_cursor.encode()
    body = b'{"success":true,"data":[%b],"additional_data":{"next_cursor":%b}}' % (b",".join(bodies), marker)
    return Response(body, content_type=JSON)


def plain(body: dict[str, Any], status: int = 200) -> Response:
    """Answer with any object."""
    return Response(orjson.dumps(body), status, content_type=JSON)


def html(status: int, title: str) -> Response:
    """Answer as the gateway in front of the API does when it never reaches it."""
    return Response(CLOUDFLARE_PAGE.format(title=title), status, content_type="text/html; charset=UTF-8")


def invalid(reason: str) -> ApiError:
    """Refuse a body or a parameter; the message names it."""
    return ApiError(
        400,
        {
            "success": False,
            "error": f"Validation failed: {reason}",
            "code": "ERR_SCHEMA_VALIDATION_FAILED",
            "error_info": SEE_DOCS,
            "data": None,
            "additional_data": None,
        },
    )


def not_found() -> ApiError:
    """Say that the record is not there, or not to be seen."""
    return gone(404)


def gone(status: int) -> ApiError:
    """Say, with this status, that the record is not there any more."""
    return ApiError(
        status,
        {
            "success": False,
            "error": "Entity was not found",
            "error_info": "Object was not found.",
            "data": None,
            "additional_data": None,
        },
    )


def gateway(status: int, error: str) -> ApiError:
    """Refuse before the API proper is reached."""
    return ApiError(status, {"success": False, "error": error, "errorCode": status, "error_info": SEE_DOCS})


def over_limit() -> ApiError:
    """Say that the window is used up."""
    return gateway(429, "request over limit")
