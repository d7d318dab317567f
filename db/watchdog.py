"""Connections that detect a database host that no longer answers, and a watchdog thread that ends their calls.

A blocked call of psycopg2 waits as long as its socket is open. TCP keepalives end it when the host is gone, but not if
something in between still acknowledges packets: a proxy, a NAT gateway, a stopped server process. So a call that
takes longer than QUIET_S is checked from outside: a second connection asks the server about the first one. No answer,
or an answer that the server is not working on it, means that the call will never end; its socket is shut down, and the call
raises OperationalError like any lost connection. A slow but working statement is left to the server's own time-outs.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg2  # type: ignore[import-untyped]  # it has no stubs
import structlog
from psycopg2 import errors, extensions

QUIET_S: Final = 8.0
"""Seconds after which the server is queried about a call."""
PROBE_S: Final = 4.0
"""If a second connection has no answer within this time, the server counts as silent."""
GRACE_S: Final = 2.0
"""If the server reports the statement as done, its answer must arrive within this time."""
LOOK_EVERY_S: Final = 0.5

REPORT_EVERY_S: Final = 60.0

_STATES: Final = "SELECT pid, state FROM pg_stat_activity WHERE pid = ANY(%s)"

_FULL: Final = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",
)
"""The error of a server or a pooler without free connections; before the login it has no code."""

Probe = Callable[[list[int]], Mapping[int, str] | None]
"""Backend process ids → the state of each that is known; None when the server does not answer."""


@dataclass(slots=True, eq=False)
class _Call:
    """One blocking call; `check_at` is the monotonic time of its next check."""

    connection: Any
    check_at: float
    is_final: bool
    is_doubtful: bool = False


_lock = threading.Lock()
_calls: set[_Call] = set()
_watching_pid = 0


class WatchedConnection(extensions.connection):  # type: ignore[misc]  # a class of a library without stubs
    """A connection that watches its blocking calls. `probe` queries its server; without one, each late call is ended."""

    probe: Probe | None = None
    backend_pid = 0

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.cursor_factory = WatchedCursor
        self.backend_pid = self.info.backend_pid
        _watch()

    def commit(self) -> None:
        with watched(self):
            super().commit()

    def rollback(self) -> None:
        with watched(self):
            super().rollback()


class WatchedCursor(extensions.cursor):  # type: ignore[misc]  # a class of a library without stubs
    """A cursor of a watched connection."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's own name
        call = _begin(self.connection, QUIET_S, is_final=False)
        try:
            super().execute(query, vars)
        except errors.ReadOnlySqlTransaction:
            _report_read_only()
            raise
        finally:
            _end(call)

    def executemany(self, query: Any, vars_list: Any) -> None:
        with watched(self.connection):
            super().executemany(query, vars_list)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with watched(self.connection):
            super().copy_expert(sql, file, size)

    def fetchmany(self, size: int | None = None) -> Any:
        with watched(self.connection):
            return super().fetchmany(self.arraysize if size is None else size)


_reported_at = float("-inf")


def _report_read_only() -> None:
    """Log that the server accepts no writes, at most once in REPORT_EVERY_S: each write would log it otherwise."""
    global _reported_at  # noqa: PLW0603 - once a process
    now = time.monotonic()
    if now - _reported_at >= REPORT_EVERY_S:
        _reported_at = now
        structlog.get_logger().error("database.read_only", advice=READ_ONLY_ADVICE)


READ_ONLY_ADVICE: Final = (
    "The database answers but takes no writes: it is a standby or was demoted. Promote it, or point DATABASE_URL at the primary;"
    " work then continues automatically."
)


@contextmanager
def watched(connection: Any, within_s: float | None = None) -> Iterator[None]:
    """Watch one call on a connection.

    within_s  end the call after so many seconds in any case; None: ask the server after QUIET_S
    """
    call = _begin(connection, QUIET_S if within_s is None else within_s, is_final=within_s is not None)
    try:
        yield
    finally:
        _end(call)


