"""Read the body of a request as it arrives, in the event loop: a slow sender uses no thread.

    Body.read(limit, …)   reads until the body is complete, or returns why it is not
    Body.stream()         the stream for the app: the body, then the reason why it is incomplete

Every body has a deadline: GRACE_S, and longer only as long as it arrives with PACE_BYTES_S.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from enum import Enum
from typing import IO, Final

from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, RequestTimeout

GRACE_S: Final = 10.0
PACE_BYTES_S: Final = 128 * 1024
"""A notification of 20 MB has 170 s; Hull sends it in a few."""
MEMORY_BYTES: Final = 1024 * 1024
"""Bytes of one body in memory; a longer body is stored in a temporary file."""


class Reading(Enum):
    """What became of a read."""

    WHOLE = "whole"
    OPEN = "open"
    """The first look ended: there may be more."""
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    GONE = "gone"
    """The sender hung up."""


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
        self._given_up = asyncio.Event()
        self._error: type[HTTPException] | None = None
        self.size = 0

    async def read(self, limit: int, *, look_s: float | None = None) -> Reading:
        """Read until the body is complete, longer than `limit` bytes, or too slow; with `look_s`, at most for that time.

        A later call continues where this one stopped.
        """
        look_until = None if look_s is None else self._clock() + look_s
        while self.size != self._declared:
            if self.size > limit or (self._declared is not None and self._declared > limit and look_s is None):
                return Reading.TOO_LARGE
            good_until = self._begun + GRACE_S + self.size / PACE_BYTES_S
            until = good_until if look_until is None else min(good_until, look_until)
            if self._given_up.is_set() or not await self._arrives(until - self._clock()):
                is_open = look_until is not None and look_until < good_until and not self._given_up.is_set()
                return Reading.OPEN if is_open else Reading.TOO_SLOW
            piece = self._take()
            if piece is None:
                return Reading.WHOLE if self._declared is None else Reading.GONE
            self.size += len(piece)
            self._file.write(piece)
        return Reading.WHOLE

    def give_up(self) -> None:
        """End a waiting read as too slow: other requests need the memory."""
        self._given_up.set()
        if self._next is not None:
            self._next.cancel()

    def fail(self, reading: Reading) -> None:
        """The app gets what is here, and then the error that belongs to `reading`."""
        self._error = ERRORS[reading]

    def stream(self) -> io.BufferedIOBase:
        """The body for `wsgi.input`. It raises an HTTPException where the body ends before its time."""
        self._file.seek(0)
        return _Stream(self._file, self._error)

    async def close(self) -> None:
        """Forget the body."""
        if self._next is not None:
            self._next.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._next
        self._file.close()

    async def _arrives(self, within_s: float) -> bool:
        """Whether the next piece, or the end, is here in time. What is on its way is never lost by not waiting."""
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
