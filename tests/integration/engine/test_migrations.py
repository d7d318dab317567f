"""Migrations create and delete the whole schema, and every day has a partition for its events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any
from uuid import UUID

import pytest
from freezegun import freeze_time
from sqlalchemy import Column, Connection, Engine, MetaData, event, insert, inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

import db
from db.migrate import BASELINE, SchemaTooOld, current_revision, drift, migrate, unmigrate
from db.session import make_engine
from db.sync_event import NewEvent, detach_partition, drop_partition, log_events, make_partitions, old_partitions

for _module in iter_modules(db.__path__):  # while no clock is frozen: SQLAlchemy knows the real `datetime` only
    import_module(f"db.{_module.name}")

PROJECT = Path(__file__).parents[3]
TODAY = date(2026, 3, 4)
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def _today() -> Iterator[None]:
    """Run migrations and tests on one day, so that both create the same partitions."""
    with freeze_time(TODAY, real_asyncio=True):
        yield


@pytest.fixture(scope="module")
def migrated_today(new_database: Callable[..., str]) -> str:
    """The name of a migrated, empty database with the partitions of that day."""
    engine = make_engine(new_database("migrated_today"))
    migrate(engine)
    engine.dispose()
    assert engine.url.database
    return engine.url.database


@pytest.fixture
def empty(new_database: Callable[..., str]) -> Iterator[Engine]:
    """An empty database of this test, without tables."""
    engine = make_engine(new_database("migrations"))
    yield engine
    engine.dispose()


@pytest.fixture
def migrated(new_database: Callable[..., str], migrated_today: str) -> Iterator[Engine]:
    """An empty database of this test, with all tables."""
    engine = make_engine(new_database("migrations", migrated_today))
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def partitions(engine: Engine) -> set[str]:
    return {name for name in tables(engine) if name.startswith("sync_events_2")}


def test_upgrade_downgrade_and_upgrade_restore_the_schema(empty: Engine) -> None:
    migrate(empty)
    first = tables(empty)
    unmigrate(empty)
    bare = tables(empty)
    migrate(empty)

    assert bare <= {"alembic_version"}
    assert tables(empty) == first
    assert current_revision(empty) is not None


def test_the_schema_of_a_later_version_is_left_as_it_is(migrated: Engine) -> None:
    """The previous version can be started again after an upgrade: its `pipeline migrate` runs first."""
    with migrated.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = tables(migrated)

    migrate(migrated)

    assert current_revision(migrated) == "9999"
    assert tables(migrated) == before


def test_the_migrated_schema_equals_the_models(migrated: Engine) -> None:
    assert drift(migrated) == []


def test_a_difference_from_the_models_is_found(migrated: Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(text("ALTER TABLE runs ADD COLUMN surprise text"))

    assert len(drift(migrated)) == 1


def test_migrating_twice_does_nothing(migrated: Engine) -> None:
    before = tables(migrated)

    migrate(migrated)

    assert tables(migrated) == before


def test_several_processes_may_migrate_at_the_same_time(empty: Engine) -> None:
    """All processes of a deployment may start at the same time."""
    url = empty.url.render_as_string(hide_password=False)
    command = [
        sys.executable,
        "-c",
        "import sys; from db import migrate, session; migrate.migrate(session.make_engine(sys.argv[1]))",
    ]
    processes = [subprocess.Popen([*command, url], cwd=PROJECT) for _ in range(3)]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert drift(empty) == []
    assert len(partitions(empty)) == 8


def test_no_extension_is_needed(migrated: Engine) -> None:
    with migrated.connect() as connection:
        extensions = set(connection.scalars(text("SELECT extname FROM pg_extension")))

    assert extensions == {"plpgsql"}


def test_the_next_days_have_partitions(migrated: Engine) -> None:
    assert partitions(migrated) == {f"sync_events_{TODAY + timedelta(days=n):%Y%m%d}" for n in range(8)}


def test_only_missing_partitions_are_created(migrated: Engine) -> None:
    with Session(migrated) as session, session.begin():
        none = make_partitions(session, TODAY)
        one = make_partitions(session, TODAY + timedelta(days=1))

    assert none == []
    assert one == [f"sync_events_{TODAY + timedelta(days=8):%Y%m%d}"]


def log_at(engine: Engine, at: date, pipedrive_id: int) -> None:
    with Session(engine) as session, session.begin():
        log_events(
            session,
            [NewEvent(connector_key=1, event="x", entity="person", cause="test", pipedrive_id=pipedrive_id)],
        )
        session.execute(
            text("UPDATE sync_events SET at = :at WHERE pipedrive_id = :id"), {"at": at, "id": pipedrive_id}
        )


def homes(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT pipedrive_id, tableoid::regclass::text AS home FROM sync_events"))
        return {row.pipedrive_id: row.home for row in rows}


def test_an_event_of_a_day_without_a_partition_is_stored(migrated: Engine) -> None:
    far = TODAY + timedelta(days=30)
    log_at(migrated, TODAY, 1)
    log_at(migrated, far, 2)

    assert homes(migrated) == {1: f"sync_events_{TODAY:%Y%m%d}", 2: "sync_events_other"}


def test_a_missed_day_gets_its_partition_with_its_events(migrated: Engine) -> None:
    """Beat did not run for a week: events are in the default partition, and the partitions of the days can still be created."""
    far = TODAY + timedelta(days=30)
    log_at(migrated, far, 1)
    log_at(migrated, far + timedelta(days=1), 2)
    log_at(migrated, far + timedelta(days=60), 3)

    with Session(migrated) as session, session.begin():
        made = make_partitions(session, far)

    assert len(made) == 8
    assert homes(migrated) == {
        1: f"sync_events_{far:%Y%m%d}",
        2: f"sync_events_{far + timedelta(days=1):%Y%m%d}",
        3: "sync_events_other",
    }


def test_only_partitions_past_their_retention_are_dropped(migrated: Engine) -> None:
    log_at(migrated, TODAY, 1)
    with Session(migrated) as session, session.begin():
        kept = old_partitions(session, TODAY + timedelta(days=90))
        dropped = old_partitions(session, TODAY + timedelta(days=92))
        for name in dropped:
            detach_partition(session, name)
        left = old_partitions(session, TODAY + timedelta(days=92))
        for name in dropped:
            drop_partition(session, name)

    assert kept == {}
    assert left == dict.fromkeys(dropped, False)
    assert list(dropped) == [f"sync_events_{TODAY + timedelta(days=n):%Y%m%d}" for n in range(2)]
    assert homes(migrated) == {}
    assert {"sync_events", "sync_events_other"} <= tables(migrated)


CHANGED_BY_MIGRATIONS: frozenset[str] = frozenset()
"""Tables with rows that a later migration changes or deletes. Such a migration needs a test here."""
OWN_VALUES: dict[str, dict[str, Any]] = {"identifiers": {"role": "holder", "hull_id": None, "wanted_by": None}}
"""Table → values that a constraint requires."""


def test_a_database_with_rows_in_all_tables_survives_the_upgrade(empty: Engine) -> None:
    """From the first migration to the newest one: rows do not change, and the schema equals the models."""
    migrate(empty, BASELINE)
    with empty.begin() as connection:
        _fill(connection)
        before = _rows(connection)
    assert all(before.values()), "every table has rows"

    migrate(empty)

    assert drift(empty) == []
    with empty.connect() as connection:
        after = _rows(connection)
    for table in before.keys() - CHANGED_BY_MIGRATIONS:
        assert len(after[table]) == len(before[table]), table
        for old, new in zip(before[table], after[table], strict=True):
            assert {name: new[name] for name in old.keys() & new.keys()} == {
                name: old[name] for name in old.keys() & new.keys()
            }, table


def _fill(connection: Connection) -> None:
    """Add one row to every table, with a value in every column, by the types of the columns."""
    found = MetaData()
    found.reflect(connection)
    for table in found.sorted_tables:
        if table.name == "alembic_version" or table.name.startswith("sync_events_"):
            continue
        values = {column.name: _value(column) for column in table.columns} | OWN_VALUES.get(table.name, {})
        connection.execute(insert(table).values(values))


def _value(column: Column[Any]) -> Any:
    kind = column.type
    if isinstance(kind, postgresql.JSONB):
        return {"a": [1, None]}
    if isinstance(kind, postgresql.ARRAY):
        return []
    if isinstance(kind, postgresql.UUID):
        return UUID(int=1)
    return {bool: True, int: 1, float: 1.5, str: "x", bytes: b"\x00", date: TODAY, datetime: NOON}[kind.python_type]


def _rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Return table → its rows, in the order of their texts."""
    found = {}
    for name in sorted(inspect(connection).get_table_names()):
        if name != "alembic_version" and not name.startswith("sync_events_"):
            rows = connection.execute(text(f'SELECT * FROM "{name}" t ORDER BY t::text')).mappings()  # noqa: S608
            found[name] = [dict(row) for row in rows]
    return found


def test_a_schema_older_than_the_first_migration_is_refused_and_not_changed(migrated: Engine) -> None:
    with migrated.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0031'"))
    before = tables(migrated)

    with pytest.raises(SchemaTooOld, match="at revision 0031, and this version upgrades from 0041"):
        migrate(migrated)

    assert current_revision(migrated) == "0031"
    assert tables(migrated) == before


def test_a_migration_has_no_time_limit_and_restores_the_limits_of_its_connection(empty: Engine) -> None:
    limits = text(
        "SELECT name, setting FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout') ORDER BY name"
    )
    limited = make_engine(empty.url.render_as_string(hide_password=False))
    during: list[str] = []

    @event.listens_for(limited, "before_cursor_execute")
    def _look(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "CREATE TABLE connectors" in statement:
            with connection.connection.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                during.append(cursor.fetchone()[0])

    migrate(limited)

    with limited.connect() as connection:
        after = [tuple(row) for row in connection.execute(limits)]
    limited.dispose()
    assert set(during) == {"0"}
    assert after == [("lock_timeout", "15000"), ("statement_timeout", "120000")]
