"""One transaction at a time: commit at the end, roll back on error, then do what had to wait for the commit.

The engine is made lazily and once per process, because a connection must never be shared across a fork
(https://docs.sqlalchemy.org/en/20/core/pooling.html#using-connection-pools-with-multiprocessing-or-os-fork).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

AFTER_COMMIT = "after_commit"
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 120_000
LOCK_TIMEOUT_MS = 15_000
IDLE_IN_TRANSACTION_MS = 60_000
RESTED_S = 2.0

Todo = Callable[[Session], None]

_engine: Engine | None = None
_engine_key: tuple[int, str] | None = None
_url: str = ""
_before_commit: list[Todo] = []


def use_database(url: str) -> None:
    """Name the database this process talks to, as `postgresql+psycopg2://…`; connections open when first needed."""
    global _url  # noqa: PLW0603 - one database per process, like one environment
    _url = url


def engine() -> Engine:
    """The engine of this very process; after a fork the child makes its own and leaves its parent's alone."""
    global _engine, _engine_key
    key = (os.getpid(), _url)
    if _engine is None or _engine_key != key:
        if _engine is not None:
            _engine.dispose(close=_engine_key is not None and _engine_key[0] == os.getpid())
        _engine, _engine_key = make_engine(_url), key
    return _engine


def make_engine(url: str) -> Engine:
    """An engine with the limits every session of ours runs under."""
    made = create_engine(
        url,
        pool_size=5,
        max_overflow=5,
        pool_timeout=10,
        hide_parameters=True,
        connect_args={
            "application_name": "pipeline",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c jit=off -c timezone=UTC",
        },
    )

    _watch_idle_connections(made)

    @event.listens_for(made, "connect")
    def _quiet(connection: object, _record: object) -> None:
        connection.set_session(autocommit=False)  # type: ignore[attr-defined]  # psycopg2's own connection

    return made


def _watch_idle_connections(made: Engine) -> None:
    """Ask a connection whether it is alive only when it has rested: at work, a ping before each transaction costs 2 % of a
    worker's time, and a connection that dies between two transactions costs one stage that the sweeper starts again."""

    @event.listens_for(made, "checkin")
    def _rests(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["rests_since"] = time.monotonic()

    @event.listens_for(made, "checkout")
    def _wakes(connection: PoolProxiedConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - record.info.get("rests_since", time.monotonic()) > RESTED_S:
            try:
                made.dialect.do_ping(connection)
            except made.dialect.loaded_dbapi.Error as dead:
                raise DisconnectionError from dead  # the pool tries another one


@contextmanager
def transaction() -> Iterator[Session]:
    """A unit of work. What `after_commit` was told runs once the rows are safely there, and not at all otherwise."""
    with Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
            for each in _before_commit:
                each(session)
        for todo in session.info.pop(AFTER_COMMIT, []):
            todo()


def after_commit(session: Session, todo: Callable[[], None]) -> None:
    """Run `todo` after the commit. It only wakes somebody up: if it is lost, the sweeper finds the row."""
    session.info.setdefault(AFTER_COMMIT, []).append(todo)


def before_commit(todo: Todo) -> None:
    """Let `todo` have the last word in every transaction of this process; rows it locks are held for a commit only."""
    _before_commit.append(todo)
