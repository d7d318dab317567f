"""A requests adapter that calls a WSGI app in this process, with the same bytes and without sockets.

    session = requests.Session(); session.mount("https://acme.pipedrive.com", WSGIAdapter(app))

Headers arrive as sent, repeated response headers stay separate, and the response body streams: the adapter takes a piece from
the app when the caller reads it. Errors of the app reach the caller, so an app can raise a `requests` error to simulate a broken
network.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest, Response
from urllib3 import HTTPHeaderDict, HTTPResponse

from tests.open_transactions import note_call

WSGIApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


def session_for(mounts: dict[str, WSGIApp]) -> requests.Session:
    """Return a Session that reaches only these apps, by their origins."""
    session = requests.Session()
    session.trust_env = False
    session.adapters.clear()
    for origin, app in mounts.items():
        session.mount(origin, WSGIAdapter(app))
    return session


class WSGIAdapter(HTTPAdapter):
    def __init__(self, app: WSGIApp) -> None:
        super().__init__()
        self._app = app

    def send(self, request: PreparedRequest, *_args: Any, **_options: Any) -> Response:
        note_call(request.method, urlsplit(request.url or "").path)
        head: list[Any] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], None]:
            if exc_info and not head:
                raise exc_info[1]
            head[:] = [status, headers]
            return _refuse_write

        body = _Body(self._app(_environ(request), start_response))
        status, headers = head
        fields = HTTPHeaderDict()
        for name, value in headers:
            fields.add(name, value)
        code, _, reason = status.partition(" ")
        raw = HTTPResponse(
            body=body, headers=fields, status=int(code), reason=reason, preload_content=False, decode_content=False
        )
        return self.build_response(request, raw)


def _environ(request: PreparedRequest) -> dict[str, Any]:
    assert request.url is not None
    parts = urlsplit(request.url)
    body = request.body or b""
    payload = body if isinstance(body, bytes) else str(body).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(parts.path or "/").decode("latin-1"),
        "QUERY_STRING": parts.query,
        "SERVER_NAME": parts.hostname,
        "SERVER_PORT": str(parts.port or {"https": 443}.get(parts.scheme, 80)),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": parts.netloc,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": parts.scheme,
        "wsgi.input": io.BytesIO(payload),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if payload:
        environ["CONTENT_LENGTH"] = str(len(payload))
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = text
    return environ


class _Body(io.RawIOBase):
    """The app's iterable as a file. The first piece is read immediately: it makes the app start its response."""

    def __init__(self, answer: Iterable[bytes]) -> None:
        self._answer = answer
        self._pieces: Iterator[bytes] = iter(answer)
        self._left = next(self._pieces, b"")

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        while not self._left:
            try:
                self._left = next(self._pieces)
            except StopIteration:
                return b""
        taken = self._left if size < 0 else self._left[:size]
        self._left = self._left[len(taken) :]
        return taken

    def readinto(self, buffer: Any) -> int:
        piece = self.read1(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed and hasattr(self._answer, "close"):
            self._answer.close()
        super().close()


def _refuse_write(_piece: bytes) -> None:
    raise NotImplementedError("return an iterable instead of calling write()")
