"""How Pipedrive fails on order: its own answers, and the kinds of faults that only it has.

429_burst, 429_daily  as those limits say
repeat_page           the same marker of the next page for ever
"""

from __future__ import annotations

import re

from flask import Response

from sandbox.faults import Fault, Style, rework
from sandbox.pipedrive import answers

_MARKER = re.compile(rb'"next_cursor":("[^"]*"|null)\}\}$')


def _status(fault: Fault) -> Response:
    error = {"success": False, "error": f"Fault {fault.status}", "error_info": answers.SEE_DOCS}
    return answers.plain(fault.body or error, fault.status)


def _burst(fault: Fault, remaining: str = "0") -> Response:
    made = answers.plain(fault.body or answers.over_limit().body, 429)
    window = {"limit": "20", "remaining": remaining, "reset": "2"}
    made.headers.extend({f"x-ratelimit-{name}": value for name, value in window.items()})
    return made


def _daily(fault: Fault) -> Response:
    made = _burst(fault, remaining="19")
    made.headers.extend({"x-daily-ratelimit-token-limit": "30000", "x-daily-ratelimit-token-remaining": "0"})
    return made


def _repeat(fault: Fault, answer: Response) -> Response:
    """Give out the same marker for ever: the first one this rule saw."""
    found = _MARKER.search(answer.get_data())
    if found is None:
        return answer
    if fault.marker is None:
        fault.marker = found.group(1).decode()
    marker = fault.marker.encode().replace(b"\\", b"\\\\")
    return rework(answer, _MARKER.sub(b'"next_cursor":%b}}' % marker, answer.get_data()))


STYLE = Style(
    usual={
        "html": {"status": 403},
        "empty": {"status": 200},
        "repeat_page": {"count": None},
        "slow": {"seconds": 5.0},
        "drip": {"seconds": 1.0},
    },
    instead={
        "status": _status,
        "html": lambda fault: answers.html(fault.status, f"{fault.status} | Attention required"),
        "429_burst": _burst,
        "429_daily": _daily,
    },
    reworked={"repeat_page": _repeat},
)
