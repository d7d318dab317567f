"""One clock for the whole system. It stops until a test moves it.

    with manual_clock(moment) as clock:
        clock.move(30)          moves this process, PostgreSQL's now() and the callers of `clock` by half a minute

The search path finds our `now()` before PostgreSQL's own, and column defaults use ours too. Expressions without a function name,
such as CURRENT_TIMESTAMP, keep the real time. The script of the daily budget gets this time; the rest of Redis keeps the real
time and does not depend on the time of day.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from freezegun import freeze_time
from sqlalchemy import text

from db.session import engine
from pipeline import wiring
from pipeline.clients.limits import TokenBudget

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
"""A moment far from the end of an hour, a day, a week or a month."""

SET_UP = """
    CREATE SCHEMA manual;
    CREATE TABLE manual.clock (moment timestamptz NOT NULL);
    CREATE FUNCTION manual.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT moment FROM manual.clock';
    CREATE FUNCTION manual.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT moment FROM manual.clock'"""

COLUMNS = """
    SELECT format('%I.%I', table_schema, table_name) AS place, column_name AS name FROM information_schema.columns
     WHERE table_schema = 'public' AND column_default = :spelling"""


class Clock:
    """Return epoch seconds when called."""

    def __init__(self, moment: datetime, frozen: Any) -> None:
        self._moment, self._frozen = moment, frozen
        self._set()

    def __call__(self) -> float:
        return self._moment.timestamp()

    @property
    def now(self) -> datetime:
        return self._moment

    def move(self, seconds: float) -> None:
        """Move the clock."""
        self._moment += timedelta(seconds=seconds)
        self._set()

    def _set(self) -> None:
        self._frozen.move_to(self._moment)
        with engine().begin() as connection:
            connection.execute(
                text("DELETE FROM manual.clock; INSERT INTO manual.clock VALUES (:now)"), {"now": self._moment}
            )


@contextmanager
def manual_clock(moment: datetime) -> Iterator[Clock]:
    """Stop time at a moment in UTC. The test's database must be in use."""
    import_module("pipeline.web.app")  # with all it imports: extension modules need the real datetime
    with engine().begin() as connection:
        connection.execute(text(SET_UP))
        _point_defaults(connection, "now()", "manual.now()")
    _set_search_path("manual, pg_catalog, public")
    try:
        with (
            freeze_time(moment, real_asyncio=True) as frozen,
            pytest.MonkeyPatch.context() as patch,
        ):
            clock = Clock(moment.astimezone(UTC), frozen)
            patch.setattr(wiring, "TokenBudget", partial(TokenBudget, redis_time=clock))
            yield clock
    finally:
        _set_search_path("DEFAULT")
        with engine().begin() as connection:
            _point_defaults(connection, "manual.now()", "now()")
            connection.execute(text("DROP SCHEMA manual CASCADE"))


def _point_defaults(connection: Any, spelling: str, other: str) -> None:
    for column in connection.execute(text(COLUMNS), {"spelling": spelling}).all():
        connection.execute(text(f"ALTER TABLE {column.place} ALTER COLUMN {column.name} SET DEFAULT {other}"))


def _set_search_path(path: str) -> None:
    """Set the search path of all later connections."""
    with engine().begin() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {name} SET search_path TO {path}"))
    engine().dispose()
