"""One clock for the whole system, which stands still until a test moves it.

    with manual_clock(moment) as clock:
        clock.move(30)          this process, PostgreSQL's now() and the callers of `clock` are half a minute later

PostgreSQL finds a `now()` of ours before its own, and the defaults of columns use ours too; what is not looked up by name,
such as CURRENT_TIMESTAMP, keeps the real time. The script of the daily budget gets this time too; the rest of Redis keeps
the real one, and nothing there depends on the time of day.
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
"""A moment far from the ends of an hour, a day, a week and a month."""

SET_UP = """
    CREATE SCHEMA manual;
    CREATE TABLE manual.clock (moment timestamptz NOT NULL);
    CREATE FUNCTION manual.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT moment FROM manual.clock';
    CREATE FUNCTION manual.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT moment FROM manual.clock'"""

COLUMNS = """
    SELECT format('%I.%I', table_schema, table_name) AS place, column_name AS name FROM information_schema.columns
     WHERE table_schema = 'public' AND column_default = :spelling"""


class Clock:
    """Epoch seconds when called."""

    def __init__(self, moment: datetime, frozen: Any) -> None:
        self._moment, self._frozen = moment, frozen
        self._show()

    def __call__(self) -> float:
        return self._moment.timestamp()

    @property
    def now(self) -> datetime:
        return self._moment

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self._moment += timedelta(seconds=seconds)
        self._show()

    def _show(self) -> None:
        self._frozen.move_to(self._moment)
        with engine().begin() as connection:
            connection.execute(
                text("DELETE FROM manual.clock; INSERT INTO manual.clock VALUES (:now)"), {"now": self._moment}
            )


@contextmanager
def manual_clock(moment: datetime) -> Iterator[Clock]:
    """Stop time at a moment, given in UTC; the database of the test must be in force."""
    import_module("pipeline.web.app")  # and all that it needs: C modules do not take a stopped clock for a clock
    with engine().begin() as connection:
        connection.execute(text(SET_UP))
        _point_defaults(connection, "now()", "manual.now()")
    _look_first_in("manual, pg_catalog, public")
    try:
        with (
            freeze_time(moment, real_asyncio=True) as frozen,
            pytest.MonkeyPatch.context() as patch,
        ):
            clock = Clock(moment.astimezone(UTC), frozen)
            patch.setattr(wiring, "TokenBudget", partial(TokenBudget, redis_time=clock))
            yield clock
    finally:
        _look_first_in("DEFAULT")
        with engine().begin() as connection:
            _point_defaults(connection, "manual.now()", "now()")
            connection.execute(text("DROP SCHEMA manual CASCADE"))


def _point_defaults(connection: Any, spelling: str, other: str) -> None:
    for column in connection.execute(text(COLUMNS), {"spelling": spelling}).all():
        connection.execute(text(f"ALTER TABLE {column.place} ALTER COLUMN {column.name} SET DEFAULT {other}"))


def _look_first_in(path: str) -> None:
    """For every connection from now on."""
    with engine().begin() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {name} SET search_path TO {path}"))
    engine().dispose()
