"""The RSGI application for granian: it reads bodies in the event loop, and calls the Flask app in a thread.

    granian --interface rsgi --factory pipeline.web.app:create_server

A request gets a thread only when it is complete. A body that is longer than ANYBODY_BYTES, or incomplete after FIRST_S,
is read further only as far as its sender may send: `Allowances` knows that from path and headers alone.
The app is called in any case; if the body is incomplete, reading it raises 408 or 413, so a sender without credentials
gets its 401. docs/decisions/0018-read-bodies-before-taking-a-thread.md explains why this is not granian's WSGI.
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
from pipeline.web.request_body import ANYBODY_BYTES, Body, Reading

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

T = TypeVar("T")

FIRST_S: Final = 0.5
STRANGERS: Final = 200
"""Unfinished bodies of senders without credentials: of one more, the oldest is given up."""
WHOLE_BYTES: Final = 1024 * 1024
"""A longer answer goes through a temporary file: granian would keep the whole of it in memory for as long as the client takes."""
FILE_S: Final = 30.0
"""After so long granian has opened the file of an answer, and its name is deleted."""
WATCHED: Final = ("/healthz", "/readyz")
"""Threads of urgent requests: they never wait behind other requests."""
WATCHED_WAITING: Final = 16


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
    """How the body comes and the answer goes."""

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

    allowance  how many bytes the sender of this request may send; called without a body, in a thread
    """

    def __init__(self, app: WSGIApplication, allowance: Callable[[WSGIEnvironment], int]) -> None:
        self._app, self._allowance = app, allowance
        self._slots = RequestSlots()
        self._threads = ThreadPoolExecutor(
            AT_ONCE + sum(lane.places for lane in LANES) + 2, thread_name_prefix="request"
        )
        self._watched = {path: ThreadPoolExecutor(1, thread_name_prefix=path[1:]) for path in WATCHED}
        self._watching = dict.fromkeys(WATCHED, 0)
        self._strangers: OrderedDict[int, Body] = OrderedDict()

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
        if environ["PATH_INFO"] in WATCHED:
            return await self._answer_watched(environ)
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

    async def _answer_watched(self, environ: WSGIEnvironment) -> _Answer:
        path = environ["PATH_INFO"]
        if self._watching[path] >= WATCHED_WAITING:
            raise Overloaded(path)
        self._watching[path] += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._watched[path], _call, self._app, environ)
        finally:
            self._watching[path] -= 1

    async def _read(self, environ: WSGIEnvironment, body: Body) -> Reading:
        reading = await body.read(ANYBODY_BYTES, look_s=FIRST_S)
        if reading in (Reading.WHOLE, Reading.GONE):
            return reading
        slot = await self._slots.acquire()
        allowed = await self._in_thread(slot, lambda: self._allowance(environ))
        if allowed > ANYBODY_BYTES:
            return await body.read(allowed)
        self._strangers[id(body)] = body
        if len(self._strangers) > STRANGERS:
            self._strangers.popitem(last=False)[1].give_up()
        try:
            return await body.read(allowed)
        finally:
            self._strangers.pop(id(body), None)

    async def _in_thread(self, slot: Slot, work: Callable[[], T]) -> T:
        def run() -> T:
            with web_request(slot.release_from_thread):
                return work()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        finally:
            slot.release()


def environ_of(scope: RequestScope) -> WSGIEnvironment:
    """The WSGI environment of a request that has no body yet (PEP 3333)."""
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
    """The answer if the app itself could not be called."""
    problem = {"error": "overloaded", "message": OVERLOADED}
    headers = [
        *common_headers().items(),
        ("Content-Type", "application/json"),
        ("Retry-After", str(RETRY_AFTER_S)),
        ("Connection", "close"),
    ]
    return _Answer(status=503, headers=headers, body=orjson.dumps(problem) + b"\n")


def _call(app: WSGIApplication, environ: WSGIEnvironment) -> _Answer:
    """Have the app answer, and take the whole of it."""
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
    """(the body, None), or (the first WHOLE_BYTES of it, what follows)."""
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
    """The first part of the path, if it can be one of ours: paths hold secrets of webhooks, and what senders make up."""
    first = str(environ["PATH_INFO"]).lstrip("/").partition("/")[0]
    return f"/{first}" if re.fullmatch("[A-Za-z-]{0,40}", first) else "other"


def allow_connections() -> None:
    """Raise the process's limit of open files to the maximum: each connection is one, and the usual limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
