"""One HTTP exchange: bytes out, bytes in. All HTTP calls of this process use this module.

    Request → HttpTransport.call → Response, whatever its status; `pipeline.clients.http_answers` interprets the status.

It uses the connection pool that a `requests.Session` keeps for the URL, or, with a proxy or another mounted adapter,
that adapter, and builds the request itself. Other features of requests are unwanted here: redirects are not followed,
no cookies are kept, and no `.netrc` can replace our credentials.

Neither errors nor exchanges contain a query, a header or a body: they are written to logs and to PostgreSQL.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest
from requests.structures import CaseInsensitiveDict
from requests.utils import select_proxy
from urllib3.connectionpool import HTTPConnectionPool

from pipeline.clients.ssrf import GuardedAdapter
from pipeline.errors import PipelineError, Rejected, Retryable
from pipeline.fencing import write_deadline_s
from pipeline.slow_work import REMOTE

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
"""Longest silence between two pieces of an answer."""
DEADLINE_S = 60.0
"""Longest whole exchange: an answer may not drip past it byte by byte."""
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
"""Read limit of an answer that is not 2xx: only its error is needed."""
CHUNK_BYTES = 1024 * 1024

NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
_NEVER_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The request to send.

    remote           the called system, for outages; empty if no work waits for it
    operation        the kind of call, if it costs tokens
    tokens           the cost of the call in tokens of Pipedrive's daily budget
    only_asks        a POST that changes nothing
    resend_if_stale  send once more if a kept connection was closed before any answer; for repeatable calls only
    error_of         the error for an answer that is not 2xx; outages use it too, so that both agree
    decodes          decode the content encoding of the answer; else its bytes are read as sent
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    max_bytes: int = MAX_BODY_BYTES
    deadline_s: float = DEADLINE_S
    operation: str = ""
    tokens: int = 0
    remote: str = ""
    only_asks: bool = False
    resend_if_stale: bool = False
    error_of: Callable[[Response], PipelineError | None] | None = field(default=None, repr=False)
    decodes: bool = True

    @property
    def is_write(self) -> bool:
        return not (self.method == "GET" or self.only_asks)

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    def __repr__(self) -> str:
        return f"Request({self.method} {self.path})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The answer. Header names are lower case; the body is decoded from its transfer and content encodings."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    duration_s: float

    @property
    def is_html(self) -> bool:
        """Whether the body is HTML. Servers also send `ok` or JSON errors as text/html, so the body decides."""
        first = self.body[:64].lstrip()[:1]
        claims_html = self.status >= 400 and "html" in self.headers.get("content-type", "")
        return first == b"<" or (claims_html and first not in {b"{", b"["})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One call for the log line `connector.service_api.call` and the token ledger; `status` is 0 without an answer."""

    method: str
    path: str
    status: int
    duration_ms: float
    tokens: int
    operation: str = ""

    def as_json(self) -> str:
        """Return what is stored about the call."""
        facts = {name: getattr(self, name) for name in ("method", "path", "status", "tokens", "duration_ms")}
        return json.dumps(facts)


OnCall = Callable[[Exchange], None]


class Gate(Protocol):
    """Delays the calls of a connector while a remote system does not answer; see `pipeline.outages`."""

    def enter(self, remote: str) -> bool:
        """Raises: Retryable("remote_outage") or Retryable("slots_taken"). Returns whether an answer is news."""

    def ended(self, remote: str, trouble: Retryable | None, *, is_known: bool) -> None:
        """Store the result of a call: no answer, or an answer of any kind."""

    def limited(self, remote: str) -> None:
        """Note that Pipedrive refused too many calls in a row."""


