"""`/workers` and a connector's Workers: is work being done? And Flower's own pages at `/flower/`, protected by the console's login.

Flower listens to this machine only and has its own login, which this process knows. Logged-in operators see its pages;
its controls need the role operator, and every use of them is written to the audit log. Only the requests listed below
are passed on: others, such as sending arbitrary tasks to workers, are refused.
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
"""Where Flower shows a Celery task, with its id at the end."""
NAME: Final = r"(?!\.{1,2}\Z)[^/?#\\%\x00-\x20\x7f]{1,300}"
"""A node, a task's name or a task's id: one part of a path, never a way up."""
MAY_LOOK: Final = re.compile(
    rf"(workers|worker/{NAME}|tasks|tasks/datatable|task/{NAME}|broker|"
    rf"api/(workers|tasks|task/types|queues/length|task/info/{NAME})|"
    r"static/(favicon\.ico|(css|js)/[\w.-]{1,100}))?"
)
MAY_CONTROL: Final = re.compile(
    rf"api/(worker/shutdown/{NAME}|worker/pool/(restart|grow|shrink|autoscale)/{NAME}|"
    rf"worker/queue/(add|cancel)-consumer/{NAME}|task/(revoke|timeout|rate-limit)/{NAME})"
)
ASKED_BY_POST: Final = "tasks/datatable"
PASSED_ON: Final = ("Accept", "Content-Type", "X-Requested-With", "If-None-Match", "If-Modified-Since")
"""Headers of a request that are passed on. Our cookie and the referrer are not passed on."""
PASSED_BACK: Final = ("Content-Type", "ETag", "Last-Modified")
"""Of an answer. Flower sets no cookie that its pages need."""
LONGEST_QUERY: Final = 8_192
STATIC_S: Final = 3_600
INLINE_SCRIPTS: Final = tuple(f"\nvar autorefresh = {switch};\n" for switch in (0, 1))
"""The one inline script in Flower's pages; a page with another script does not run it."""
CONNECT_S: Final = 1.0
DEADLINE_S: Final = 8.0
REST_S: Final = 3.0
"""After a request without an answer, further requests fail immediately for so long."""
MAX_BYTES: Final = 16 * 1024 * 1024
AT_ONCE: Final = 2
TURN_S: Final = 2.0


def add(pages: Pages) -> None:
    pages.page("/workers", show, shows_all=True)
    pages.page("/c/<name>/workers", show_of)
    pages.page("/flower", open_flower, shows_all=True)
    pages.page("/flower/", show_first_flower, shows_all=True)
    pages.proxy("/flower/<path:wanted>", show_flower, needs_to_post=role_to_post)


def show() -> Response:
    return page("workers.html", work=_seen(None), where="/workers")


def show_of(connector: Connector) -> Response:
    where = connector_path(connector, "workers")
    return page("workers.html", connector=connector, tab="workers", work=_seen(connector.key), where=where)


def _read(connector_key: int | None) -> WorkAnswer:
    return perform(show_work if connector_key is None else show_work_of, wait_for_nodes=False)


_seen = Shared(_read)
"""Of one connector by its key, or of all by None."""


def open_flower() -> Response:
    return go_to(PREFIX, HTTPStatus.SEE_OTHER)


def role_to_post(wanted: str) -> Role:
    """Flower's list of tasks uses POST without changing anything."""
    return Role.VIEWER if wanted == ASKED_BY_POST else Role.OPERATOR


def show_first_flower() -> Response:
    return show_flower("")


def show_flower(wanted: str) -> Response:
    """Return Flower's answer, cleaned, or our page that says how to start Flower."""
    is_control = request.method == "POST" and wanted != ASKED_BY_POST
    if not (MAY_CONTROL if is_control else MAY_LOOK).fullmatch(wanted) or len(request.query_string) > LONGEST_QUERY:
        raise auth.missing(
            "This part of Flower is not passed on.",
            "Tasks are sent and replayed from Failures; everything else is in Flower's menu.",
        )
    if is_control:
        _note_control(wanted)
    try:
        answer = _flower.ask(
            f"{_origin()}{PREFIX}{quote(wanted, safe='/@:+,')}",
            method=request.method,
            query=request.query_string.decode("ascii", "ignore"),
            headers=_headers(),
            body=request.get_data() if request.method == "POST" else None,
        )
    except FlowerUnavailable as away:
        return _explain(str(away))
    return _passed_back(answer, wanted)


