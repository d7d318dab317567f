"""A database that answers but takes no writes, as a primary that was demoted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, event

from db.session import engine


@contextmanager
def demoted_database() -> Iterator[None]:
    """Let every transaction of this process begin read-only: writes are refused with 25006."""

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    event.listen(engine(), "begin", begin)
    try:
        yield
    finally:
        event.remove(engine(), "begin", begin)
