"""The JSON envelopes of Pipedrive's answers, its refusals, and its kinds of faults.

Sources: docs pages core-api-concepts-responses, core-api-concepts-http-status-codes, and the error examples of the v1
OpenAPI file. Texts that no page documents are written here once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Response

from sandbox.app import JSON, json_answer
from sandbox.faults import Fault, FaultKinds, with_body

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


def html(status: int, title: str) -> Response:
    """Answer as the gateway in front of the API does when a request does not reach the API."""
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


def not_found(status: int = 404) -> ApiError:
    """Refuse a record that does not exist or that the caller may not see."""
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
    """Refuse a call over a limit."""
    return gateway(429, "request over limit")


def milliseconds(moment: float) -> str:
    """Write epoch seconds as webhooks do: 2019-10-25T08:25:27.000Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# 429_burst and 429_daily answer as those limits do; repeat_page returns the same marker of the next page for ever.
_MARKER = re.compile(rb'"next_cursor":("[^"]*"|null)\}\}$')


def _status(fault: Fault) -> Response:
    error = {"success": False, "error": f"Fault {fault.status}", "error_info": SEE_DOCS}
    return json_answer(fault.body or error, fault.status)


def _burst(fault: Fault, remaining: str = "0") -> Response:
    made = json_answer(fault.body or over_limit().body, 429)
    window = {"limit": "20", "remaining": remaining, "reset": "2"}
    made.headers.extend({f"x-ratelimit-{name}": value for name, value in window.items()})
    return made


def _daily(fault: Fault) -> Response:
    made = _burst(fault, remaining="19")
    made.headers.extend({"x-daily-ratelimit-token-limit": "30000", "x-daily-ratelimit-token-remaining": "0"})
    return made


def _repeat(fault: Fault, answer: Response) -> Response:
    """Return the same marker for ever: the first one that this rule saw."""
    found = _MARKER.search(answer.get_data())
    if found is None:
        return answer
    if fault.marker is None:
        fault.marker = found.group(1).decode()
    marker = fault.marker.encode().replace(b"\\", b"\\\\")
    return with_body(answer, _MARKER.sub(b'"next_cursor":%b}}' % marker, answer.get_data()))


FAULT_KINDS = FaultKinds(
    defaults={
        "html": {"status": 403},
        "empty": {"status": 200},
        "repeat_page": {"count": None},
        "slow": {"seconds": 5.0},
        "drip": {"seconds": 1.0},
    },
    make={
        "status": _status,
        "html": lambda fault: html(fault.status, f"{fault.status} | Attention required"),
        "429_burst": _burst,
        "429_daily": _daily,
    },
    change={"repeat_page": _repeat},
)
