"""The way out for answers that are not read whole: a file, piece by piece, within the limits of its request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.clients.wire import NETWORK, Request, Wire, describe
from pipeline.errors import Retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """An answer whose body is still to be read; the pieces raise what `Wire.call` does."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes] = field(repr=False)


class StreamingWire(Wire):
    """The same wire, left open."""

    @contextmanager
    def stream(self, request: Request) -> Iterator[Streamed]:
        """Send a request; what is left unread in the end is given up.

        Raises: as `call`.
        """
        is_known = self._gate.enter(request.remote) if self._gate is not None and request.remote else False
        started, failure = self._clock(), None
        try:
            answer = self._send(request)
        except NETWORK as error:
            failure = describe(error, request)
        if failure is not None:
            self._tell(request, 0, started, 0)
            self._note(request, failure, is_known=is_known)
            raise failure  # outside the except block: the cause's text holds the whole URL
        headers = {name.lower(): value for name, value in answer.headers.items()}
        trouble = Retryable("remote_unavailable", f"HTTP {answer.status}") if answer.status >= 500 else None
        try:
            self._note(request, trouble, is_known=is_known)
            pieces = self._guarded(answer.raw, request, started)
            yield Streamed(status=answer.status, headers=headers, pieces=pieces)
        finally:
            self._tell(request, answer.status, started, request.tokens)
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
