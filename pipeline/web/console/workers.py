"""The workers page, and the proxy of Flower at `/flower/`.

Flower listens on this machine only and has its own login, which this process knows. Logged-in operators see its pages.
Its controls need the role operator, and each use is written to the audit log. Only the requests below are forwarded;
others, such as sending arbitrary tasks to workers, are refused.
docs/decisions/0017-flower-behind-the-console-login.md explains why.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import urllib3
from flask import g, request
from flask import redirect as go_to
from werkzeug.wrappers import Response

from db import audit
from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.operations.cached_answers import Shared
from pipeline.operations.workers import WorkAnswer, show_work, show_work_of
from pipeline.settings import settings
from pipeline.slow_work import REMOTE
from pipeline.web import auth
from pipeline.web.console.layout import connector_path, page
from pipeline.web.console.pages import Pages, perform

PREFIX: Final = "/flower/"
TASK_AT: Final = f"{PREFIX}task/"
"""Flower's page of a Celery task; the id follows."""
NAME: Final = r"(?!\.{1,2}\Z)[^/?#\\%\x00-\x20\x7f]{1,300}"
"""A node, a task's name or id: one part of a path, never `..`."""
READABLE: Final = re.compile(
    rf"(workers|worker/{NAME}|tasks|tasks/datatable|task/{NAME}|broker|"
    rf"api/(workers|tasks|task/types|queues/length|task/info/{NAME})|"
    r"static/(favicon\.ico|(css|js)/[\w.-]{1,100}))?"
)
CONTROLS: Final = re.compile(
    rf"api/(worker/shutdown/{NAME}|worker/pool/(restart|grow|shrink|autoscale)/{NAME}|"
    rf"worker/queue/(add|cancel)-consumer/{NAME}|task/(revoke|timeout|rate-limit)/{NAME})"
)
READ_BY_POST: Final = "tasks/datatable"
REQUEST_HEADERS: Final = ("Accept", "Content-Type", "X-Requested-With", "If-None-Match", "If-Modified-Since")
"""Headers that are forwarded to Flower; our cookie and the referrer are not."""
RESPONSE_HEADERS: Final = ("Content-Type", "ETag", "Last-Modified")
"""Headers that are returned to the browser. Flower's pages need no cookie."""
LONGEST_QUERY: Final = 8_192
STATIC_S: Final = 3_600
INLINE_SCRIPTS: Final = tuple(f"\nvar autorefresh = {switch};\n" for switch in (0, 1))
"""The only inline script in Flower's pages; browsers run no other."""
CONNECT_S: Final = 1.0
DEADLINE_S: Final = 8.0
PAUSE_S: Final = 3.0
"""After a request without an answer, further requests fail immediately for this time."""
MAX_BYTES: Final = 16 * 1024 * 1024
AT_ONCE: Final = 2
WAIT_S: Final = 2.0


def add(pages: Pages) -> None:
    pages.page("/workers", show_all, shows_all=True)
    pages.page("/c/<name>/workers", show)
    pages.page("/flower", open_flower, shows_all=True)
    pages.page("/flower/", show_first_flower, shows_all=True)
    pages.proxy("/flower/<path:wanted>", show_flower, needs_to_post=role_to_post)


def show_all() -> Response:
    return page("workers.html", work=_seen(None), where="/workers")


def show(connector: Connector) -> Response:
    where = connector_path(connector, "workers")
    return page("workers.html", connector=connector, tab="workers", work=_seen(connector.key), where=where)


def _read(connector_key: int | None) -> WorkAnswer:
    return perform(show_work if connector_key is None else show_work_of, wait_for_nodes=False)


_seen = Shared(_read)
"""Key of a connector, or None for all → its work."""


def open_flower() -> Response:
    return go_to(PREFIX, HTTPStatus.SEE_OTHER)


def role_to_post(wanted: str) -> Role:
    """Return the role for a POST. Flower's list of tasks is read by POST."""
    return Role.VIEWER if wanted == READ_BY_POST else Role.OPERATOR


def show_first_flower() -> Response:
    return show_flower("")


def show_flower(wanted: str) -> Response:
    """Return Flower's answer, or a page that explains how to start Flower."""
    is_control = request.method == "POST" and wanted != READ_BY_POST
    if not (CONTROLS if is_control else READABLE).fullmatch(wanted) or len(request.query_string) > LONGEST_QUERY:
        raise auth.missing(
            "This part of Flower is not available here.",
            "Replay tasks from Failures; use Flower's menu for its other pages.",
        )
    if is_control:
        _audit_control(wanted)
    try:
        answer = _flower.send(
            f"{_origin()}{PREFIX}{quote(wanted, safe='/@:+,')}",
            method=request.method,
            query=request.query_string.decode("ascii", "ignore"),
            headers=_headers(),
            body=request.get_data() if request.method == "POST" else None,
        )
    except FlowerUnavailable as error:
        return _explain(str(error))
    return _forward(answer, wanted)