_OUT = frozenset({"remote_unavailable", "remote_unreachable"})
_WHOLE_SYSTEM = frozenset({"remote_unavailable", "html_answer"})
"""Reasons of an answer after which all calls wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """How an origin is reached through a Session: reading it from the environment takes as long as a small call.

    settings  proxies and certificates, from the Session and the environment
    pool      the connection pool itself, if nothing else of `requests` is needed
    """

    settings: dict[str, Any]
    pool: HTTPConnectionPool | None


_routes: WeakKeyDictionary[requests.Session, dict[str, _Route]] = WeakKeyDictionary()
"""Session → origin → the route."""


class _Answer(NamedTuple):
    """A response with an unread body."""

    status: int
    headers: Mapping[str, str]
    raw: Any


class HttpTransport:
    """Sends requests through one Session; threads may share it."""

    def __init__(
        self,
        session: requests.Session,
        *,
        on_call: OnCall | None = None,
        gate: Gate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._gate = gate
        self._on_call = on_call
        self._clock = clock

    def call(self, request: Request) -> Response:
        """Send a request and read the whole answer. A write ends before its lease does.

        Raises: Retryable("remote_outage") during an outage while another call probes the system,
            LostLease and Retryable("lease_uncertain") before a write that the lease does not cover,
            Retryable("remote_unreachable") if nothing was sent, Retryable("remote_unavailable") if it may have
            been, Retryable("page_not_json") for a truncated answer, Rejected("body_too_large").
            Overloaded in a web request, if too many others wait for remote systems.
        """
        with REMOTE.entered():
            return self._call_in_lane(request)

    def _call_in_lane(self, request: Request) -> Response:
        is_known = self._gate.enter(request.remote) if self._gate is not None and request.remote else False
        if request.is_write:
            request = replace(request, deadline_s=write_deadline_s(request.deadline_s))
        try:
            response = self._call(request)
        except Retryable as failure:
            if failure.reason in _OUT:
                self._note(request, failure, is_known=is_known)
            raise
        if response.status != 429:  # the limiter handles it
            self._note(request, _trouble(request, response), is_known=is_known)
        return response

    def _note(self, request: Request, trouble: Retryable | None, *, is_known: bool) -> None:
        if self._gate is not None and request.remote:
            self._gate.ended(request.remote, trouble, is_known=is_known)

    def _call(self, request: Request) -> Response:
        started = self._clock()
        try:
            response = self._answer(request, started)
        except PipelineError:
            self._log_call(request, 0, started, request.tokens)
            raise
        except NETWORK as error:
            failure = describe(error, request)
        else:
            self._log_call(request, response.status, started, 0 if response.status == 429 else request.tokens)
            return response
        self._log_call(request, 0, started, 0 if failure.reason == "remote_unreachable" else request.tokens)
        raise failure  # outside the except block: the cause's text holds the whole URL

    def _answer(self, request: Request, started: float) -> Response:
        try:
            answer = self._send(request)
        except (requests.ConnectionError, urllib3.exceptions.ProtocolError) as error:
            if not (request.resend_if_stale and _was_stale(error)):
                raise
            answer = self._send(replace(request, deadline_s=max(1.0, request.deadline_s - (self._clock() - started))))
        try:
            is_error = not 200 <= answer.status < 300
            body = (self._read_error if is_error else self._read)(answer.raw, request, started)
        except BaseException:
            answer.raw.close()
            raise
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=headers, body=body, duration_s=self._clock() - started)

    def _send(self, request: Request) -> _Answer:
        origin, path = _split(request.url)
        route = self._route(origin)
        if route.pool is None:
            return self._send_by_adapter(request, route)
        try:
            return _send_by_pool(request, route.pool, path)
        except urllib3.exceptions.ClosedPoolError:  # too many origins since; nothing was sent
            del _routes[self._session][origin]
            return self._send_by_adapter(request, route)

    def _send_by_adapter(self, request: Request, route: _Route) -> _Answer:
        prepared = PreparedRequest()
        prepared.method = request.method
        prepared.url = request.url
        prepared.headers = CaseInsensitiveDict(request.headers)
        prepared.body = request.body
        if request.body is not None:
            prepared.headers["Content-Length"] = str(len(request.body))
        adapter = self._session.get_adapter(request.url)
        answer = adapter.send(prepared, stream=True, timeout=_timeouts(request), **route.settings)
        return _Answer(answer.status_code, answer.headers, answer.raw)

    def _route(self, origin: str) -> _Route:
        known = _routes.setdefault(self._session, {})
        if origin not in known:
            merged = self._session.merge_environment_settings(origin, {}, None, None, None)
            settings = {name: merged[name] for name in ("proxies", "verify", "cert")}
            known[origin] = _Route(settings=settings, pool=_pool(self._session, origin, settings))
        return known[origin]

    def _read(self, raw: Any, request: Request, started: float) -> bytes:
        chunks = list(self._pieces(raw, request, started))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _read_error(self, raw: Any, request: Request, started: float) -> bytes:
        """Return the first MAX_ERROR_BYTES. If more is left unread, the connection is closed."""
        body: bytes
        body, most = b"", min(MAX_ERROR_BYTES, request.max_bytes)
        while chunk := raw.read1(most - len(body) + 1, decode_content=True):
            self._check_deadline(request, started)
            body += chunk
            if len(body) > most:
                raw.close()
                return body[:most]
        return body

    def _pieces(self, raw: Any, request: Request, started: float) -> Iterator[bytes]:
        """Yield the body in pieces, within its limits of size and time."""
        size_bytes = 0
        while chunk := raw.read1(CHUNK_BYTES, decode_content=request.decodes):
            size_bytes += len(chunk)
            if size_bytes > request.max_bytes:
                raise Rejected("body_too_large", f"{request.path} answered more than {request.max_bytes} bytes")
            self._check_deadline(request, started)
            yield chunk

    def _check_deadline(self, request: Request, started: float) -> None:
        if self._clock() - started > request.deadline_s:
            raise Retryable("remote_unavailable", f"{request.path} took longer than {request.deadline_s:g} s")

    def _log_call(self, request: Request, status: int, started: float, tokens: int) -> None:
        if self._on_call is not None:
            duration_ms = round((self._clock() - started) * 1000, 3)
            self._on_call(
                Exchange(
                    method=request.method,
                    path=request.path,
                    status=status,
                    duration_ms=duration_ms,
                    tokens=tokens,
                    operation=request.operation,
                )
            )


def _trouble(request: Request, response: Response) -> Retryable | None:
    """Return what the answer means for the whole system: that it serves no caller now, or not this installation."""
    unavailable = Retryable("remote_unavailable", f"HTTP {response.status}")
    if 200 <= response.status < 300 or request.error_of is None:
        return unavailable if response.status >= 500 or response.is_html else None
    error = request.error_of(response)
    if isinstance(error, Retryable) and error.reason == "app_refused":
        return error
    return unavailable if error is not None and error.reason in _WHOLE_SYSTEM else None


def _send_by_pool(request: Request, pool: HTTPConnectionPool, path: str) -> _Answer:
    connect_s, read_s = _timeouts(request)
    answer = pool.urlopen(
        request.method,
        path,
        body=request.body,
        headers=request.headers,
        retries=False,
        redirect=False,
        assert_same_host=False,
        timeout=urllib3.Timeout(connect=connect_s, read=read_s, total=request.deadline_s),
        preload_content=False,
        decode_content=False,
    )
    return _Answer(answer.status, answer.headers, answer)


def _pool(session: requests.Session, origin: str, settings: Mapping[str, Any]) -> HTTPConnectionPool | None:
    """Return the Session's connection pool for an origin; None behind a proxy or with another adapter."""
    adapter = session.get_adapter(f"{origin}/")
    if not isinstance(adapter, HTTPAdapter) or type(adapter) not in (HTTPAdapter, GuardedAdapter):
        return None
    if select_proxy(origin, settings["proxies"]):
        return None
    prepared = PreparedRequest()
    prepared.url = origin
    pool = adapter.get_connection_with_tls_context(prepared, settings["verify"], cert=settings["cert"])
    return pool if isinstance(pool, HTTPConnectionPool) else None


