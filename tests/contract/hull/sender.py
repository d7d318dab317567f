"""A Hull client of the tests' own: tokens by PyJWT, batches through Flask's test client."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jwt
from flask import Flask

from sandbox.hull.identity import HullRecord, Kind, read_claims
from sandbox.hull.state import HullState

CONNECTOR_ID = "65f000000000000000000001"
SECRET = "a made-up secret, long enough for HS256"
CREDENTIALS = {"Hull-App-Id": CONNECTOR_ID, "Hull-Access-Token": SECRET}
NOW = 1_795_443_081

Json = dict[str, Any]


def token(*, secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """`asUser`, `asAccount`, `subjectType` and `create` get their prefix; other claims are unchanged."""
    prefixed = {
        f"io.hull.{name}" if name in ("asUser", "asAccount", "subjectType", "create") else name: value
        for name, value in claims.items()
    }
    return jwt.encode({"iss": CONNECTOR_ID, "iat": NOW, **prefixed}, secret, algorithm=algorithm)


def user_message(claims: Json | str, body: Json | None = None, *, type_: str = "traits", **more: Any) -> Json:
    named = {"sub": claims} if isinstance(claims, str) else {"asUser": claims}
    return message(body, type_, subjectType="user", **named, **more)


def account_message(claims: Json | str, body: Json | None = None, *, type_: str = "traits", **more: Any) -> Json:
    named = {"sub": claims} if isinstance(claims, str) else {"asAccount": claims}
    return message(body, type_, subjectType="account", **named, **more)


def link_message(user: Json, account: Json | None, body: Json | None = None) -> Json:
    claims = {"asUser": user} | ({} if account is None else {"asAccount": account})
    return message(body, "traits", subjectType="account", **claims)


def message(body: Json | None, type_: str, **claims: Any) -> Json:
    return {"type": type_, "body": body or {}, "headers": {"Hull-Access-Token": token(**claims)}, "timestamp": "t"}


@dataclass(frozen=True, slots=True)
class Hull:
    """A sandbox in this process, and how the tests talk to it."""

    app: Flask
    state: HullState

    def send(self, *messages: Any) -> None:
        answer = self.call("POST", "/firehose", {"batch": list(messages)})
        assert answer == {"ok": True}

    def call(self, method: str, path: str, body: Any = None, headers: Json | None = None) -> Any:
        """The JSON answered, which must be a success."""
        status, answer = self.ask(method, path, body, headers)
        assert status == 200, answer
        return answer

    def ask(self, method: str, path: str, body: Any = None, headers: Json | None = None) -> tuple[int, Any]:
        sent = {} if body is None else {"data": json.dumps(body)}
        response = self.app.test_client().open(path, method=method, headers=headers or CREDENTIALS, **sent)
        return response.status_code, json.loads(response.data)

    def user(self, **claims: str) -> HullRecord:
        """The one User who answers to these claims."""
        return self._only("user", claims)

    def account(self, **claims: str) -> HullRecord:
        return self._only("account", claims)

    def reasons(self) -> list[str]:
        return [line["reason"] for line in self.state.log]

    def _only(self, kind: Kind, claims: Json) -> HullRecord:
        found = self.state.find_by_claims(kind, read_claims(kind, claims, []))
        assert found is not None, f"no {kind} {claims}"
        return found