def task_url(task_id: str | None) -> str | None:
    """Return Flower's page of this Celery task."""
    return f"{TASK_AT}{quote(task_id, safe='')}" if task_id else None


def _origin() -> str:
    """Return Flower's origin from the environment; no request can change it."""
    chosen = settings()
    return chosen.flower_url or f"http://127.0.0.1:{chosen.flower_port}"


def _headers() -> dict[str, str]:
    forwarded = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
    login = settings().flower_basic_auth
    if login:
        forwarded["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return forwarded


def _forward(answer: FlowerAnswer, wanted: str) -> Response:
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return _explain("Flower rejects our login: FLOWER_BASIC_AUTH must be the same for both.")
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or 300 <= answer.status < 304:
        return _explain(f"Flower answered with {answer.status}.")
    if answer.status == HTTPStatus.NOT_FOUND and wanted in ("", "workers"):
        return _explain("The address is not a Flower with --url-prefix=flower.")
    response = Response(answer.body, status=answer.status)
    response.headers.remove("Content-Type")
    response.headers.update({name: answer.headers[name] for name in RESPONSE_HEADERS if name in answer.headers})
    g.own_headers = {"Content-Security-Policy": _policy()}
    if wanted.startswith("static/"):
        g.own_headers["Cache-Control"] = f"private, max-age={STATIC_S}"
    return response


def _policy() -> str:
    """Return a content policy under which only Flower's files run, and may call only Flower, not the console."""
    below = " ".join(sorted(f"{host}{PREFIX}" for host in auth.own_hosts()))
    static = " ".join(sorted(f"{host}{PREFIX}static/" for host in auth.own_hosts()))
    known = " ".join(f"'sha256-{_digest(script)}'" for script in INLINE_SCRIPTS)
    return (
        f"default-src 'none'; script-src {static} {known}; style-src {static} 'unsafe-inline'; "
        f"img-src {static} data:; font-src {static}; connect-src {below}; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; object-src 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _audit_control(wanted: str) -> None:
    """Write the audit entry before the control is used, so that it exists even without an answer."""
    with transaction() as session:
        audit.note(session, auth.who().name, "flower.control", wanted)


def _explain(why: str) -> Response:
    return page("flower.html", status=HTTPStatus.BAD_GATEWAY, why=why, where=_origin(), port=settings().flower_port)


class FlowerUnavailable(Exception):
    """Flower gave no usable answer; the text explains why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class FlowerClient:
    """Sends requests to Flower: no redirects, cookies, proxy or retries."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = urllib3.PoolManager(
            num_pools=2, maxsize=AT_ONCE, retries=False, timeout=urllib3.Timeout(connect=CONNECT_S, read=DEADLINE_S)
        )
        self._clock = clock
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._paused_until = 0.0

    def send(
        self, url: str, *, method: str, query: str, headers: Mapping[str, str], body: bytes | None
    ) -> FlowerAnswer:
        """Raises: FlowerUnavailable."""
        with REMOTE.entered():
            return self._send_in_turn(f"{url}?{query}" if query else url, method, headers, body)

    def _send_in_turn(self, url: str, method: str, headers: Mapping[str, str], body: bytes | None) -> FlowerAnswer:
        if self._clock() < self._paused_until or not self._places.acquire(timeout=WAIT_S):
            raise FlowerUnavailable("Flower did not answer a moment ago.")
        try:
            return self._send(url, method, headers, body)
        except urllib3.exceptions.HTTPError as error:
            self._paused_until = self._clock() + PAUSE_S
            raise FlowerUnavailable(f"No answer ({type(error).__name__}).") from None
        finally:
            self._places.release()

    def _send(self, url: str, method: str, headers: Mapping[str, str], body: bytes | None) -> FlowerAnswer:
        begun = self._clock()
        answer = self._pool.request(
            method, url, headers=headers, body=body, redirect=False, preload_content=False, decode_content=False
        )
        try:
            pieces, size = [], 0
            for piece in answer.stream(65_536, decode_content=False):
                size += len(piece)
                if size > MAX_BYTES or self._clock() - begun > DEADLINE_S:
                    raise FlowerUnavailable("Its answer is too long or too slow.")
                pieces.append(piece)
            return FlowerAnswer(status=answer.status, headers=dict(answer.headers), body=b"".join(pieces))
        finally:
            answer.close()


_flower = FlowerClient()
