"""Download files that a remote system names by address: in pieces, from allowed hosts only, and never beyond a limit.

A download is resumed by a range request (RFC 9110, section 14). It is conditional: a server with a changed file sends
the new one from the start. Some servers ignore the condition, or the range; so the answer is checked as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import requests

from pipeline.clients.http_answers import error_for
from pipeline.clients.http_transport import NETWORK, Gate, HttpTransport, OnCall, Request, Response, describe
from pipeline.clients.ssrf import REFUSED as REFUSED_WORDS
from pipeline.clients.ssrf import Guard
from pipeline.errors import ConfigurationError, Rejected, Retryable

REFUSED: Final = "export_host_refused"
REMOTE: Final = "files"
DEADLINE_S: Final = 200.0
"""Less than the time limit of a task."""
ENCODINGS: Final = frozenset({"", "identity", "gzip", "x-gzip"})
"""Content encodings that can be stored as they are: gzip is recognised by its first bytes."""
_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file, or the rest of it, as the server sends it: compressed if it is compressed there.

    start        number of bytes before the first piece
    total_bytes  size of the whole file, if the server sends it
    validator    for a later range request: a strong ETag, or Last-Modified; empty if there is neither
    """

    start: int
    total_bytes: int | None
    validator: str
    pieces: Iterator[bytes] = field(repr=False)


class Downloads:
    """Downloads files for one installation, from the addresses that a guard allows."""

    def __init__(
        self,
        guard: Guard,
        *,
        make_session: Callable[[Guard], requests.Session],
        on_call: OnCall | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._guard = guard
        self._make_session = make_session
        self._on_call = on_call
        self._gate = gate

    def check(self, url: str) -> None:
        """Raises: Rejected("export_host_refused") for an address that is refused by its text; nothing is looked up."""
        try:
            self._guard.check(url)
        except ConfigurationError as refused:
            raise Rejected(REFUSED, refused.detail) from None

    @contextmanager
    def open(
        self, url: str, *, max_bytes: int, start: int = 0, validator: str = "", total_bytes: int | None = None
    ) -> Iterator[File]:
        """Open a file from byte `start` on if it is still the one of `validator` and `total_bytes`, else from its beginning.

        Raises: Rejected("export_host_refused", "export_gone", "export_too_large", "export_malformed"), Retryable; the pieces
        raise the same.
        """
        if not validator:
            start = 0
        self.check(url)
        with self._make_session(self._guard) as session, ExitStack() as answers:
            transport = StreamingTransport(session, on_call=self._on_call, gate=self._gate)
            streamed = answers.enter_context(transport.stream(_request(url, max_bytes, start, validator)))
            begins = _begins(streamed, start, validator, total_bytes)
            if begins is None:
                answers.close()
                streamed = answers.enter_context(transport.stream(_request(url, max_bytes, 0, "")))
                begins = _begins(streamed, 0, "", None)
            if begins is None:
                raise Retryable("remote_unavailable", f"HTTP {streamed.status} without the requested range")
            yield _file(streamed, begins, max_bytes, validator)


def _request(url: str, max_bytes: int, start: int, validator: str) -> Request:
    headers = {"Accept-Encoding": "identity", "User-Agent": "hull-pipedrive"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    return Request(
        method="GET",
        url=url,
        headers=headers,
        max_bytes=max(0, max_bytes - start),
        deadline_s=DEADLINE_S,
        remote=REMOTE,
        decodes=False,
    )


def _begins(streamed: Streamed, start: int, validator: str, total_bytes: int | None) -> int | None:
    """Return at which byte of the file the answer begins; None if it cannot be used, and the whole file must be requested."""
    if streamed.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
        return start if _range(streamed) == (None, start) else None
    if streamed.status != HTTPStatus.PARTIAL_CONTENT:
        return 0
    first, total = _range(streamed)
    is_same = _validator(streamed) in ("", validator) and (None in (total, total_bytes) or total == total_bytes)
    return start if start and is_same and first == start else None


def _file(streamed: Streamed, start: int, max_bytes: int, validator: str) -> File:
    if streamed.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
        return File(start=start, total_bytes=start, validator=validator, pieces=iter(()))
    _require_file(streamed)
    if start:
        total = _range(streamed)[1]
    else:
        validator, length = _validator(streamed), streamed.headers.get("content-length", "")
        total = int(length) if length.isascii() and length.isdigit() else None
    if total is not None and total > max_bytes:
        raise Rejected("export_too_large", f"{total} bytes, more than {max_bytes}")
    return File(start=start, total_bytes=total, validator=validator, pieces=_within(streamed))


def _require_file(streamed: Streamed) -> None:
    status, encoding = streamed.status, streamed.headers.get("content-encoding", "").strip().lower()
    if 200 <= status < 300:
        if encoding not in ENCODINGS:
            raise Rejected("export_malformed", f"its content encoding {encoding[:20]!r} is not known")
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


def _range(streamed: Streamed) -> tuple[int | None, int | None]:
    """Return (first byte, size of the whole file) of Content-Range; None for missing parts."""
    found = _RANGE.fullmatch(streamed.headers.get("content-range", "").strip())
    if found is None:
        return None, None
    first, total = found.groups()
    return (int(first) if first else None), (int(total) if total != "*" else None)


def _validator(streamed: Streamed) -> str:
    """Return what identifies this very file, byte by byte: a weak ETag does not (RFC 9110, section 13.1.5)."""
    etag = streamed.headers.get("etag", "").strip()
    if etag:
        return "" if etag.startswith("W/") else etag
    return streamed.headers.get("last-modified", "").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """An answer with an unread body; the pieces raise the errors of `HttpTransport.call`."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes] = field(repr=False)


class StreamingTransport(HttpTransport):
    """A transport that leaves the body unread, to be read in pieces."""

    @contextmanager
    def stream(self, request: Request) -> Iterator[Streamed]:
        """Send a request; close the answer at the end, even if it was not read completely.

        Raises: as `call`.
        """
        is_known = self._gate.enter(request.remote) if self._gate is not None and request.remote else False
        started, failure = self._clock(), None
        try:
            answer = self._send(request)
        except NETWORK as error:
            failure = describe(error, request)
        if failure is not None:
            self._log_call(request, 0, started, 0)
            self._note(request, failure, is_known=is_known)
            raise failure  # outside the except block: the cause's text holds the whole URL
        headers = {name.lower(): value for name, value in answer.headers.items()}
        trouble = Retryable("remote_unavailable", f"HTTP {answer.status}") if answer.status >= 500 else None
        try:
            self._note(request, trouble, is_known=is_known)
            pieces = self._guarded(answer.raw, request, started)
            yield Streamed(status=answer.status, headers=headers, pieces=pieces)
        finally:
            self._log_call(request, answer.status, started, request.tokens)
            answer.raw.close()

    def _guarded(self, raw: Any, request: Request, started: float) -> Iterator[bytes]:
        try:
            yield from self._pieces(raw, request, started)
        except NETWORK as error:
            failure = describe(error, request)
        else:
            return
        self._note(request, failure, is_known=False)
        raise failure
