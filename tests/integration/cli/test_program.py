"""A command without a usable database explains what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from db.migrate import newest_revision
from db.session import engine, use_database
from pipeline import settings as settings_room
from tests.command_line import Run


@pytest.fixture
def away(database: str) -> Iterator[None]:
    """Settings with a database that does not answer."""
    here = settings_room.settings()
    settings_room.use(here.replace(database_url="postgresql+psycopg2://nobody@127.0.0.1:1/nowhere"))
    yield
    settings_room.use(here)
    use_database(database)


def test_an_unreachable_database_is_explained(away: None, run: Run) -> None:
    result = run("connectors", "list", "--json")

    assert result.code == 1
    assert json.loads(result.err)["next"] == "check DATABASE_URL, then try again"


@pytest.fixture
def old(database: str) -> Iterator[None]:
    """A database of a version before the first migration."""
    with engine().begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0031'"))
    yield
    with engine().begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": newest_revision()})


def test_a_schema_that_is_too_old_is_explained(old: None, run: Run) -> None:
    result = run("migrate", "--json")

    assert result.code == 1
    assert json.loads(result.err) == {
        "error": "the database is at revision 0031, and this version upgrades from 0041 or later",
        "next": 'create an empty database: see "Upgrade" in docs/operations.md',
    }
