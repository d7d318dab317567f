"""Request bodies: the limit of their sender, receiving them, and parsing them in the app.

    BodyLimits(environ)     return how many bytes the sender may send, by path and headers, before the body is read
    Body.read(limit, …)     receive the body in the event loop, so that a slow sender uses no thread
    Body.stream()           return the stream for the app; it raises an error where an incomplete body ends
    read_object, read_any   parse the object in a body; or return a body that is stored in any case

Every body has a deadline: GRACE_S, extended while it arrives faster than PACE_BYTES_S.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import orjson
from flask import Flask, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, RequestTimeout

from pipeline.domain.json_text import MAX_DEPTH, cut_below, has_more_values, is_nested_deeper
from pipeline.errors import PipelineError
from pipeline.slow_work import SlowLane

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

UNAUTHENTICATED_BYTES: Final = 64 * 1024
"""Limit of a body from a sender without credentials. `pipeline.web.server` reads this much before it checks them."""
GRACE_S: Final = 10.0
PACE_BYTES_S: Final = 128 * 1024
"""Gives a notification of 20 MB 170 s; Hull sends it in a few."""
MEMORY_BYTES: Final = 1024 * 1024
"""Bytes of one body in memory; a longer body is stored in a temporary file."""
CUT_DEPTH: Final = 150
"""More than a message may nest (`LEVELS` of `pipeline.sync.changes.outgoing_changes`), and still writable as JSON."""
LARGEST_BYTES: Final = 64 * 1024 * 1024
"""Limit of a body that is stored in any case: the rest is not read, and the body counts as too large."""
MOST_VALUES: Final = 1_000_000
"""Maximum of values in one body. A notification of 20 MB with texts of 20 characters has fewer."""
LARGE_BYTES: Final = 1024 * 1024
LARGE: Final = SlowLane("large bodies", at_once=1, waiting=8, patience_s=20.0)
"""Bodies above LARGE_BYTES are parsed one after the other: each takes many times its length in memory."""
TOO_DEEP: Final = "too_deep"
ENDS_BYTES: Final = 32 * 1024
PIECE_BYTES: Final = 64 * 1024


class BodyLimits:
    """Body limits by the blueprint of a path.

    of  name of a blueprint → function that returns the limit in a request context without a body; 0 if the view
        would reject the sender
    """

    def __init__(self, app: Flask, of: Mapping[str, Callable[[], int]]) -> None:
        self._app, self._of = app, dict(of)

    def add(self, of: Mapping[str, Callable[[], int]]) -> None:
        """Add limits of more blueprints."""
        self._of.update(of)

    def __call__(self, environ: WSGIEnvironment) -> int:
        """Return the limit in bytes; 0 if it cannot be determined: the view then answers with its own error."""
        with self._app.request_context(environ):
            limit = self._of.get(request.blueprint or "")
            try:
                return UNAUTHENTICATED_BYTES if limit is None else limit()
            except (PipelineError, SQLAlchemyError, HTTPException):
                return 0


class Reading(Enum):
    """The result of a read."""

    WHOLE = "whole"
    OPEN = "open"
    """The time of the first read is over; more may follow."""
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    GONE = "gone"
    """The sender closed the connection."""


ERRORS: Final[dict[Reading, type[HTTPException]]] = {
    Reading.TOO_LARGE: RequestEntityTooLarge,
    Reading.TOO_SLOW: RequestTimeout,
}


class Body:
    """One request's body.

    declared  its Content-Length; None if the sender did not send one
    """

    def __init__(
        self, chunks: AsyncIterator[bytes], declared: int | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._chunks, self._declared, self._clock = chunks, declared, clock
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 - closed by `close`
        self._next: asyncio.Task[bytes | None] | None = None
        self._begun = clock()
        self._aborted = asyncio.Event()
        self._error: type[HTTPException] | None = None
        self.size = 0

    async def read(self, limit: int, *, first_s: float | None = None) -> Reading:
        """Read until the body is complete, longer than `limit` bytes, too slow, or `first_s` seconds have passed.

        A later call continues where this one stopped.
        """
        first_until = None if first_s is None else self._clock() + first_s
        while self.size != self._declared:
            if self.size > limit or (self._declared is not None and self._declared > limit and first_s is None):
                return Reading.TOO_LARGE
            good_until = self._begun + GRACE_S + self.size / PACE_BYTES_S
            until = good_until if first_until is None else min(good_until, first_until)
            if self._aborted.is_set() or not await self._arrives(until - self._clock()):
                is_open = first_until is not None and first_until < good_until and not self._aborted.is_set()
                return Reading.OPEN if is_open else Reading.TOO_SLOW
            piece = self._take()
            if piece is None:
                return Reading.WHOLE if self._declared is None else Reading.GONE
            self.size += len(piece)
            self._file.write(piece)
        return Reading.WHOLE

    def abort(self) -> None:
        """End a waiting read as too slow: other requests need the memory."""
        self._aborted.set()
        if self._next is not None:
            self._next.cancel()

    def fail(self, reading: Reading) -> None:
        """Have the stream raise the error of `reading` after what was received."""
        self._error = ERRORS[reading]

    def stream(self) -> io.BufferedIOBase:
        """Return the stream for `wsgi.input`. It raises an HTTPException where an incomplete body ends."""
        self._file.seek(0)
        return _Stream(self._file, self._error)

    async def close(self) -> None:
        """Stop reading, and delete the body."""
        if self._next is not None:
            self._next.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._next
        self._file.close()

    async def _arrives(self, within_s: float) -> bool:
        """Return whether the next piece, or the end, arrives in time; a later piece is kept for the next call."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        done, _ = await asyncio.wait([self._next], timeout=max(0.0, within_s))
        return bool(done) and not self._next.cancelled()

    def _take(self) -> bytes | None:
        assert self._next is not None  # noqa: S101 - `_arrives` has set it
        task, self._next = self._next, None
        return task.result()

    async def _receive(self) -> bytes | None:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            return None


