"""Transactions: commit at the end, roll back on error, then call what waits for the commit.

The engine is created lazily and once per process, because a connection must never be shared across a fork
(https://docs.sqlalchemy.org/en/20/core/pooling.html#using-connection-pools-with-multiprocessing-or-os-fork).

Values of records must not be in PostgreSQL's log: psycopg2 writes values into the text of a statement, and the server logs the text
of a statement that fails, takes long or waits for a lock, and the DETAIL of a violated constraint. Our sessions switch that off
if the server permits it: for a superuser, and since PostgreSQL 15 for a role with GRANT SET ON PARAMETER. Errors are in our own
log, by class and SQLSTATE. Source: https://www.postgresql.org/docs/18/runtime-config-logging.html
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Dialect, Engine, ExceptionContext, bindparam, create_engine, event, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.types import ARRAY, Text

from db.statement import READ_ONLY
from db.watchdog import Probe, WatchedConnection, probe_with, watched

AFTER_COMMIT = "after_commit"
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 120_000
LOCK_TIMEOUT_MS = 15_000
IDLE_IN_TRANSACTION_MS = 60_000
IDLE_S = 2.0
PING_S = 3.0
"""An idle connection must answer a ping within this time, or is replaced."""
TCP = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 12_000,
}
"""A lost host is detected after 14 s while we wait for an answer, and after 12 s if it does not acknowledge what we sent."""
SERVER_TCP = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3 -c tcp_user_timeout=12000"
"""The same on the server, so that the locks of a lost client are released."""

Todo = Callable[[Session], None]

_engine: Engine | None = None
_engine_key: tuple[int, str] | None = None
_url: str = ""
_before_commit: list[Todo] = []


def use_database(url: str) -> None:
    """Set the database of this process, as `postgresql+psycopg2://…`; connections are opened when they are needed."""
    global _url  # noqa: PLW0603 - one database per process, like one environment
    _url = url


def engine() -> Engine:
    """Return the engine of this process; after a fork, the child creates its own."""
    global _engine, _engine_key
    key = (os.getpid(), _url)
    if _engine is None or _engine_key != key:
        if _engine is not None:
            _engine.dispose(close=_engine_key is not None and _engine_key[0] == os.getpid())
        _engine, _engine_key = make_engine(_url), key
    return _engine


def make_engine(url: str) -> Engine:
    """Create an engine with our time limits."""
    made = create_engine(
        url,
        pool_size=5,
        max_overflow=5,
        pool_timeout=10,
        hide_parameters=True,
        connect_args={
            "application_name": "pipeline",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "connection_factory": WatchedConnection,
            **TCP,
            "options": f"{SERVER_TCP} -c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c jit=off -c timezone=UTC"
            + "".join(f" -c {name}={value}" for name, value in QUIET_FOR_ANYBODY.items()),
        },
    )

    _watch_idle_connections(made)
    _drop_read_only_connections(made)
    opener = _Opener(made.dialect)
    event.listen(made, "do_connect", opener.open)

    @event.listens_for(made, "connect")
    def _quiet(connection: WatchedConnection, _record: object) -> None:
        connection.probe = opener.probe
        connection.set_session(autocommit=True)
        keep_values_out(connection)
        connection.set_session(autocommit=False)

    return made


class _Opener:
    """Opens the connections of one engine. After a failed attempt, one thread tries and the others fail immediately, so that a
    server that does not answer does not block each thread for a connection time-out."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._trying = threading.Lock()
        self._has_failed = False
        self.probe: Probe | None = None

    def open(self, _dialect: Dialect, _record: object, arguments: Any, parameters: Any) -> Any:
        """Open a connection. Raises the driver's OperationalError."""
        if not self._has_failed:
            return self._attempt(arguments, parameters)
        if not self._trying.acquire(blocking=False):
            raise self._dialect.loaded_dbapi.OperationalError("no connection: another thread is trying to open one")
        try:
            return self._attempt(arguments, parameters)
        finally:
            self._trying.release()

    def _attempt(self, arguments: Any, parameters: Any) -> Any:
        self.probe = self.probe or probe_with(parameters)
        try:
            connection = self._dialect.connect(*arguments, **parameters)
        except self._dialect.loaded_dbapi.OperationalError:
            self._has_failed = True
            raise
        self._has_failed = False
        return connection


