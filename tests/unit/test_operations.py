"""All operations: each has a role, documentation, a REST route and a command; the public contract changes only on purpose.

`python -m tests.unit.test_operations` writes docs/openapi.json and the tables of docs/api.md again.
"""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel

import pipeline.operations as package
from pipeline.domain.kinds import Role
from pipeline.operations.call import Call
from pipeline.operations.catalogue import SUBJECTS, all_operations, operations_of
from pipeline.operations.models import ConnectorRequest, Done
from pipeline.operations.registry import CHANGING, DeclarationError, Download, Operation, operation

DOCS = Path(__file__).parents[2] / "docs"
OPENAPI = DOCS / "openapi.json"
TABLES_BEGIN = "## Operations\n"
OPERATIONS = {each.name: each for each in all_operations()}
WITHOUT_ROUTE: Mapping[str, str] = {
    "ensure_webhooks": "it asks Pipedrive while one waits; check_webhooks has a worker do it",
    "first_link": "no one can send a request before the first operator exists",
    "rotate_keys": "the keys are in the environment of this machine",
}
"""Operation → why it has no REST route."""
WITHOUT_COMMAND: Mapping[str, str] = {
    "list_keys": "the command line has no account; `operators keys` lists all",
    "revoke_key": "the command line has no account; `operators revoke-key` revokes any",
    "show_me": "the command line has no account",
}
"""Operation → why it has no command."""
PLACEHOLDERS = {"connector": "NAME", "entity": "ENTITY", "record": "ID", "pipedrive_id": "ID", "id": "ID"}
"""Field of a path → its name in docs/api.md."""


def test_no_two_operations_share_a_name_a_route_or_a_command() -> None:
    declared = all_operations()

    assert len(OPERATIONS) == len(declared) > 5
    for part in (
        [(each.method, each.path) for each in declared if each.method],
        [each.command.partition(" CONNECTOR")[0] for each in declared if each.command],
    ):
        assert len(set(part)) == len(part)


def test_every_module_that_declares_an_operation_is_in_the_catalogue() -> None:
    names = [f"{package.__name__}.{each.name}" for each in pkgutil.iter_modules(package.__path__)]
    declaring = {
        name for name in names if any(_is_declared_in(each, name) for each in vars(import_module(name)).values())
    }

    assert declaring == {module.__name__ for modules in SUBJECTS.values() for module in modules}


def _is_declared_in(value: object, module: str) -> bool:
    return isinstance(value, Operation) and value.run.__module__ == module


@pytest.mark.parametrize("name", OPERATIONS)
def test_is_complete(name: str) -> None:
    declared = OPERATIONS[name]

    assert declared.role in Role
    assert declared.documentation.partition("\n")[0].endswith((".", ";"))
    assert bool(declared.method) != (name in WITHOUT_ROUTE)
    assert bool(declared.command) != (name in WITHOUT_COMMAND)
    assert declared.answer is Download or issubclass(declared.answer, BaseModel)
    if declared.audit_action is not None:
        assert declared.method in {*CHANGING, ""}


@pytest.mark.parametrize(
    "name", [name for name, each in OPERATIONS.items() if "connector" in each.request.model_fields]
)
def test_the_connector_is_the_first_argument(name: str) -> None:
    declared = OPERATIONS[name]
    words = [word for word in declared.command.split() if word.strip("[]").isupper()]

    assert declared.path_fields[:1] == (["connector"] if declared.method else [])
    assert words[:1] == (["CONNECTOR"] if declared.command else [])


def undocumented(call: Call, request: ConnectorRequest) -> Done:
    raise NotImplementedError


def documented(call: Call, request: ConnectorRequest) -> Done:
    """Do something."""
    raise NotImplementedError


@pytest.mark.parametrize(
    ("run", "route", "more", "words"),
    [
        (undocumented, "GET /x", {}, "docstring"),
        (documented, "POST /x", {}, "audit action"),
        (documented, "GET /x", {"audit_action": "x"}, "audit action"),
        (documented, "GET /x/<id>", {}, "id"),
        (documented, "GET /x", {"command": "x NAME"}, "name"),
    ],
)
def test_an_incomplete_declaration_is_refused(run: Any, route: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        operation(route, role=Role.VIEWER, **more)(run)


def described() -> str:
    """The description of `/api/v1` as it is now."""
    from pipeline.web import api  # noqa: PLC0415 - it brings the console along

    app = OpenAPI(__name__, info=Info(title="Hull and Pipedrive", version="1"), doc_ui=False)
    api.add_to(app)
    whole = api.describe(app)
    return json.dumps({part: whole[part] for part in ("paths", "components")}, indent=1, sort_keys=True) + "\n"


def test_the_public_contract_is_the_one_in_the_repository() -> None:
    assert OPENAPI.read_text(encoding="utf-8") == described(), "if the change is meant, write it with: make docs"


def api_document() -> str:
    """docs/api.md with a table of the operations of each subject."""
    lines = [(DOCS / "api.md").read_text(encoding="utf-8").partition(TABLES_BEGIN)[0] + TABLES_BEGIN]
    for heading, modules in SUBJECTS.items():
        lines += [f"### {heading}\n", "| operation | role | what it does |", "|---|---|---|"]
        for each in operations_of(modules):
            if each.method:
                path = re.sub(r"<(\w+)>", lambda field: PLACEHOLDERS[field[1]], each.path)
                summary = each.documentation.partition("\n")[0]
                lines.append(f"| `{each.method} {path}` | {each.role} | {summary} |")
        lines.append("")
    return "\n".join(lines)


def test_the_document_lists_every_operation() -> None:
    assert (DOCS / "api.md").read_text(encoding="utf-8") == api_document(), "write it with: make docs"


if __name__ == "__main__":
    OPENAPI.write_text(described(), encoding="utf-8")
    (DOCS / "api.md").write_text(api_document(), encoding="utf-8")
