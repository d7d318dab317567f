"""Files that a remote system names by address: read piece by piece, from allowed hosts alone, and never beyond their limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

from pipeline.clients.http import error_for
from pipeline.clients.ssrf import REFUSED as REFUSED_WORDS
from pipeline.clients.ssrf import Guard
from pipeline.clients.streaming import Streamed, StreamingWire
from pipeline.clients.wire import OnCall, Request, Response
from pipeline.errors import ConfigurationError, Rejected

REFUSED = "export_host_refused"
DEADLINE_S = 200.0
"""Less than what a task may take; whoever reads longer leaves the rest to another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """mark  tells whether a later reading is of the same file: what the server calls its version and length."""

    mark: str
    pieces: Iterator[bytes] = field(repr=False)


class Downloads:
    """Reads files for one installation, from the addresses that a guard allows."""

    def __init__(
        self, guard: Guard, *, make_session: Callable[[Guard], requests.Session], on_call: OnCall | None = None
    ) -> None:
        self._guard = guard
        self._make_session = make_session
        self._on_call = on_call

    def check(self, url: str) -> None:
        """Raises: Rejected("export_host_refused") for an address that is refused by its text; nothing is looked up."""
        try:
            self._guard.check(url)
        except ConfigurationError as refused:
            raise Rejected(REFUSED, refused.detail) from None

    @contextmanager
    def open(self, url: str, *, max_bytes: int) -> Iterator[File]:
        """The file, to be read once.

        Raises: Rejected("export_host_refused", "export_gone", "export_too_large"), Retryable; the pieces raise the same.
        """
        self.check(url)
        request = Request(
            method="GET",
            url=url,
            headers={"Accept-Encoding": "gzip", "User-Agent": "hull-pipedrive"},
            max_bytes=max_bytes,
            deadline_s=DEADLINE_S,
        )
        with (
            self._make_session(self._guard) as session,
            StreamingWire(session, on_call=self._on_call).stream(request) as streamed,
        ):
            _require_file(streamed)
            yield File(mark=_mark(streamed), pieces=_within(streamed))


def _require_file(streamed: Streamed) -> None:
    status = streamed.status
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise Rejected(REFUSED, REFUSED_WORDS)
    if status in {401, 403, 404, 410}:
        raise Rejected("export_gone", f"HTTP {status}")
    raise error_for(Response(status=status, headers=streamed.headers, body=b"", duration_s=0.0))


def _within(streamed: Streamed) -> Iterator[bytes]:
    try:
        yield from streamed.pieces
    except Rejected as refused:
        raise Rejected(
            "export_too_large" if refused.reason == "body_too_large" else refused.reason, refused.detail
        ) from None


def _mark(streamed: Streamed) -> str:
    names = ("etag", "last-modified", "content-length")
    return "|".join(streamed.headers.get(name, "") for name in names)
