"""The RSGI application for granian: it reads bodies in the event loop, and calls the Flask app in a thread.

    granian --interface rsgi --factory pipeline.web.app:create_server

A request gets a thread only when its body is complete. If a body is longer than UNAUTHENTICATED_BYTES, or incomplete after
FIRST_READ_S, the server reads on up to the limit of its sender, which `BodyLimits` finds by path and headers alone.
The app is called in any case: reading an incomplete body raises 408 or 413, and a sender without credentials gets its 401.
docs/decisions/0018-read-bodies-before-taking-a-thread.md explains why this is not granian's WSGI.
"""

from __future__ import annotations

import asyncio
import io
import re
import resource
import sys
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import orjson

from pipeline.slow_work import LANES, Overloaded, web_request
from pipeline.telemetry import logger
from pipeline.web.answers import OVERLOADED, RETRY_AFTER_S, common_headers
from pipeline.web.concurrency import AT_ONCE, RequestSlots, Slot
from pipeline.web.request_body import UNAUTHENTICATED_BYTES, Body, Reading

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

T = TypeVar("T")

FIRST_READ_S: Final = 0.5
UNAUTHENTICATED_BODIES: Final = 200
"""Maximum of incomplete bodies from senders without credentials. One more ends the oldest."""
WHOLE_BYTES: Final = 1024 * 1024
"""A longer answer is sent from a temporary file: granian would keep all of it in memory until the client has received it."""
FILE_S: Final = 30.0
"""Seconds until the file of an answer is unlinked; granian has opened it by then."""
PROBES: Final = ("/healthz", "/readyz")
"""Paths with a thread of their own: probes never wait behind other requests."""
PROBES_WAITING: Final = 16


class Headers(Protocol):
    def items(self) -> Iterable[tuple[str, str]]: ...


class RequestScope(Protocol):
    """The fields of granian's request: https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md"""

    proto: str
    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str

    @property
    def headers(self) -> Headers: ...


class HTTPProtocol(Protocol):
    """Receives the body and sends the answer."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...

    def response_file(self, status: int, headers: list[tuple[str, str]], file: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """file  the body's file, if it is longer than WHOLE_BYTES"""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    file: str | None = None


class Server:
    """Serves a WSGI app.

    limit_of  returns how many bytes the sender of a request may send; called without a body, in a thread
    """

    def __init__(self, app: WSGIApplication, limit_of: Callable[[WSGIEnvironment], int]) -> None:
        self._app, self._limit_of = app, limit_of
        self._slots = RequestSlots()
        self._threads = ThreadPoolExecutor(
            AT_ONCE + sum(lane.places for lane in LANES) + 2, thread_name_prefix="request"
        )
        self._probe_threads = {path: ThreadPoolExecutor(1, thread_name_prefix=path[1:]) for path in PROBES}
        self._waiting_probes = dict.fromkeys(PROBES, 0)
        self._unauthenticated: OrderedDict[int, Body] = OrderedDict()

    async def __rsgi__(self, scope: RequestScope, protocol: HTTPProtocol) -> None:
        environ = environ_of(scope)
        declared = _declared(environ)
        body = None if declared == 0 else Body(aiter(protocol), declared)
        try:
            answer = await self._answer(environ, body)
        except Overloaded as overloaded:
            logger().warning("web.overloaded", lane=overloaded.lane)
            answer = overload_answer()
        finally:
            if body is not None:
                await body.close()
        if answer is None:
            return
        if answer.file is None:
            protocol.response_bytes(answer.status, answer.headers, answer.body)
        else:
            protocol.response_file(answer.status, answer.headers, answer.file)
            asyncio.get_running_loop().call_later(FILE_S, partial(Path(answer.file).unlink, missing_ok=True))

    async def _answer(self, environ: WSGIEnvironment, body: Body | None) -> _Answer | None:
        """Return the app's answer; None if the sender hung up."""
        if environ["PATH_INFO"] in PROBES:
            return await self._answer_probe(environ)
        if body is not None:
            reading = await self._read(environ, body)
            if reading is Reading.GONE:
                return None
            if reading is not Reading.WHOLE:
                logger().warning(
                    "web.body_not_read", reason=str(reading.value), path=_known_path(environ), bytes=body.size
                )
                body.fail(reading)
            else:
                environ["CONTENT_LENGTH"] = str(body.size)
            environ["wsgi.input"] = body.stream()
        slot = await self._slots.acquire()
        answer = await self._in_thread(slot, lambda: _call(self._app, environ))
        if body is not None and reading is not Reading.WHOLE:
            answer.headers.append(("Connection", "close"))
        return answer

    async def _answer_probe(self, environ: WSGIEnvironment) -> _Answer:
        path = environ["PATH_INFO"]
        if self._waiting_probes[path] >= PROBES_WAITING:
            raise Overloaded(path)
        self._waiting_probes[path] += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._probe_threads[path], _call, self._app, environ)
        finally:
            self._waiting_probes[path] -= 1

    async def _read(self, environ: WSGIEnvironment, body: Body) -> Reading:
        reading = await body.read(UNAUTHENTICATED_BYTES, first_s=FIRST_READ_S)
        if reading in (Reading.WHOLE, Reading.GONE):
            return reading
        slot = await self._slots.acquire()
        limit = await self._in_thread(slot, lambda: self._limit_of(environ))
        if limit > UNAUTHENTICATED_BYTES:
            return await body.read(limit)
        self._unauthenticated[id(body)] = body
        if len(self._unauthenticated) > UNAUTHENTICATED_BODIES:
            self._unauthenticated.popitem(last=False)[1].abort()
        try:
            return await body.read(limit)
        finally:
            self._unauthenticated.pop(id(body), None)

    async def _in_thread(self, slot: Slot, work: Callable[[], T]) -> T:
        def run() -> T:
            with web_request(slot.release_from_thread):
                return work()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        finally:
            slot.release()


