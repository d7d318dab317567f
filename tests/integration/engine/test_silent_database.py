"""A database host that does not answer: calls that wait for it are ended, slow statements are not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import OperationalError

from benchmarks.tcp_proxy import TcpProxy
from db import session, watchdog
from db.session import make_engine

QUIET_S, PROBE_S, GRACE_S, PING_S = 0.2, 0.3, 0.2, 0.3
ENDS_WITHIN_S = 10.0
"""Much longer than the sum of the shortened times, and much shorter than the 120 s limit of a statement."""


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "QUIET_S", QUIET_S)
    monkeypatch.setattr(watchdog, "PROBE_S", PROBE_S)
    monkeypatch.setattr(watchdog, "GRACE_S", GRACE_S)
    monkeypatch.setattr(session, "PING_S", PING_S)
    monkeypatch.setattr(session, "IDLE_S", 0.0)


@pytest.fixture
def proxy(database_url: str) -> Iterator[TcpProxy]:
    url = make_url(database_url)
    folder = url.query.get("host")
    target = f"{folder}/.s.PGSQL.5432" if folder else (url.host or "127.0.0.1", url.port or 5432)
    with TcpProxy(target) as made:
        yield made


@pytest.fixture
def engine(database_url: str, proxy: TcpProxy) -> Iterator[Engine]:
    url = make_url(database_url).set(host="127.0.0.1", port=proxy.port).difference_update_query(["host"])
    made = make_engine(url.render_as_string(hide_password=False))
    yield made
    made.dispose()


def test_a_statement_to_a_silent_server_ends(engine: Engine, proxy: TcpProxy) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        proxy.silence()
        started = time.monotonic()
        with pytest.raises(OperationalError) as ended:
            connection.execute(text("SELECT 2"))
        assert time.monotonic() - started < ENDS_WITHIN_S
        assert ended.value.connection_invalidated


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_end_of_a_transaction_is_watched_too(engine: Engine, proxy: TcpProxy, end: str) -> None:
    raw = engine.raw_connection()
    raw.cursor().execute("SELECT 1")
    proxy.silence()
    with pytest.raises(engine.dialect.loaded_dbapi.Error):
        getattr(raw.dbapi_connection, end)()
    raw.invalidate()


def test_a_slow_statement_of_a_server_that_answers_continues(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 7 FROM pg_sleep(1.5)")) == 7


def test_a_lost_answer_ends_the_call(engine: Engine, proxy: TcpProxy) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        driver = connection.connection.dbapi_connection
        driver.probe = lambda pids: dict.fromkeys(pids, "idle in transaction")  # type: ignore[union-attr]  # ours
        proxy.silence()
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT 2"))


def test_an_idle_connection_is_replaced_after_the_outage(engine: Engine, proxy: TcpProxy) -> None:
    with engine.connect() as connection:
        before = connection.scalar(text("SELECT pg_backend_pid()"))
    proxy.silence()
    with pytest.raises(OperationalError), engine.connect():
        pass
    proxy.restore()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != before


def test_a_server_that_refuses_connections_is_not_silent() -> None:
    """All its connections are in use: a slow statement continues."""
    with _refusing_server(b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0") as port:
        probe = watchdog.probe_with(
            {"host": "127.0.0.1", "port": port, "user": "x", "dbname": "x", "sslmode": "disable"}
        )

        assert probe([17]) == {}


def test_the_watchdog_continues_after_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    def look(now: float) -> None:
        looks.append(now)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(watchdog, "look", look)
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.01)
    threading.Thread(target=watchdog._run, daemon=True).start()
    while len(looks) < 2:
        time.sleep(0.01)


@contextmanager
def _refusing_server(fields: bytes) -> Iterator[int]:
    """A server that answers every connection with one ErrorResponse."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                with caller:
                    caller.recv(1024)
                    caller.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
