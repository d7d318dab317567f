"""Statements of the hot path: text passed directly to psycopg2, on the session's own connection and in its transaction.

`session.execute(text(…))` needs 140 of the 180 µs of CPU of a small query for its own work,
and a page needs some thirty queries. Rows are plain tuples, in the order of the columns. Errors are SQLAlchemy's, as elsewhere.
"""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg2  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")

Values = dict[str, Any]

READ_ONLY: Final = "25006"
"""PostgreSQL's answer to a write after it was demoted. The connection leads to the wrong server, so it is dropped."""


class Statement:
    """SQL with `:name` for its parameters, as in SQLAlchemy's `text`."""

    def __init__(self, sql: str) -> None:
        self._sql = _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%"))

    def __repr__(self) -> str:
        return f"Statement({self._sql})"

    def rows(self, session: Session, values: Values) -> list[tuple[Any, ...]]:
        """All rows of the answer."""
        return _execute(session, self._sql, values).fetchall()  # type: ignore[no-any-return]

    def row(self, session: Session, values: Values) -> tuple[Any, ...] | None:
        """The first row of the answer, if there is one."""
        return _execute(session, self._sql, values).fetchone()  # type: ignore[no-any-return]

    def run(self, session: Session, values: Values) -> None:
        """Execute a change; the statement's result is not read."""
        _execute(session, self._sql, values)


def _execute(session: Session, sql: str, values: Values) -> Any:
    session.flush()  # what the session's objects hold comes first, as in `session.execute`
    connection = session.connection()
    cursor = driver_connection(connection).cursor()
    try:
        cursor.execute(sql, values)
    except psycopg2.Error as error:
        raise translated(connection, error) from error
    return cursor


def driver_connection(connection: Connection) -> Any:
    """psycopg2's own connection under SQLAlchemy's."""
    return connection.connection.dbapi_connection


def translated(connection: Connection, error: psycopg2.Error) -> DBAPIError:
    """The error as SQLAlchemy would raise it; a connection that is lost goes back to no pool."""
    lost = error.pgcode == READ_ONLY or connection.dialect.is_disconnect(error, driver_connection(connection), None)
    if lost:
        connection.invalidate(error)
    made = DBAPIError.instance(
        None, None, error, psycopg2.Error, hide_parameters=True, connection_invalidated=lost, dialect=connection.dialect
    )
    assert isinstance(made, DBAPIError)  # noqa: S101 - psycopg2's errors are all of the DBAPI
    return made