def _split(url: str) -> tuple[str, str]:
    """Return origin and path: `https://acme.pipedrive.com`, `/api/v2/persons?limit=500`."""
    end = url.find("/", 8)
    return (url, "/") if end < 0 else (url[:end], url[end:])


def _timeouts(request: Request) -> tuple[float, float]:
    return min(CONNECT_TIMEOUT_S, request.deadline_s), min(READ_TIMEOUT_S, request.deadline_s)


def describe(error: BaseException, request: Request) -> Retryable:
    """Return the error for a request without a complete answer, without text of the cause, which may contain secrets."""
    causes = list(_causes(error))
    where = f"{request.method} {urlsplit(request.url).hostname}{request.path}"
    if any(isinstance(cause, _NEVER_SENT) for cause in causes):
        return Retryable("remote_unreachable", f"{where}: no connection")
    if any(isinstance(cause, urllib3.exceptions.IncompleteRead) for cause in causes):
        return Retryable("page_not_json", f"{where}: the answer was cut short")
    return Retryable("remote_unavailable", f"{where}: {type(error).__name__}")


def _was_stale(error: BaseException) -> bool:
    """Return whether the server closed the connection before it answered, as servers do with idle connections."""
    return any(isinstance(cause, (ConnectionResetError, BrokenPipeError)) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all its causes: requests and urllib3 put the real cause into arguments, not into a chain."""
    waiting: list[Any] = [error]
    for cause in waiting:
        if isinstance(cause, BaseException):
            yield cause
            waiting.extend(cause.args)
            waiting.extend([getattr(cause, "reason", None), cause.__cause__, cause.__context__])
            if len(waiting) > 100:
                return
