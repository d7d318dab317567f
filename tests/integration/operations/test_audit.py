"""Every operation that changes something writes its audit entry in its own transaction, on every surface."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import audit
from db.base import Base
from db.operator import Present
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.catalogue import all_operations
from pipeline.operations.registry import Operation
from tests.command_line import Run
from tests.integration.operations.arguments import arguments_of
from tests.integration.operations.conftest import Installation
from tests.integration.operations.examples import EXAMPLES
from tests.system import SyncSystem

CHANGING = [each for each in all_operations() if each.audit_action is not None]
COMMANDS = [each for each in CHANGING if each.command]
REMOTE = [each for each in COMMANDS if each.method]
ENTRIES = {"fetch_changes": 2, "start_first_fetches": 2}
"""Operation → number of its entries, if it has more than one transaction: one for each run."""
APART = {"token_ledger", "token_ledger_sources"}
"""Tables that count calls of Pipedrive, which are made even if the operation fails."""

PROVEN = {"add_operator", "turn_off_second_factor"}
"""Operations that need a recent login with the password: no key may call them."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=CHANGING, ids=lambda each: each.name)
def declared(request: pytest.FixtureRequest) -> Operation[Any, Any]:
    found: Operation[Any, Any] = request.param
    return found


@pytest.fixture
def fields(declared: Operation[Any, Any], system: SyncSystem, stack: ExitStack) -> dict[str, Any]:
    """The example of the operation."""
    example = EXAMPLES[declared.name](system, stack)
    return ({"connector": "acme"} if "connector" in declared.request.model_fields else {}) | example


def entries(action: str | None) -> list[tuple[str, str | None]]:
    """(operator, origin) of the entries of one action."""
    with transaction() as session:
        return [(each.operator, each.origin) for each in audit.latest_entries(session) if each.action == action]


def rows() -> dict[str, str]:
    """Table → a digest of its rows."""
    query = "SELECT coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM \"{}\" t"
    names = [table.name for table in Base.metadata.sorted_tables if table.name not in APART]
    with transaction() as session:
        return {name: session.scalar(text(query.format(name))) or "" for name in names}


def test_every_operation_that_changes_something_has_an_example() -> None:
    assert set(EXAMPLES) == {each.name for each in CHANGING}


def test_a_change_without_its_audit_entry_is_rolled_back(
    declared: Operation[Any, Any], fields: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: Any, **_named: Any) -> None:
        raise RuntimeError("the entry cannot be written")

    before = rows()
    monkeypatch.setattr(audit, "note", refuse)
    call = Call(caller=Present(id=0, name="test", role=Role.ADMIN))

    with pytest.raises(RuntimeError, match="the entry cannot be written"):
        declared(call, declared.request.model_validate(fields))

    assert {name for name, digest in rows().items() if digest != before[name]} == set()


@pytest.mark.parametrize("declared", COMMANDS, ids=lambda each: each.name, indirect=True)
def test_a_command_writes_one_entry(
    declared: Operation[Any, Any], fields: Mapping[str, Any], run: Run, tmp_path: Path
) -> None:
    done = run(*arguments_of(declared, fields, tmp_path), "--json")

    assert done.code == 0, done.err
    assert declared.answer.model_validate(json.loads(done.out))
    found = entries(declared.audit_action)
    assert len(found) == ENTRIES.get(declared.name, 1)
    for operator, origin in found:
        assert operator.endswith("(command line)")
        assert (origin or "").startswith("command line on ")


@pytest.mark.parametrize("declared", REMOTE, ids=lambda each: each.name, indirect=True)
def test_a_command_over_http_writes_one_entry(
    declared: Operation[Any, Any], fields: Mapping[str, Any], run: Run, tmp_path: Path, installation: Installation
) -> None:
    there = ("--url", installation.url, "--key-file", str(installation.key_file))
    done = run(*arguments_of(declared, fields, tmp_path), *there, "--json")

    if declared.name in PROVEN:
        assert (done.code, "An API key cannot change who can log in." in done.err) == (1, True)
        assert entries(declared.audit_action) == []
        return
    assert done.code == 0, done.err
    assert declared.answer.model_validate(json.loads(done.out))
    expected = [("admin@acme.test", "127.0.0.1, key remote")] * ENTRIES.get(declared.name, 1)
    assert entries(declared.audit_action) == expected
