"""Unit tests reach nothing outside their process: no server, no other process, no host but this process's own sockets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

STARTS = frozenset({"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LISTEN = "0A"
"""State of a listening socket: https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html"""

_is_active = False
_refused: list[str] = []


class OutsideProcessError(AssertionError):
    """A unit test starts a process or opens a connection to another one."""


@pytest.fixture(scope="session")
def servers() -> None:
    """Refuse the fixtures that need PostgreSQL or Valkey: `database`, `system` and those that use them."""
    pytest.fail("a unit test may not use a server: move it to tests/integration")


@pytest.fixture(autouse=True)
def _within_the_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    global _is_active  # noqa: PLW0603 - an audit hook cannot be removed
    monkeypatch.setattr(psycopg2, "connect", _refuse_postgresql)
    _is_active = True
    yield
    _is_active = False
    found, _refused[:] = list(_refused), []
    assert not found, f"outside the process: {found}"


def _refuse_postgresql(*_: object, **__: object) -> None:
    _refuse("PostgreSQL")  # libpq opens its socket itself, unseen by the audit hook


def _refuse(what: str) -> None:
    _refused.append(what)
    raise OutsideProcessError(f"{what} is outside the process: move the test to tests/integration")


def _check(event: str, arguments: tuple[Any, ...]) -> None:
    if not _is_active:
        return
    if event in STARTS:
        _refuse(f"{event} {arguments[0] if arguments else ''}")
    if event == "socket.connect" and _is_foreign(arguments[1]):
        _refuse(f"a connection to {arguments[1]!r}")
    if event == "socket.getaddrinfo" and arguments[0] not in LOOPBACK:
        _refuse(f"the address of {arguments[0]!r}")


def _is_foreign(address: Any) -> bool:
    """Return whether an address is not TCP on this machine, or another process listens there."""
    if not isinstance(address, tuple) or address[0] not in LOOPBACK:
        return True
    own = {_target(descriptor) for descriptor in os.listdir("/proc/self/fd")}
    return not _listeners(address[1]) <= own


def _listeners(port: int) -> set[str]:
    """Return the sockets that listen at a TCP port, as /proc/PID/fd names them."""
    tables = [Path("/proc/net", name) for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port}


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # closed since it was listed
        return ""


sys.addaudithook(_check)
