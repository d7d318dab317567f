"""A database that answers but accepts no writes, like a demoted primary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, event

from db.session import engine


@contextmanager
def demoted_database() -> Iterator[None]:
    """Begin every transaction of this process read-only, so that writes are refused with 25006."""

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    event.listen(engine(), "begin", begin)
    try:
        yield
    finally:
        event.remove(engine(), "begin", begin)
