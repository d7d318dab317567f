"""A small company, the app over it, and a caller with the right token."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from sandbox.company import Company
from sandbox.pipedrive.access import API_TOKEN
from sandbox.pipedrive.app import PipedriveApp, create_app

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@dataclass
class Clock:
    """Epoch seconds that a test moves."""

    now: float = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


@dataclass
class Api:
    """Calls as a client makes them."""

    client: FlaskClient
    headers: dict[str, str] = field(default_factory=lambda: {"x-api-token": API_TOKEN})

    def call(self, method: str, path: str, body: Any = None, **parameters: Any) -> TestResponse:
        data = None if body is None else json.dumps(body)
        kind = None if body is None else "application/json"
        return self.client.open(
            path, method=method, data=data, content_type=kind, query_string=parameters, headers=self.headers
        )

    def ok(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        answer = self.call(method, path, body, **parameters)
        assert answer.status_code < 300, answer.get_data(as_text=True)
        return answer.get_json()["data"]

    def error(self, method: str, path: str, body: Any = None, **parameters: Any) -> tuple[int, str]:
        answer = self.call(method, path, body, **parameters)
        assert answer.get_json()["success"] is False
        return answer.status_code, answer.get_json().get("error", "")

    def walk(self, path: str, **parameters: Any) -> list[Any]:
        """Follow the markers to the end."""
        found: list[Any] = []
        while True:
            answer = self.call("GET", path, **parameters).get_json()
            found += answer["data"]
            marker = answer["additional_data"]["next_cursor"]
            if marker is None:
                return found
            parameters["cursor"] = marker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def company(clock: Clock) -> Company:
    return Company(seed=7, persons=300, organizations=60, now=NOW, clock=clock)


@pytest.fixture
def app(company: Company) -> PipedriveApp:
    return create_app(company)


@pytest.fixture
def api(app: PipedriveApp) -> Api:
    return Api(app.test_client())


def code(company: Company, entity: str, name: str) -> str:
    """The code of a custom field by its name."""
    return next(known.code for known in company.fields[entity] if known.name == name and known.custom)
