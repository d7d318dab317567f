"""Clients of the console for each role, over a real PostgreSQL and a small system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from db.operator import Operator
from db.session import transaction
from pipeline.accounts import operators
from pipeline.domain.kinds import Role

PASSWORD = "canary correct horse"
NO_HASH = "matches no password"
"""Argon2 costs a tenth of a second, so only the tests of passwords pay for it."""

_app: list[Flask] = []


@dataclass
class ConsoleClient:
    """A browser that keeps cookies and sends forms like the pages."""

    client: FlaskClient
    token: str = ""

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=headers)

    def post(self, path: str, **form: Any) -> TestResponse:
        """Send a form like the pages do."""
        cookie = self.client.get_cookie("session")
        if self.token and cookie:
            self.token = cookie.value  # renewed with a new password or second factor
        own = {"csrf": operators.csrf_of(self.token)} if self.token else {}
        return self.client.post(path, data=own | form)

    def text(self, path: str) -> str:
        """Return the text of an existing page."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.headers.get("Location"), answer.text[:500])
        return answer.text


@pytest.fixture
def app(database: str) -> Flask:
    """Return one app for all tests of this process; it reads settings and database with each request."""
    assert database
    if not _app:
        from pipeline.web.app import create_app  # noqa: PLC0415 - Celery reads its settings when imported

        _app.append(create_app(wake=lambda: None))
    return _app[0]


@pytest.fixture
def anonymous(app: Flask) -> ConsoleClient:
    """Return a client that is not logged in."""
    return ConsoleClient(app.test_client())


@pytest.fixture
def as_role(app: Flask) -> Callable[[Role], ConsoleClient]:
    """Return a function that logs in a new operator of a role."""

    def log_in(role: Role) -> ConsoleClient:
        with transaction() as session:
            operator = Operator(name=f"{role}@acme.test", password_hash=NO_HASH, role=role)
            session.add(operator)
            session.flush()
            token = operators.open_session(session, operator)
        client = app.test_client()
        client.set_cookie("session", token)
        return ConsoleClient(client, token)

    return log_in


@pytest.fixture
def viewer(as_role: Callable[[Role], ConsoleClient]) -> ConsoleClient:
    return as_role(Role.VIEWER)


@pytest.fixture
def operator(as_role: Callable[[Role], ConsoleClient]) -> ConsoleClient:
    return as_role(Role.OPERATOR)


@pytest.fixture
def admin(as_role: Callable[[Role], ConsoleClient]) -> ConsoleClient:
    return as_role(Role.ADMIN)


Call = Callable[..., tuple[int, Any]]
"""Calls an operation with an API key: (method, path, **body) → (status, JSON)."""


@pytest.fixture
def script(operator: ConsoleClient, anonymous: ConsoleClient) -> Call:
    """Call with an operator's key."""
    return caller(operator, anonymous)


@pytest.fixture
def admin_script(admin: ConsoleClient, anonymous: ConsoleClient) -> Call:
    """Call with an admin's key."""
    return caller(admin, anonymous)


@pytest.fixture
def by_session(admin: ConsoleClient) -> Call:
    """Call with an admin's session, for what a key may not do."""

    def call(method: str, path: str, **body: Any) -> tuple[int, Any]:
        headers = {"X-CSRF-Token": operators.csrf_of(admin.token)}
        answer = admin.client.open(path, method=method, json=body or None, headers=headers)
        return answer.status_code, answer.json

    return call


@pytest.fixture
def viewer_script(viewer: ConsoleClient, anonymous: ConsoleClient) -> Call:
    """Call with a viewer's key."""
    return caller(viewer, anonymous)


def caller(owner: ConsoleClient, browser: ConsoleClient) -> Call:
    present = operators.who_is(owner.token)
    assert present
    headers = {"Authorization": f"Bearer {operators.create_key(present, 'test')}"}

    def call(method: str, path: str, **body: Any) -> tuple[int, Any]:
        answer = browser.client.open(path, method=method, json=body or None, headers=headers)
        return answer.status_code, answer.json

    return call