def task_url(task_id: str | None) -> str | None:
    """Where Flower shows this Celery task."""
    return f"{TASK_AT}{quote(task_id, safe='')}" if task_id else None


def _origin() -> str:
    """Configured by the operator; no request changes it."""
    chosen = settings()
    return chosen.flower_url or f"http://127.0.0.1:{chosen.flower_port}"


def _headers() -> dict[str, str]:
    passed = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
    login = settings().flower_basic_auth
    if login:
        passed["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return passed


def _passed_back(answer: FlowerAnswer, wanted: str) -> Response:
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return _explain("Flower does not accept our login: FLOWER_BASIC_AUTH must be the same for both.")
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or 300 <= answer.status < 304:
        return _explain(f"Flower answered with {answer.status}.")
    if answer.status == HTTPStatus.NOT_FOUND and wanted in ("", "workers"):
        return _explain("What answers there is not a Flower with --url-prefix=flower.")
    passed = Response(answer.body, status=answer.status)
    passed.headers.remove("Content-Type")
    passed.headers.update({name: answer.headers[name] for name in PASSED_BACK if name in answer.headers})
    g.own_headers = {"Content-Security-Policy": _policy()}
    if wanted.startswith("static/"):
        g.own_headers["Cache-Control"] = f"private, max-age={STATIC_S}"
    return passed


def _policy() -> str:
    """Only Flower's own files run, and they reach Flower alone: not the console, though its address is the same."""
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


def _note_control(wanted: str) -> None:
    """Before it is done: what was meant is known even when no answer comes back."""
    with transaction() as session:
        audit.note(session, auth.who().name, "flower.control", wanted)


def _explain(why: str) -> Response:
    return page("flower.html", status=HTTPStatus.BAD_GATEWAY, why=why, where=_origin(), port=settings().flower_port)


class FlowerUnavailable(Exception):
    """There was no usable answer; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class FlowerClient:
    """Follows no redirects, stores no cookies, uses no proxy, tries once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = urllib3.PoolManager(
            num_pools=2, maxsize=AT_ONCE, retries=False, timeout=urllib3.Timeout(connect=CONNECT_S, read=DEADLINE_S)
        )
        self._clock = clock
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._away_until = 0.0

    def ask(self, url: str, *, method: str, query: str, headers: Mapping[str, str], body: bytes | None) -> FlowerAnswer:
        """Raises: FlowerUnavailable."""
        with REMOTE.entered():
            return self._ask_in_turn(f"{url}?{query}" if query else url, method, headers, body)

    def _ask_in_turn(self, url: str, method: str, headers: Mapping[str, str], body: bytes | None) -> FlowerAnswer:
        if self._clock() < self._away_until or not self._turns.acquire(timeout=TURN_S):
            raise FlowerUnavailable("It did not answer a moment ago.")
        try:
            return self._ask(url, method, headers, body)
        except urllib3.exceptions.HTTPError as error:
            self._away_until = self._clock() + REST_S
            raise FlowerUnavailable(f"Nothing answers there ({type(error).__name__}).") from None
        finally:
            self._turns.release()

    def _ask(self, url: str, method: str, headers: Mapping[str, str], body: bytes | None) -> FlowerAnswer:
        begun = self._clock()
        answer = self._pool.request(
            method, url, headers=headers, body=body, redirect=False, preload_content=False, decode_content=False
        )
        try:
            pieces, size = [], 0
            for piece in answer.stream(65_536, decode_content=False):
                size += len(piece)
                if size > MAX_BYTES or self._clock() - begun > DEADLINE_S:
                    raise FlowerUnavailable("Its answer is too long to be passed on.")
                pieces.append(piece)
            return FlowerAnswer(status=answer.status, headers=dict(answer.headers), body=b"".join(pieces))
        finally:
            answer.close()


_flower = FlowerClient()