def environ_of(scope: RequestScope) -> WSGIEnvironment:
    """Return the WSGI environment of a request before its body is read (PEP 3333)."""
    host, _, port = scope.server.rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode("utf-8", "replace").decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host or "localhost",
        "SERVER_PORT": port if port.isdigit() else "80",
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in scope.headers.items():
        if "_" in name:
            continue  # `x_forwarded_for` must not pass for `x-forwarded-for`
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        before = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}" if key in environ else ""
        environ[key] = before + value
    return environ


def overload_answer() -> _Answer:
    """Return the answer for a request that the app was not called for."""
    problem = {"error": "overloaded", "message": OVERLOADED}
    headers = [
        *common_headers().items(),
        ("Content-Type", "application/json"),
        ("Retry-After", str(RETRY_AFTER_S)),
        ("Connection", "close"),
    ]
    return _Answer(status=503, headers=headers, body=orjson.dumps(problem) + b"\n")


def _call(app: WSGIApplication, environ: WSGIEnvironment) -> _Answer:
    """Call the app and return its complete answer."""
    began: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
        began.update(status=int(status[:3]), headers=headers)
        return _no_write

    pieces = app(environ, start_response)
    try:
        body, rest = _first(iter(pieces))
        file = _keep(body, rest) if rest is not None else None
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
    headers = [(name.lower(), value) for name, value in began["headers"]]
    return _Answer(status=began["status"], headers=headers, body=b"" if file else body, file=file)


def _first(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """Return (the body, None), or (its first WHOLE_BYTES, the remaining pieces)."""
    taken: list[bytes] = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size > WHOLE_BYTES:
            return b"".join(taken), pieces
    return b"".join(taken), None


def _keep(first: bytes, rest: Iterator[bytes]) -> str:
    """Write an answer to a temporary file, and return its path."""
    with tempfile.NamedTemporaryFile(prefix="answer-", delete=False) as file:
        try:
            file.write(first)
            file.writelines(rest)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return file.name


def _no_write(_data: bytes) -> None:
    raise RuntimeError("write() of PEP 3333 is not supported")


def _declared(environ: WSGIEnvironment) -> int | None:
    """Return the bytes of the body by its headers: 0 without a body, None if it is sent in chunks."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return None
    length = environ.get("CONTENT_LENGTH", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _known_path(environ: WSGIEnvironment) -> str:
    """Return the first part of a path for the log: the rest may be a secret of a webhook, or invented by the sender."""
    first = str(environ["PATH_INFO"]).lstrip("/").partition("/")[0]
    return f"/{first}" if re.fullmatch("[A-Za-z-]{0,40}", first) else "other"


def allow_connections() -> None:
    """Raise the limit of open files to the maximum: each connection uses one, and the usual limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