class _Stream(io.BufferedIOBase):
    """The received bytes, then the error."""

    def __init__(self, file: IO[bytes], error: type[HTTPException] | None) -> None:
        self._file, self._error = file, error

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        piece = self._file.read(-1 if size is None else size)
        if self._error is not None and (not piece or size is None or size < 0):
            raise self._error
        return piece

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        line = self._file.readline(-1 if size is None else size)
        if self._error is not None and not line:
            raise self._error
        return line


class BodyRefused(Exception):
    """The body is not a JSON object; `code` is `not_json`, `not_an_object` or `too_deep`."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def read_object(max_bytes: int, *, cuts: bool = False) -> dict[str, Any]:
    """Return the object in the request's body.

    cuts  replace values deeper than CUT_DEPTH by null, instead of refusing a body deeper than MAX_DEPTH
    Raises: BodyRefused; RequestEntityTooLarge (413) above `max_bytes`, with or without a Content-Length, and above
    MOST_VALUES.
    """
    request.max_content_length = max_bytes + 1  # a body of unknown length is cut there silently
    body = request.get_data(cache=False)
    if len(body) > max_bytes or has_more_values(body, MOST_VALUES):
        raise RequestEntityTooLarge
    return _parse_cut(body) if cuts else _parse_object(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBody:
    """A body that is stored whatever it contains.

    kept     the stored bytes: all, or both ends of a body above the limit
    value    the object in it; None if there is a problem
    problem  `too_large`, or the code of a BodyRefused
    digest   of the complete body
    """

    kept: bytes = field(repr=False)
    value: dict[str, Any] | None = field(repr=False)
    problem: str | None
    size: int
    digest: str


def read_any(max_bytes: int) -> StoredBody:
    """Return the request's body, whatever its content and length; above `max_bytes`, keep only its ends in memory."""
    request.max_content_length = sys.maxsize  # `pipeline.web.server` accepts LARGEST_BYTES
    start, end, size, is_cut = bytearray(), b"", 0, False
    digest = hashlib.blake2b(digest_size=16)
    try:
        while piece := request.stream.read(PIECE_BYTES):
            size += len(piece)
            digest.update(piece)
            start += piece[: max_bytes - len(start)]
            end = (end + piece)[-ENDS_BYTES:]
    except RequestEntityTooLarge:  # above LARGEST_BYTES
        is_cut = True
    value, problem, kept = None, None, bytes(start)
    if is_cut or size > max_bytes:
        problem, kept = "too_large", kept[:ENDS_BYTES] + b"\n" + end
    else:
        try:
            value = _parse_object(kept)
        except BodyRefused as refused:
            problem = refused.code
    return StoredBody(kept=kept, value=value, problem=problem, size=size, digest=digest.hexdigest())


@contextmanager
def wait_for_large_body() -> Iterator[None]:
    """Wait until this request's body may be parsed: large bodies are parsed one after the other."""
    with LARGE.entered() if (request.content_length or 0) > LARGE_BYTES else nullcontext():
        yield


def _parse_object(body: bytes) -> dict[str, Any]:
    value = _parse(body)
    if not isinstance(value, dict):
        raise BodyRefused("not_an_object")
    if is_nested_deeper(value, MAX_DEPTH):
        raise BodyRefused(TOO_DEEP)
    return value


def _parse_cut(body: bytes) -> dict[str, Any]:
    try:
        value = _parse(body)
    except BodyRefused as refused:
        if refused.code != TOO_DEEP:
            raise
        value = None
    if value is None or is_nested_deeper(value, CUT_DEPTH):
        value = _parse(cut_below(body, CUT_DEPTH))
    if not isinstance(value, dict):
        raise BodyRefused("not_an_object")
    return value


def _parse(body: bytes) -> Any:
    """Parse UTF-8 JSON without NaN and Infinity. Lone surrogates pass: one bad name must not fail the whole delivery."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:  # it may not be JSON further on
        raise BodyRefused(TOO_DEEP) from None
    except ValueError:
        raise BodyRefused("not_json") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
