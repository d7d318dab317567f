"""The wire: timeouts, caps, broken and stale connections, on real sockets of this machine where bytes matter."""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from pipeline.clients.http_transport import MAX_ERROR_BYTES, Exchange, HttpTransport, Request
from pipeline.errors import Rejected, Retryable
from tests.unit.clients.canned import LOST, Answer, CannedApp, json_answer
from tests.wsgi_adapter import session_for

ORIGIN = "https://acme.pipedrive.com"
OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"data":"ok"}'

Connection = Callable[[socket.socket], None]


def wire(*answers: Answer, calls: list[Exchange] | None = None, clock: Any = None) -> HttpTransport:
    on_call = calls.append if calls is not None else None
    session = session_for({ORIGIN: CannedApp(*answers)})
    return HttpTransport(session, on_call=on_call, clock=clock) if clock else HttpTransport(session, on_call=on_call)


def get(path: str = "/api/v2/persons?term=ada@acme.test", **options: Any) -> Request:
    return Request(method="GET", url=ORIGIN + path, headers={"x-api-token": "canary-token"}, **options)


class Scripted:
    """A server that gives each connection to the next function of its script."""

    def __init__(self, *connections: Connection) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api/v2/persons"
        self._thread = threading.Thread(target=self._serve, args=(connections,), daemon=True)
        self._thread.start()

    def _serve(self, connections: tuple[Connection, ...]) -> None:
        for talk in connections:
            peer, _ = self._listener.accept()
            with peer:
                talk(peer)

    def close(self) -> None:
        self._thread.join(5)
        self._listener.close()
        assert not self._thread.is_alive(), "the script was not played to its end"


def read_request(peer: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request and (piece := peer.recv(65536)):
        request += piece
    return request


def answers_with(data: bytes) -> Connection:
    def talk(peer: socket.socket) -> None:
        read_request(peer)
        peer.sendall(data)

    return talk


def closes_connection(peer: socket.socket) -> None:
    """Answer once, then close at the very moment the next request arrives."""
    read_request(peer)
    peer.sendall(OK)
    read_request(peer)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def test_an_answer_comes_back_whole_with_lower_case_headers() -> None:
    calls: list[Exchange] = []

    response = wire(json_answer({"data": 1}, X_RateLimit_Limit="80"), calls=calls).call(get(tokens=10))

    assert (response.status, response.body) == (200, b'{"data": 1}')
    assert response.headers["x-ratelimit-limit"] == "80"
    assert [(call.method, call.path, call.status, call.tokens) for call in calls] == [
        ("GET", "/api/v2/persons", 200, 10)
    ]


def test_a_429_costs_no_tokens() -> None:
    calls: list[Exchange] = []

    wire(json_answer({}, 429), calls=calls).call(get(tokens=10))

    assert calls[0].tokens == 0


def test_a_redirect_is_not_followed() -> None:
    response = wire(Answer(status=302, headers={"Location": "https://169.254.169.254/"})).call(get())

    assert response.status == 302


def test_a_lost_answer_counts_and_shows_no_query() -> None:
    calls: list[Exchange] = []

    with pytest.raises(Retryable) as caught:
        wire(LOST, calls=calls).call(get(tokens=10))

    assert str(caught.value) == "remote_unavailable: GET acme.pipedrive.com/api/v2/persons: ReadTimeout"
    assert [(call.status, call.tokens) for call in calls] == [(0, 10)]
    assert "ada@" not in "".join(traceback.format_exception(caught.value))


def test_a_body_larger_than_its_cap_is_not_read_to_the_end() -> None:
    pieces = iter([b"x" * 600] * 1000)
    calls: list[Exchange] = []

    with pytest.raises(Rejected) as caught:
        wire(Answer(body=pieces), calls=calls).call(get(max_bytes=1000))

    assert caught.value.reason == "body_too_large"
    assert len(list(pieces)) == 998
    assert [call.status for call in calls] == [0]


def test_an_error_is_read_up_to_its_cap_alone() -> None:
    given: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(1_000):
            given.append(number)
            yield b"x" * 10_000

    response = wire(Answer(status=500, body=pieces())).call(get())

    assert len(response.body) == MAX_ERROR_BYTES
    assert len(given) < 10


def test_a_body_that_drips_meets_the_deadline() -> None:
    times = iter(range(0, 1000, 25))
    pieces = iter([b"x"] * 100)

    with pytest.raises(Retryable) as caught:
        wire(Answer(body=pieces), clock=lambda: float(next(times))).call(get(deadline_s=60.0))

    assert caught.value.reason == "remote_unavailable"
    assert "60 s" in caught.value.detail
    assert len(list(pieces)) > 90


def test_nothing_listening_means_nothing_was_sent(session: requests.Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    calls: list[Exchange] = []

    with pytest.raises(Retryable) as caught:
        HttpTransport(session, on_call=calls.append).call(
            Request(method="POST", url=f"http://127.0.0.1:{port}/", headers={}, body=b"{}", tokens=5)
        )

    assert caught.value.reason == "remote_unreachable"
    assert [(call.status, call.tokens) for call in calls] == [(0, 0)]


def test_an_answer_cut_short_is_no_json(session: requests.Session) -> None:
    server = Scripted(answers_with(OK[:-4]))

    with pytest.raises(Retryable) as caught:
        HttpTransport(session).call(Request(method="GET", url=server.url, headers={}))

    assert caught.value.reason == "page_not_json"
    server.close()


def test_chunked_answers_are_joined_and_their_end_is_awaited(session: requests.Session) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = Scripted(answers_with(head + b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"), answers_with(head + b"3\r\n[1,\r\n"))

    whole = HttpTransport(session).call(Request(method="GET", url=server.url, headers={}))
    with pytest.raises(Retryable):
        HttpTransport(session).call(Request(method="GET", url=server.url, headers={}))

    assert whole.body == b"[1,2]"
    server.close()


def test_a_stale_connection_is_replaced_once(session: requests.Session) -> None:
    server = Scripted(closes_connection, answers_with(OK))
    calls: list[Exchange] = []
    request = Request(method="POST", url=server.url, headers={}, body=b"{}", resend_if_stale=True)
    pipe = HttpTransport(session, on_call=calls.append)

    assert pipe.call(request).status == 200
    assert pipe.call(request).status == 200

    assert len(calls) == 2
    server.close()


def test_a_call_that_must_not_happen_twice_is_not_sent_again(session: requests.Session) -> None:
    server = Scripted(closes_connection)
    request = Request(method="POST", url=server.url, headers={}, body=b"{}")
    pipe = HttpTransport(session)
    pipe.call(request)

    with pytest.raises(Retryable) as caught:
        pipe.call(request)

    assert caught.value.reason == "remote_unavailable"
    server.close()


def test_the_environments_netrc_cannot_replace_our_credentials(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine acme.pipedrive.com login mallory password x\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    app = CannedApp(json_answer({}))
    session = session_for({ORIGIN: app})
    session.trust_env = True

    HttpTransport(session).call(Request(method="GET", url=ORIGIN + "/", headers={"Authorization": "Bearer ours"}))

    assert app.asked[0].headers["authorization"] == "Bearer ours"


def test_a_request_shows_neither_query_nor_headers_nor_body() -> None:
    shown = repr(Request(method="POST", url=ORIGIN + "/p?term=ada", headers={"x-api-token": "canary"}, body=b"ada"))

    assert shown == "Request(POST /p)"