def _watch_idle_connections(made: Engine) -> None:
    """Ping connections that were idle. A ping before each transaction would cost 2 % of a worker's time; a connection that is lost
    between two transactions costs one stage, which the sweep starts again.
    """

    @event.listens_for(made, "checkin")
    def _note_idle(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(made, "checkout")
    def _ping_idle(connection: PoolProxiedConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - record.info.get("idle_since", time.monotonic()) > IDLE_S:
            try:
                with watched(record.dbapi_connection, within_s=PING_S):
                    made.dialect.do_ping(connection)
            except made.dialect.loaded_dbapi.Error as dead:
                raise InvalidatePoolError from dead  # other idle connections are lost too: the pool opens new ones


def _drop_read_only_connections(made: Engine) -> None:
    """Drop all connections of the pool when a write is answered with 25006: after a failover they all lead to the old primary."""

    @event.listens_for(made, "handle_error")
    def _mark_lost(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "pgcode", None) == READ_ONLY:
            context.is_disconnect = True


@contextmanager
def transaction() -> Iterator[Session]:
    """Open a transaction. Its `after_commit` callbacks run after the commit, not after a rollback."""
    with Session(engine(), expire_on_commit=False) as session:
        with session.begin():
            yield session
            for each in _before_commit:
                each(session)
        for todo in session.info.pop(AFTER_COMMIT, []):
            todo()


def is_read_only(session: Session) -> bool:
    """Return whether the server accepts no writes: it is a standby, or was demoted."""
    return bool(session.scalar(text("SELECT current_setting('transaction_read_only') = 'on'")))


def after_commit(session: Session, todo: Callable[[], None]) -> None:
    """Call `todo` after the commit. It may only send wake-ups: if one is lost, the sweep finds the row."""
    session.info.setdefault(AFTER_COMMIT, []).append(todo)


def before_commit(todo: Todo) -> None:
    """Call `todo` at the end of every transaction of this process: rows that it locks are locked during the commit only."""
    _before_commit.append(todo)


QUIET: Final[Mapping[str, str]] = {
    "log_min_messages": "log",  # above ERROR, with messages such as `invalid input syntax for type integer: "…"`
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "0",
}
"""Setting → value, for settings that only a superuser, or a role with a grant, may change for its session."""
QUIET_FOR_ANYBODY: Final[Mapping[str, str]] = {"log_parameter_max_length_on_error": "0"}
"""Setting → value, for settings that every role may change."""


def keep_values_out(connection: Any) -> None:
    """Change the settings of `QUIET` that this role may change. The connection must be in autocommit."""
    values = {"names": list(QUIET), "values": list(QUIET.values())}
    with connection.cursor() as cursor:
        cursor.execute(_GRANTED if connection.server_version >= 150_000 else _FOR_SUPERUSERS, values)


_GRANTED = """
    SELECT set_config(s.name, s.value, false) FROM unnest(%(names)s, %(values)s) AS s (name, value)
     WHERE has_parameter_privilege(s.name, 'SET')"""
_FOR_SUPERUSERS = """
    SELECT set_config(s.name, s.value, false) FROM unnest(%(names)s, %(values)s) AS s (name, value)
     WHERE current_setting('is_superuser') = 'on'"""


def loud_settings(session: Session) -> list[str]:
    """Return the settings that allow values of records in the server's log."""
    return list(session.scalars(_LOUD, {"names": list(QUIET), "values": list(QUIET.values())}))


_LOUD = text("""
    SELECT s.name FROM unnest(:names, :values) AS s (name, value)
     WHERE current_setting(s.name) <> s.value ORDER BY s.name""").bindparams(
    bindparam("names", type_=ARRAY(Text)), bindparam("values", type_=ARRAY(Text))
)
