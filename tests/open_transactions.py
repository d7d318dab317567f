"""No HTTP call starts in a thread with an open transaction: locks and a connection would wait for a remote system."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from sqlalchemy import Connection, Engine, event

ALLOWED_PATHS = ("/oauth/token",)
"""Tokens are renewed under the lock of the tokens: docs/decisions/0012-one-token-renewal-at-a-time.md."""


class _Here(threading.local):
    def __init__(self) -> None:
        self.connections: WeakSet[Connection] = WeakSet()


_here = _Here()
_calls: list[str] = []


@event.listens_for(Engine, "begin")
def _begin(connection: Connection) -> None:
    _here.connections.add(connection)


def note_call(method: str | None, path: str) -> None:
    """Record an HTTP call that starts now, if the thread has an open transaction."""
    is_open = any(not each.closed and not each.invalidated and each.in_transaction() for each in _here.connections)
    if is_open and not path.endswith(ALLOWED_PATHS):
        _calls.append(f"{method} {path}")


@contextmanager
def none_during_http() -> Iterator[None]:
    """Fail if a call was made in this context with an open transaction."""
    _calls.clear()
    yield
    found, _calls[:] = list(_calls), []
    assert not found, f"HTTP calls inside a transaction: {found}"
