"""Requests that are stuck do not take the last threads of the web process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import Client

from pipeline.web import request_limit
from pipeline.web.request_limit import RequestLimit


class _App:
    """Answers once it is let go."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.let_go = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/work":
            self.inside.release()
            assert self.let_go.wait(10)
        start_response("200 OK", [])
        return [b"done"]


def test_health_is_answered_while_every_other_request_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limit, "STALLED_S", 0.1)
    app = _App()
    limited = RequestLimit(app, at_once=2)

    def get(path: str) -> int:
        return Client(limited).get(path).status_code

    with ThreadPoolExecutor(4) as threads:
        stuck = [threads.submit(get, "/work") for _ in range(2)]
        for _ in stuck:
            assert app.inside.acquire(timeout=10)
        assert get("/healthz") == 200
        started = time.monotonic()
        assert get("/work") == 503
        assert time.monotonic() - started < 5
        app.let_go.set()
        assert [each.result() for each in stuck] == [200, 200]
    assert get("/work") == 200


def test_requests_wait_for_their_turn_while_others_make_progress() -> None:
    app = _App()
    limited = RequestLimit(app, at_once=1)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(lambda: Client(limited).get("/work").status_code) for _ in range(3)]
        assert app.inside.acquire(timeout=10)
        app.let_go.set()
        assert [each.result() for each in waiting] == [200, 200, 200]


def test_a_request_that_fails_gives_its_turn_back() -> None:
    def fail(_environ: object, _start_response: object) -> Iterable[bytes]:
        raise RuntimeError("a defect")

    limited = RequestLimit(fail, at_once=1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            Client(limited).get("/work")
