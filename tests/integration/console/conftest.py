"""A visitor of the console, over a real PostgreSQL and a small system to look at."""

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
NO_HASH = "nobody logs in by this"
"""Argon2 costs a tenth of a second, so only the tests of passwords pay for it."""

_app: list[Flask] = []


@dataclass
class Visitor:
    """Somebody's browser: keeps cookies, and sends forms as the pages have them."""

    client: FlaskClient
    token: str = ""

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=headers)

    def post(self, path: str, **form: Any) -> TestResponse:
        """A form of the console, as its pages send it."""
        cookie = self.client.get_cookie("session")
        if self.token and cookie:
            self.token = cookie.value  # renewed with a new password or second factor
        own = {"csrf": operators.csrf_of(self.token)} if self.token else {}
        return self.client.post(path, data=own | form)

    def text(self, path: str) -> str:
        """A page that is there."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.headers.get("Location"), answer.text[:500])
        return answer.text


@pytest.fixture
def app(database: str) -> Flask:
    """One app for all tests of this process: it reads settings and database when it is asked."""
    assert database
    if not _app:
        from pipeline.web.app import create_app  # noqa: PLC0415 - Celery reads its settings when imported

        _app.append(create_app(wake=lambda: None))
    return _app[0]


@pytest.fixture
def anybody(app: Flask) -> Visitor:
    """Somebody who has not logged in."""
    return Visitor(app.test_client())


@pytest.fixture
def as_role(app: Flask) -> Callable[[Role], Visitor]:
    """Somebody of a role, logged in."""

    def enter(role: Role) -> Visitor:
        with transaction() as session:
            operator = Operator(name=f"{role}@acme.test", password_hash=NO_HASH, role=role)
            session.add(operator)
            session.flush()
            token = operators.open_session(session, operator)
        client = app.test_client()
        client.set_cookie("session", token)
        return Visitor(client, token)

    return enter


@pytest.fixture
def viewer(as_role: Callable[[Role], Visitor]) -> Visitor:
    return as_role(Role.VIEWER)


@pytest.fixture
def operator(as_role: Callable[[Role], Visitor]) -> Visitor:
    return as_role(Role.OPERATOR)


@pytest.fixture
def admin(as_role: Callable[[Role], Visitor]) -> Visitor:
    return as_role(Role.ADMIN)


Call = Callable[..., tuple[int, Any]]
"""Calls an operation with somebody's key: method and path in, the body by its names, status and JSON out."""


@pytest.fixture
def script(operator: Visitor, anybody: Visitor) -> Call:
    """A script with an operator's key."""
    return caller(operator, anybody)


@pytest.fixture
def admin_script(admin: Visitor, anybody: Visitor) -> Call:
    """The same with an admin's."""
    return caller(admin, anybody)


@pytest.fixture
def by_session(admin: Visitor) -> Call:
    """An admin's browser: what a key may not do."""

    def call(method: str, path: str, **body: Any) -> tuple[int, Any]:
        headers = {"X-CSRF-Token": operators.csrf_of(admin.token)}
        answer = admin.client.open(path, method=method, json=body or None, headers=headers)
        return answer.status_code, answer.json

    return call


@pytest.fixture
def viewer_script(viewer: Visitor, anybody: Visitor) -> Call:
    """The same with a viewer's."""
    return caller(viewer, anybody)


def caller(owner: Visitor, browser: Visitor) -> Call:
    present = operators.who_is(owner.token)
    assert present
    headers = {"Authorization": f"Bearer {operators.make_key(present, 'test')}"}

    def call(method: str, path: str, **body: Any) -> tuple[int, Any]:
        answer = browser.client.open(path, method=method, json=body or None, headers=headers)
        return answer.status_code, answer.json

    return call
