"""Every act is in the audit log, with who did it and from where: pages, `/api/v1` and commands."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from flask import Flask

from db import audit
from db.session import transaction
from pipeline.accounts import operators
from pipeline.cli.calling import operator_name
from pipeline.cli.generated import DECLARED
from pipeline.cli.program import program
from pipeline.domain.kinds import Role
from tests import accounts
from tests.integration.console.conftest import Call, ConsoleClient
from tests.system import SyncSystem

READS = {
    *("alerts list", "connectors list", "doctor"),
    *("mappings show", "mappings list"),
}
"""Commands that change nothing."""
BY_OPERATIONS = {"fetch all", "fetch organizations", "fetch persons", "verify"}
"""Commands written by hand that change something by calling operations."""
WITHOUT_A_CONNECTOR = {"demo", "up", "migrate", "sandbox"}
"""Commands that start something on this machine; their users can read the database anyway."""


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from leaves(below, (*path, name))
    else:
        yield " ".join(path), command


def entries() -> list[tuple[str, str, str | None]]:
    with transaction() as session:
        return [(each.action, each.subject, each.origin) for each in audit.latest_entries(session)]


def test_every_command_that_changes_something_is_audited() -> None:
    """Generated commands are not among them: tests/integration/operations runs each."""
    found = {name for name, command in leaves(program) if not hasattr(command.callback, DECLARED)}

    assert found - WITHOUT_A_CONNECTOR - READS - BY_OPERATIONS == set()


def test_a_command_writes_one_entry_of_its_own_or_the_general_one(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert system
    for command in (["connectors", "pause", "acme"], ["connectors", "authorize", "acme"]):
        done = CliRunner().invoke(program, command)
        assert done.exit_code in (0, 1), done.output

    assert [action for action, *_ in entries()].count("connector.pause") == 1
    assert all((origin or "").startswith("command line on ") for *_, origin in entries())


def test_an_account_without_a_name_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the containers: their account has a number only."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)

    assert operator_name() == f"user {os.getuid()} (command line)"


def test_a_fetch_that_began_is_audited_even_if_the_command_fails_after_it(system: SyncSystem) -> None:
    """The second fetch begins with Organizations, and finds that Persons are being fetched."""
    assert system
    codes = [CliRunner().invoke(program, ["fetch", which, "acme"]).exit_code for which in ("persons", "all")]

    assert codes == [0, 1]
    assert [each for each, *_ in entries() if each == "fetch.start"] == ["fetch.start"] * 2


def test_a_page_that_calls_an_operation_leaves_its_entry(app: Flask, system: SyncSystem, admin: ConsoleClient) -> None:
    assert admin.post("/c/acme/settings/read-fields", section="").status_code == 303

    assert entries()[0] == ("fields.read", "acme", "127.0.0.1")


def test_an_act_with_an_entry_of_its_own_gets_no_second(system: SyncSystem, operator: ConsoleClient) -> None:
    before = len(entries())

    assert operator.post("/c/acme/actions/pause", why="").status_code == 303

    assert [action for action, *_ in entries()[: len(entries()) - before]] == ["connector.pause"]


def test_what_was_refused_and_what_only_computes_is_no_act(
    system: SyncSystem, operator: ConsoleClient, admin_script: Call
) -> None:
    before = entries()

    operator.post("/operators", name="eve", password="", role="admin")
    admin_script("POST", "/api/v1/connectors/acme/sends/count", entity="person", ids=["nobody"])

    assert entries() == before


def test_the_entry_of_the_api_names_the_key(system: SyncSystem, admin_script: Call) -> None:
    status, _ = admin_script("POST", "/api/v1/connectors/acme/fields/read")

    assert status == 200
    assert entries()[0] == ("fields.read", "acme", "127.0.0.1, key test")


def test_a_request_that_writes_nothing_leaves_nothing(viewer: ConsoleClient) -> None:
    before = entries()

    viewer.post("/theme", theme="dark", next="/")

    assert entries() == before


def test_a_logout_of_a_session_that_is_over_is_no_act(database: str) -> None:
    assert database
    accounts.add("bo", None, Role.VIEWER)
    before = entries()

    operators.log_out("nobody's token")

    assert entries() == before
