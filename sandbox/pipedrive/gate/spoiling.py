"""Misbehave on purpose: what each kind of fault makes of an answer.

In: the rule that is due and, for those that need it, the real answer. Out: the spoilt one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache

from flask import Response

from sandbox.pipedrive import answers
from sandbox.pipedrive.gate.faults import Fault

Sleep = Callable[[float], None]

_GZIP = 31  # zlib: the largest window, in gzip's wrapping
_BLOCK = bytes(1_000_000)
_MARKER = re.compile(rb'"next_cursor":("[^"]*"|null)\}\}$')
_REMAINING = {"429_burst": "0", "429_daily": "19"}


def spoil(fault: Fault, answer: Response, sleep: Sleep) -> Response:
    """Make of a real answer what the rule wants, its headers included."""
    if fault.kind in _REWORKED:
        spoilt = _REWORKED[fault.kind](fault, answer)
    elif fault.kind == "drip":
        spoilt = Response(_drip(fault, answer.get_data(), sleep), answer.status_code, content_type=answers.JSON)
    elif fault.kind == "slow":
        sleep(fault.seconds)
        spoilt = answer
    else:
        spoilt = instead(fault)
    spoilt.headers.update(fault.headers)
    return spoilt


def instead(fault: Fault) -> Response:
    """Make the answer of a rule that needs no real one."""
    if fault.kind == "html":
        made = answers.html(fault.status, f"{fault.status} | Attention required")
    elif fault.kind == "empty":
        made = Response(b"", fault.status, content_type=answers.JSON)
    elif fault.kind == "not_json":
        made = Response("upstream said: \xa0{not json", 200, content_type=answers.JSON)
    elif fault.kind == "gzip_bomb":
        made = Response(_bomb(fault.size), 200, {"Content-Encoding": "gzip"}, content_type=answers.JSON)
    elif fault.kind in _REMAINING:
        made = answers.plain(fault.body or answers.over_limit().body, 429)
        window = {"limit": "20", "remaining": _REMAINING[fault.kind], "reset": "2"}
        made.headers.extend({f"x-ratelimit-{name}": value for name, value in window.items()})
        if fault.kind == "429_daily":
            made.headers.extend({"x-daily-ratelimit-token-limit": "30000", "x-daily-ratelimit-token-remaining": "0"})
    else:
        error = {"success": False, "error": f"Fault {fault.status}", "error_info": answers.SEE_DOCS}
        made = answers.plain(fault.body or error, fault.status)
    made.headers.update(fault.headers)
    return made


def _truncated(_: Fault, answer: Response) -> Response:
    whole = answer.get_data()
    return Response(whole[: len(whole) // 2], answer.status_code, content_type=answers.JSON)


def _repeat(fault: Fault, answer: Response) -> Response:
    """Give out the same marker for ever: the first one this rule saw."""
    found = _MARKER.search(answer.get_data())
    if found is None:
        return answer
    if fault.marker is None:
        fault.marker = found.group(1)
    body = _MARKER.sub(b'"next_cursor":%b}}' % fault.marker.replace(b"\\", b"\\\\"), answer.get_data())
    return Response(body, answer.status_code, content_type=answers.JSON)


def _rewrite(fault: Fault, answer: Response) -> Response:
    put = fault.put.encode()
    body = re.sub(fault.find.encode(), lambda _: put, answer.get_data(), count=1)
    return Response(body, answer.status_code, content_type=answers.JSON)


def _cut(_: Fault, answer: Response) -> Response:
    """Promise the whole answer and break off in the middle."""
    whole = answer.get_data()
    cut = Response(_breaking(whole[: len(whole) // 2]), answer.status_code, content_type=answers.JSON)
    cut.headers["Content-Length"] = str(len(whole))
    return cut


def _breaking(half: bytes) -> Iterator[bytes]:
    yield half
    raise ConnectionResetError("cut on purpose")


def _drip(fault: Fault, whole: bytes, sleep: Sleep) -> Iterator[bytes]:
    for position in range(len(whole)):
        yield whole[position : position + 1]
        sleep(fault.seconds)


@lru_cache(maxsize=2)
def _bomb(size: int) -> bytes:
    """Pack `size` zeros: a thousandth of it on the wire."""
    packer = zlib.compressobj(9, wbits=_GZIP)
    blocks = [packer.compress(_BLOCK[: min(len(_BLOCK), size - start)]) for start in range(0, size, len(_BLOCK))]
    return b"".join([*blocks, packer.flush()])


_REWORKED: dict[str, Callable[[Fault, Response], Response]] = {
    "truncated": _truncated,
    "repeat_page": _repeat,
    "rewrite": _rewrite,
    "cut": _cut,
}
