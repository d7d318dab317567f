"""`/api/v1` answers as `/api/openapi.json` describes; schemathesis generates valid and invalid requests."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as effort
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from db.failure_filter import FailureFilter
from db.operator import Operator, Present
from db.session import transaction
from pipeline.accounts import operators
from tests.journeys.hull_messages import fetch_everything
from tests.journeys.planning import planned
from tests.journeys.test_replays import broken
from tests.system import SyncSystem, default_settings

EXAMPLES = 6
"""Requests of each operation, valid and invalid, for an existing connector; half as many for an unknown one."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture
def app(system: SyncSystem) -> Flask:
    """The whole web app over a small system."""
    from pipeline.web.app import create_app  # noqa: PLC0415 - Celery reads its settings when imported

    assert system
    return create_app(wake=lambda: None)


@pytest.fixture
def key(system: SyncSystem) -> str:
    """An admin's: every operation may be tried."""
    assert system
    with transaction() as session:
        operator = Operator(name="fuzz", password_hash="no hash", role="admin")
        session.add(operator)
        session.flush()
        operator_id = operator.id
    me = Present(id=operator_id, name="fuzz", role="admin")
    operators.create_key(me, "one to be revoked")
    return operators.create_key(me, "fuzz")


def operations(app: Flask, key: str) -> Iterator[Any]:
    schema = schemathesis.openapi.from_wsgi("/api/openapi.json", app, headers={"Authorization": f"Bearer {key}"})
    for result in schema.get_all_operations():
        yield result.ok()


@pytest.fixture
def known(system: SyncSystem, key: str) -> dict[str, int]:
    """Something of every kind to be asked about: the part of a path before `{id}` → an id that is there."""
    assert key, "the first of the keys is not this one"
    system.company.create_organization(name="Acme")
    system.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    fetch_everything(system)
    broken(system, 10)
    with transaction() as session:
        chosen = FailureFilter(connector_key=system.connector_key)
        import_module("pipeline.jobs.replays.start").begin(session, chosen, by="test", why="test")
    planned(system, default_settings())
    tables = ("runs", "batches", "sync_events", "failures", "replays", "plans", "deliveries", "api_keys")
    found = {table: system.rows(f"SELECT min(id) AS id FROM {table}")[0].id for table in tables}  # noqa: S608 - named above
    sections = {"sync_events": "events", "api_keys": "keys"}
    return {sections.get(table, table): number for table, number in found.items() if number}


@pytest.mark.slow
def test_every_answer_is_described(app: Flask, key: str, system: SyncSystem, known: dict[str, int]) -> None:
    tried = 0
    for operation in operations(app, key):
        section = operation.path.partition("/{id}")[0].rpartition("/")[2]
        mine: dict[str, Any] = {"connector": "acme", "entity": "person", "record": "1"}
        if section in known:
            mine["id"] = known[section]
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            tried += 1
            _set_right(system, key)
            if "{connector}" in operation.path:
                _try(operation, mode, key, EXAMPLES // 2)
            _try(operation, mode, key, EXAMPLES, **mine)

    assert tried > 120
    assert {"runs", "batches", "events", "failures", "replays", "plans", "keys"} <= known.keys()


def _set_right(system: SyncSystem, key: str) -> None:
    """Undo changes of earlier requests: a renamed or paused connector, a disabled or demoted operator."""
    system.change_rows("UPDATE connectors SET name = 'acme', state = 'active', pause_reason = NULL")
    system.change_rows("UPDATE operators SET role = 'admin', state = 'active' WHERE name = 'fuzz'")
    assert operators.holder_of(key)


def _try(operation: Any, mode: Any, key: str, examples: int, **fixed: Any) -> None:
    """Some requests of one operation; `fixed` are parts of its path that are as they are, if it has them."""
    named = {name: value for name, value in fixed.items() if f"{{{name}}}" in operation.path}

    @seed(1)
    @effort(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=named or None))
    def ask(case: Any) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {key}"})
        case.validate_response(answer, checks=CHECKS)

    ask()