def probe_with(connect: Mapping[str, Any]) -> Probe:
    """Return a probe of the server that these psycopg2 parameters lead to."""
    parameters = {name: value for name, value in connect.items() if name != "connection_factory"}

    def probe(pids: list[int]) -> Mapping[int, str] | None:
        answers: list[Mapping[int, str]] = []

        def run() -> None:
            try:
                answers.append(_ask(parameters, pids))
            except (psycopg2.Error, OSError) as error:
                if any(words in str(error) for words in _FULL):
                    answers.append({})  # it answers, and has no connection left for us

        # A separate thread, because looking up the host's name may block as well.
        asking = threading.Thread(target=run, name="database-probe", daemon=True)
        asking.start()
        asking.join(PROBE_S)
        return answers[0] if answers else None

    return probe


def _ask(parameters: Mapping[str, Any], pids: list[int]) -> Mapping[int, str]:
    deadline = time.monotonic() + PROBE_S
    connection = psycopg2.connect(**parameters, async_=True)
    try:
        _complete(connection, deadline)
        cursor = connection.cursor()
        cursor.execute(_STATES, (pids,))
        _complete(connection, deadline)
        return {pid: state or "" for pid, state in cursor.fetchall()}
    finally:
        connection.close()


def _complete(connection: Any, deadline: float) -> None:
    """Wait for an asynchronous connection. Raises: psycopg2.OperationalError at the deadline."""
    while (state := connection.poll()) != extensions.POLL_OK:
        left_s = deadline - time.monotonic()
        readable = [connection] if state == extensions.POLL_READ else []
        writable = [connection] if state == extensions.POLL_WRITE else []
        if left_s <= 0 or not any(select.select(readable, writable, [], left_s)):
            raise psycopg2.OperationalError("the server does not answer")


def _begin(connection: Any, quiet_s: float, *, is_final: bool) -> _Call:
    call = _Call(connection, time.monotonic() + quiet_s, is_final)
    with _lock:
        _calls.add(call)
    return call


def _end(call: _Call) -> None:
    with _lock:
        _calls.discard(call)


def _watch() -> None:
    """Start the watchdog of this process, once; a fork starts without one, and with none of its parent's calls."""
    global _watching_pid  # noqa: PLW0603 - one thread per process
    with _lock:
        if _watching_pid == os.getpid():
            return
        _watching_pid = os.getpid()
    threading.Thread(target=_run, name="database-watchdog", daemon=True).start()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that this process does not have
    _lock = threading.Lock()
    _calls.clear()


os.register_at_fork(after_in_child=_after_fork)


def _run() -> None:
    pause = threading.Event()
    while not pause.wait(LOOK_EVERY_S):
        try:
            look(time.monotonic())
        except Exception as error:  # noqa: BLE001 - without this thread no blocked call ends any more
            structlog.get_logger().error("database.watchdog.error", error=type(error).__name__)


def look(now: float) -> None:
    """Check every call that is late at `now`, and end those that will have no answer."""
    with _lock:
        late = [call for call in _calls if call.check_at <= now]
    for probe in {_probe_of(call) for call in late}:
        _check([call for call in late if _probe_of(call) is probe], probe)


def _probe_of(call: _Call) -> Probe | None:
    return None if call.is_final else getattr(call.connection, "probe", None)


def _check(late: list[_Call], probe: Probe | None) -> None:
    states = probe([call.connection.backend_pid for call in late]) if probe else None
    for call in late:
        state = None if states is None else states.get(call.connection.backend_pid, "unknown")
        if state is None or (call.is_doubtful and state.startswith("idle")):
            _shut(call)
        else:  # a pooler in between has other process ids: unknown says nothing
            call.is_doubtful = state.startswith("idle")
            call.check_at = time.monotonic() + (GRACE_S if call.is_doubtful else QUIET_S)


def _shut(call: _Call) -> None:
    """Shut the socket down, which wakes the blocked thread; only that thread may close the connection."""
    with _lock, suppress(psycopg2.Error, OSError):
        if call in _calls:
            _calls.discard(call)
            with socket.socket(fileno=os.dup(call.connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
