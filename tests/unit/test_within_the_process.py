"""What a unit test may not do, and what it may."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import psycopg2
import pytest

from tests.unit import conftest


@pytest.fixture(autouse=True)
def _forgiven() -> Iterator[None]:
    """Forget what these tests were refused."""
    yield
    conftest._refused.clear()


def connect(address: tuple[str, int] | str) -> None:
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as client:
        client.connect(address)


@pytest.mark.parametrize(
    "act",
    [
        lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda: psycopg2.connect("host=127.0.0.1 port=1"),
        lambda: connect("/run/valkey.sock"),
        lambda: connect(("192.0.2.1", 80)),
        lambda: socket.getaddrinfo("example.test", 80),
    ],
)
def test_what_is_outside_is_refused(act: Callable[[], object]) -> None:
    with pytest.raises(conftest.OutsideProcessError):
        act()


def test_a_listener_of_another_process_is_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect(listener.getsockname())

        monkeypatch.setattr(conftest, "_target", lambda _descriptor: "")
        with pytest.raises(conftest.OutsideProcessError):
            connect(listener.getsockname())


def test_a_port_without_a_listener_may_be_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError):
        connect(address)


@pytest.mark.xfail(strict=True, reason="the fixture fails the test that asks for it")
def test_a_server_is_refused(servers: None) -> None: ...
