"""Connecting by OAuth from the command line: the link, and how a connection is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.authorising import PUBLIC_URL, Person, installed_app
from tests.command_line import Run
from tests.system import CONNECTOR_ID, HULL_SECRET, SyncSystem


@pytest.fixture
def bare(system: SyncSystem, run: Run) -> Iterator[SyncSystem]:
    """The system before anybody has added its connector, in an installation that has an app."""
    assert run("connectors", "remove", "acme", "--yes").code == 0
    with installed_app(system):
        yield system


@pytest.fixture
def added(bare: SyncSystem, run: Run, tmp_path: Path) -> Any:
    """The answer to adding a connector without an API token."""
    (tmp_path / "hull").write_text(HULL_SECRET)
    return run(
        "connectors", "add", "acme", "--hull-organization", "hull.test", "--hull-id", CONNECTOR_ID,
        "--hull-secret-file", str(tmp_path / "hull"), "--json",
    ).json  # fmt: skip


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "The operator of the connector adds it with its Hull credentials: pipeline connectors add acme.",
)
def test_a_connector_is_added_without_a_token_and_waits(added: Any, bare: SyncSystem, run: Run) -> None:
    assert (added["connector"]["state"], added["connector"]["pause_reason"], added["webhooks"]) == (
        "paused",
        "not_connected",
        "not_connected",
    )
    assert bare.pipedrive.ledger.requests.total() == 0
    shown = run("connectors", "show", "acme")
    assert "connected  not yet: pipeline connectors authorize" in shown.out
    assert run("connectors", "show", "acme", "--json").json["connection"] == {
        "how": None, "company_id": None, "user_id": None, "expires_at": None,
    }  # fmt: skip


def test_adding_prints_the_next_step(bare: SyncSystem, run: Run, tmp_path: Path) -> None:
    (tmp_path / "hull").write_text(HULL_SECRET)
    result = run(
        "connectors", "add", "acme", "--hull-organization", "hull.test", "--hull-id", CONNECTOR_ID,
        "--hull-secret-file", str(tmp_path / "hull"),
    )  # fmt: skip

    assert (result.code, "pipeline connectors authorize acme" in result.out) == (0, True)


def test_a_connector_that_is_not_connected_is_not_resumed(added: Any, bare: SyncSystem, run: Run) -> None:
    result = run("connectors", "resume", "acme")

    assert result.code == 1
    assert "pipeline connectors authorize acme" in result.err
    assert [row.state for row in bare.rows("SELECT state FROM connectors")] == ["paused"]


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "A link from pipeline connectors authorize acme starts the same steps; it is valid for ten minutes and in one browser.",
)
def test_the_link_connects_the_connector(added: Any, bare: SyncSystem, run: Run) -> None:
    given = run("connectors", "authorize", "acme", "--json").json
    person = Person(bare)

    page = person.browser.get(person.decide(person.press(given["link"].removeprefix(PUBLIC_URL))))

    assert page.status_code == 200
    assert given["callback_url"] == f"{PUBLIC_URL}/auth/callback"
    assert given["scopes"] == ["base", "contacts:full", "admin"]
    shown = run("connectors", "show", "acme", "--json").json
    assert (shown["state"], shown["connection"]["how"]) == ("active", "oauth")
    assert shown["connection"]["company_id"] == bare.company.id
    assert shown["connection"]["user_id"] == bare.company.users[0].id
    assert shown["connection"]["expires_at"] is not None
    assert f"OAuth, as user {bare.company.users[0].id}" in run("connectors", "show", "acme").out


def test_the_link_is_printed_alone_on_its_line(added: Any, run: Run) -> None:
    lines = run("connectors", "authorize", "acme").out.splitlines()

    assert lines[0].startswith(f"{PUBLIC_URL}/auth/pipedrive?connector={CONNECTOR_ID}&invitation=")
    assert " " not in lines[0]


def test_without_an_app_there_is_no_link(system: SyncSystem, run: Run) -> None:
    result = run("connectors", "authorize", "acme")

    assert result.code == 1
    assert "PIPEDRIVE_CLIENT_ID" in result.err


def test_a_connection_by_api_token_is_shown(system: SyncSystem, run: Run) -> None:
    assert run("connectors", "show", "acme", "--json").json["connection"]["how"] == "api_token"


def test_no_token_is_ever_shown(added: Any, bare: SyncSystem, run: Run) -> None:
    Person(bare).authorise()
    shown = run("connectors", "show", "acme", "--json").out + run("connectors", "list", "--json").out
    held = next(iter(bare.pipedrive.grants._installations.values()))

    assert [token for token in (*held.access_tokens, held.refresh_token) if token in shown] == []
