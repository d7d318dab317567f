"""Upgrade a database to the newest schema, and downgrade it in tests."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from db.base import Base
from db.sync_event import make_partitions

MIGRATIONS = Path(__file__).parent / "migrations"
BASELINE: Final = "0041"
"""The first migration: it creates all tables. Later ones change them."""


class SchemaTooOld(Exception):
    """The schema is older than the first migration, so no migration leads from it to the newest schema."""

    next_step: Final = 'create an empty database: see "Upgrade" in docs/operations.md'


def migrate(engine: Engine, revision: str = "head") -> None:
    """Upgrade the schema, and create the partitions of the next days. Safe to run concurrently.

    The schema of a later version is not changed: this version works with it, so that an upgrade can be rolled back.
    Raises SchemaTooOld for a schema that is older than the first migration.
    """
    at = current_revision(engine)
    if at is not None and at < BASELINE:
        raise SchemaTooOld(f"the database is at revision {at}, and this version upgrades from {BASELINE} or later")
    if not is_newer(at):
        with engine.connect() as connection:
            command.upgrade(_config(connection), revision)
    with Session(engine) as session, session.begin():
        make_partitions(session, datetime.now(UTC).date())


def unmigrate(engine: Engine, revision: str = "base") -> None:
    """Downgrade; loses data."""
    with engine.connect() as connection:
        command.downgrade(_config(connection), revision)


def current_revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_newer(revision: str | None) -> bool:
    """Return whether a revision is of a later version than this one. Revisions are numbers of four digits."""
    return revision is not None and revision > newest_revision()


def newest_revision() -> str:
    """Return the newest revision."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or BASELINE


def drift(engine: Engine) -> list[object]:
    """Return the differences between the database and the models; empty if the migrations are complete."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_ours})
        return list(compare_metadata(context, Base.metadata))


def is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:
    """Return whether a table is compared with the models: daily partitions and Alembic's own table are not."""
    return not (kind == "table" and name is not None and (name.startswith("sync_events_") or name == "alembic_version"))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config
