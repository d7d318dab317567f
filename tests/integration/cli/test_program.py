"""A command that cannot reach its database says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from db.session import use_database
from pipeline import settings as settings_room
from tests.command_line import Run


@pytest.fixture
def away(database: str) -> Iterator[None]:
    """Settings in force that name a database which does not answer."""
    here = settings_room.settings()
    settings_room.use(here.replace(database_url="postgresql+psycopg2://nobody@127.0.0.1:1/nowhere"))
    yield
    settings_room.use(here)
    use_database(database)


def test_a_database_that_is_away_is_explained(away: None, run: Run) -> None:
    said = run("connectors", "list", "--json")

    assert said.code == 1
    assert json.loads(said.err)["next"] == "check DATABASE_URL, then try again"
