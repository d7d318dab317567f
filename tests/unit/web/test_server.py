"""A body that does not come takes no thread, and its sender may send as much as path and headers allow."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request

from pipeline.slow_work import SlowLane
from pipeline.web import answers, server
from pipeline.web.request_body import UNAUTHENTICATED_BYTES, Body, Reading
from pipeline.web.server import Server, environ_of


class _Headers:
    def __init__(self, given: list[tuple[str, str]]) -> None:
        self._given = given

    def items(self) -> list[tuple[str, str]]:
        return self._given


class _Scope:
    proto, http_version, server, client, scheme = "http", "1.1", "127.0.0.1:8080", "192.0.2.7:4000", "http"

    def __init__(self, method: str, path: str, *headers: tuple[str, str], query: str = "") -> None:
        self.method, self.path, self.query_string = method, path, query
        self.headers = _Headers(list(headers))


class _Exchange:
    """One request as granian hands it over. `pieces` of None never come."""

    def __init__(self, *pieces: bytes | None) -> None:
        self._pieces = pieces
        self.taken = 0
        self.is_stuck = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if piece is None:
                self.is_stuck = True
                await asyncio.Event().wait()
            else:
                self.taken += len(piece)
                yield piece

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = status, {name.lower(): value for name, value in headers}, body

    def response_file(self, status: int, headers: list[tuple[str, str]], file: str) -> None:
        self.response_bytes(status, headers, Path(file).read_bytes())
        Path(file).unlink()


def _app() -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024
    answers.register_answers(app)
    app.add_url_rule("/echo", "echo", lambda: Response(request.get_data()), methods=["GET", "POST"])
    app.add_url_rule("/form", "form", lambda: dict(request.form), methods=["POST"])
    app.add_url_rule("/refuse", "refuse", lambda: ("who are you?", 401), methods=["POST"])
    app.add_url_rule("/healthz", "healthz", lambda: "ok")
    app.add_url_rule("/large", "large", lambda: Response(iter([b"x" * 700_000] * 3)))
    return app


def _send(
    scope: _Scope, exchange: _Exchange, *, allowed: int = UNAUTHENTICATED_BYTES, app: Flask | None = None
) -> _Exchange:
    asyncio.run(Server((app or _app()).wsgi_app, lambda _environ: allowed).__rsgi__(scope, exchange))
    return exchange


def _length(size: int) -> tuple[str, str]:
    return ("content-length", str(size))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.web.server.FIRST_READ_S", 0.02)
    monkeypatch.setattr("pipeline.web.request_body.GRACE_S", 0.05)


def test_a_body_is_handed_over_whole() -> None:
    sent = _send(_Scope("POST", "/echo", _length(10)), _Exchange(b"hello", b"world"))

    assert (sent.status, sent.body) == (200, b"helloworld")


def test_a_body_may_come_in_chunks() -> None:
    sent = _send(_Scope("POST", "/echo", ("transfer-encoding", "chunked")), _Exchange(b"hello", b"world"))

    assert (sent.status, sent.body) == (200, b"helloworld")


def test_a_form_is_read_as_ever() -> None:
    form = ("content-type", "application/x-www-form-urlencoded")
    sent = _send(_Scope("POST", "/form", _length(13), form), _Exchange(b"name=a&what=b"))

    assert json.loads(sent.body) == {"name": "a", "what": "b"}


@pytest.mark.parametrize("path", ["/echo", "/form"])
def test_a_body_that_does_not_come_is_answered_408(path: str) -> None:
    form = ("content-type", "application/x-www-form-urlencoded")
    sent = _send(_Scope("POST", path, _length(100), form), _Exchange(b"name=", None))

    assert (sent.status, json.loads(sent.body)["error"]) == (408, "request_timeout")
    assert sent.headers["connection"] == "close"


def test_a_sender_rejected_by_path_and_headers_is_not_waited_for() -> None:
    sent = _send(_Scope("POST", "/refuse", _length(100)), _Exchange(b"name=", None), allowed=0)

    assert (sent.status, sent.body) == (401, b"who are you?")


def test_of_a_large_body_no_more_is_read_than_its_sender_may_send() -> None:
    pieces = [b"x" * 16_384] * 200
    stranger = _send(_Scope("POST", "/echo", _length(16_384 * 200)), _Exchange(*pieces))
    known = _send(_Scope("POST", "/echo", _length(16_384 * 20)), _Exchange(*pieces[:20]), allowed=1024 * 1024)

    assert (stranger.status, known.status, len(known.body)) == (413, 200, 16_384 * 20)
    assert stranger.taken <= UNAUTHENTICATED_BYTES + 16_384


def test_chunks_without_an_end_are_cut_as_well() -> None:
    sent = _send(_Scope("POST", "/echo", ("transfer-encoding", "chunked")), _Exchange(*[b"x" * 16_384] * 200))

    assert (sent.status, sent.taken <= UNAUTHENTICATED_BYTES + 16_384) == (413, True)


def test_a_body_that_ends_too_soon_reaches_no_view() -> None:
    sent = _send(_Scope("POST", "/echo", _length(100)), _Exchange(b"half"))

    assert sent.status == 0


def test_a_body_that_comes_slowly_but_steadily_is_read() -> None:
    class Slow(_Exchange):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(5):
                await asyncio.sleep(0.01)
                yield b"x" * 20_000

    sent = _send(_Scope("POST", "/echo", _length(100_000)), Slow(), allowed=1024 * 1024)

    assert (sent.status, len(sent.body)) == (200, 100_000)


def test_a_hundred_unfinished_bodies_take_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.web.request_body.GRACE_S", 10.0)

    async def run() -> tuple[int, bytes]:
        serving = Server(_app().wsgi_app, lambda _environ: UNAUTHENTICATED_BYTES)
        exchanges = [_Exchange(b"half", None) for _ in range(100)]
        unfinished = [
            asyncio.create_task(serving.__rsgi__(_Scope("POST", "/echo", _length(100)), each)) for each in exchanges
        ]
        while not all(each.is_stuck for each in exchanges):
            await asyncio.sleep(0)
        whole = _Exchange(b"whole")
        async with asyncio.timeout(2):
            await serving.__rsgi__(_Scope("POST", "/echo", _length(5)), whole)
        for each in unfinished:
            each.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        return whole.status, whole.body

    assert asyncio.run(run()) == (200, b"whole")


def test_too_many_unfinished_bodies_end_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.web.request_body.GRACE_S", 10.0)
    monkeypatch.setattr(server, "UNAUTHENTICATED_BODIES", 3)

    async def run() -> list[int]:
        serving = Server(_app().wsgi_app, lambda _environ: UNAUTHENTICATED_BYTES)
        exchanges = [_Exchange(b"half", None) for _ in range(4)]
        tasks = []
        for each in exchanges:
            tasks.append(asyncio.create_task(serving.__rsgi__(_Scope("POST", "/echo", _length(100)), each)))
            while not each.is_stuck:
                await asyncio.sleep(0)
        await asyncio.wait_for(tasks[0], 5)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [each.status for each in exchanges]

    assert asyncio.run(run()) == [408, 0, 0, 0]


@pytest.mark.parametrize("is_slow_work", [True, False])
def test_health_never_waits(is_slow_work: bool) -> None:
    """Neither behind requests that are stuck, nor behind the slow work of others."""
    app, end, inside = _app(), threading.Event(), threading.Semaphore(0)
    lane = SlowLane("test", at_once=1, waiting=40, patience_s=10)

    def stick() -> str:
        inside.release()
        if is_slow_work:
            with lane.entered():
                assert end.wait(10)
        else:
            assert end.wait(10)
        return "done"

    app.add_url_rule("/stick", "stick", stick)

    async def run() -> int:
        serving = Server(app.wsgi_app, lambda _environ: UNAUTHENTICATED_BYTES)
        stuck = [asyncio.create_task(serving.__rsgi__(_Scope("GET", "/stick"), _Exchange())) for _ in range(20)]
        while not inside.acquire(blocking=False):
            await asyncio.sleep(0.001)
        health = _Exchange()
        async with asyncio.timeout(2):
            await serving.__rsgi__(_Scope("GET", "/healthz"), health)
        end.set()
        await asyncio.gather(*stuck)
        return health.status

    assert asyncio.run(run()) == 200


def test_too_many_that_wait_for_slow_work_are_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    app, end = _app(), threading.Event()
    lane = SlowLane("test", at_once=1, waiting=1, patience_s=10)

    def stick() -> str:
        with lane.entered():
            assert end.wait(10)
        return "done"

    app.add_url_rule("/stick", "stick", stick)

    async def run() -> list[_Exchange]:
        serving = Server(app.wsgi_app, lambda _environ: UNAUTHENTICATED_BYTES)
        exchanges = [_Exchange() for _ in range(10)]
        tasks = [asyncio.create_task(serving.__rsgi__(_Scope("GET", "/stick"), each)) for each in exchanges]
        await asyncio.wait(tasks[2:], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        while sum(task.done() for task in tasks) < 8:
            await asyncio.sleep(0.01)
        end.set()
        await asyncio.gather(*tasks)
        return exchanges

    found = asyncio.run(run())
    assert sorted(each.status for each in found) == [200] * 2 + [503] * 8
    refused = [each.headers for each in found if each.status == 503]
    assert all(headers["retry-after"] == "5" for headers in refused)
    assert all(headers["x-content-type-options"] == "nosniff" for headers in refused)
    assert all("frame-ancestors 'none'" in headers["content-security-policy"] for headers in refused)


def test_a_long_answer_is_sent_from_a_file() -> None:
    sent = _send(_Scope("GET", "/large"), _Exchange())

    assert (sent.status, len(sent.body)) == (200, 2_100_000)


def test_the_environment_is_that_of_a_gateway() -> None:
    environ = environ_of(
        _Scope(
            "POST",
            "/a b/é",
            ("host", "here.test"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-forwarded-for", "1"),
            ("x-forwarded-for", "2"),
            ("x_forwarded_for", "forged"),
            ("content-type", "text/plain"),
            query="q=%C3%A9",
        )
    )

    assert environ["PATH_INFO"].encode("latin-1").decode() == "/a b/é"
    assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"], environ["SERVER_PORT"]) == (
        "192.0.2.7",
        "127.0.0.1",
        "8080",
    )
    assert (environ["HTTP_COOKIE"], environ["HTTP_X_FORWARDED_FOR"]) == ("a=1; b=2", "1,2")
    assert (environ["CONTENT_TYPE"], environ["QUERY_STRING"]) == ("text/plain", "q=%C3%A9")


def test_a_piece_after_the_first_read_is_not_lost() -> None:
    async def run() -> tuple[Reading, Reading, bytes]:
        may_come = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield b"first "
            await may_come.wait()
            yield b"second"

        body = Body(pieces(), 12, clock=_clock())
        looked = await body.read(100, first_s=0.01)
        may_come.set()
        ended = await body.read(100)
        whole = body.stream().read()
        await body.close()
        return looked, ended, whole

    assert asyncio.run(run()) == (Reading.OPEN, Reading.WHOLE, b"first second")


def _clock() -> Callable[[], Any]:
    import time  # noqa: PLC0415 - the real one, of the process

    return time.monotonic
