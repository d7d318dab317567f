"""Fast statements, directly on the psycopg2 connection of a session, in its transaction.

`session.execute(text(…))` uses 140 of the 180 µs of CPU of a small query for its own work, and a page needs about thirty
queries. Rows are tuples in the order of the columns. Errors are SQLAlchemy's, as elsewhere. Many rows are written by binary
COPY, the fastest way. Source of the format: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final

import psycopg2  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")

Values = dict[str, Any]

READ_ONLY: Final = "25006"
"""SQLSTATE of a write to a server that was demoted. The connection leads to the wrong server and is closed."""


class Statement:
    """SQL with parameters as `:name`, as in SQLAlchemy's `text`."""

    def __init__(self, sql: str) -> None:
        self._sql = _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%"))

    def __repr__(self) -> str:
        return f"Statement({self._sql})"

    def rows(self, session: Session, values: Values) -> list[tuple[Any, ...]]:
        """Return all rows of the result."""
        return _execute(session, self._sql, values).fetchall()  # type: ignore[no-any-return]

    def row(self, session: Session, values: Values) -> tuple[Any, ...] | None:
        """Return the first row of the result; None if it has none."""
        return _execute(session, self._sql, values).fetchone()  # type: ignore[no-any-return]

    def run(self, session: Session, values: Values) -> None:
        """Execute a change without reading a result."""
        _execute(session, self._sql, values)


def _execute(session: Session, sql: str, values: Values) -> Any:
    session.flush()  # changes of the session's objects first, as in `session.execute`
    connection = session.connection()
    cursor = driver_connection(connection).cursor()
    try:
        cursor.execute(sql, values)
    except psycopg2.Error as error:
        raise translated(connection, error) from error
    return cursor


def driver_connection(connection: Connection) -> Any:
    """Return the psycopg2 connection of a SQLAlchemy connection."""
    return connection.connection.dbapi_connection


def translated(connection: Connection, error: psycopg2.Error) -> DBAPIError:
    """Return the error that SQLAlchemy would raise. A lost connection does not return to the pool."""
    lost = error.pgcode == READ_ONLY or connection.dialect.is_disconnect(error, driver_connection(connection), None)
    if lost:
        connection.invalidate(error)
    made = DBAPIError.instance(
        None, None, error, psycopg2.Error, hide_parameters=True, connection_invalidated=lost, dialect=connection.dialect
    )
    assert isinstance(made, DBAPIError)  # noqa: S101 - psycopg2's errors are all of the DBAPI
    return made


_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!II", 0, 0)
_TRAILER = struct.pack("!h", -1)
_NULL = struct.pack("!i", -1)
_INTEGER = struct.Struct("!ii")
_BIGINT = struct.Struct("!iq")
_LENGTH = struct.Struct("!i")
_PIECE_BYTES = 1 << 18
"""Bytes that the driver reads in one piece."""


class Integer(int):
    """A number for an `integer` column; other numbers are for `bigint`."""


Cell = int | str | bytes | None
Shared = Mapping[str, Cell]
"""Column → the value of all rows."""


def copy_rows(
    session: Session, table: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], shared: Shared | None = None
) -> None:
    """Append rows to a table with bigint (int), text (str) or bytea (bytes) columns; None is NULL.

    `table` and `columns` are constants, never input; the columns of `shared` come before those of the rows.
    """
    shared = shared or {}
    session.flush()
    connection = session.connection()
    into = f"COPY {table} ({', '.join([*shared, *columns])}) FROM STDIN WITH (FORMAT binary)"
    with driver_connection(connection).cursor() as cursor:
        try:
            cursor.copy_expert(into, encode(len(columns), rows, shared), size=_PIECE_BYTES)
        except psycopg2.Error as error:
            raise translated(connection, error) from error


def encode(width: int, rows: Iterable[Sequence[Cell]], shared: Shared) -> BytesIO:
    """Return rows of `width` cells, after the shared ones, in COPY's binary format. A flat loop, because every delivered record
    passes it.
    """
    parts = [_HEADER]
    start = struct.pack("!h", len(shared) + width) + b"".join([_cell(value) for value in shared.values()])
    integer, length = _BIGINT.pack, _LENGTH.pack
    for row in rows:
        parts.append(start)
        for cell in row:
            if cell.__class__ is bytes:
                parts += (length(len(cell)), cell)
            elif cell.__class__ is int:
                parts.append(integer(8, cell))
            elif cell.__class__ is str:
                data = cell.encode()
                parts += (length(len(data)), data)
            else:
                parts.append(_cell(cell))
    parts.append(_TRAILER)
    return BytesIO(b"".join(parts))


def _cell(cell: Cell) -> bytes:
    if cell is None:
        return _NULL
    if isinstance(cell, int):
        return _INTEGER.pack(4, cell) if isinstance(cell, Integer) else _BIGINT.pack(8, cell)
    data = cell.encode() if isinstance(cell, str) else cell
    return _LENGTH.pack(len(data)) + data


def bigints(values: Iterable[int]) -> str:
    """Return whole numbers as an array literal."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Iterable[str]) -> str:
    """Return texts as an array literal; each is quoted, so that NULL and braces are text too."""
    found = list(values)
    whole = '","'.join(found)
    if found and "\\" not in whole and whole.count('"') == 2 * (len(found) - 1):
        return '{"' + whole + '"}'  # nothing to escape: five times as fast
    return "{" + ",".join(['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in found]) + "}"


def byteas(values: Iterable[bytes]) -> str:
    """Return bytes as an array literal, in hexadecimal: twice as long, without special characters."""
    return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"
