"""Hull's signed notifications, and the server of its public key."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from werkzeug.test import TestResponse

from tests.integration.web.conftest import ACME, ORGANIZATION, SECRETS, RunningWeb
from tests.wsgi_adapter import WSGIAdapter, WSGIApp, session_for

KEY_URL = "https://keys.hullapp.test/api/v1/public-key"
NEXT = {"flow_control": {"type": "next"}}
RETRY = {"type": "retry", "size": 10, "in": 1000, "in_time": 10}


class KeyServer:
    """Serves the public key of Hull by POST, and counts the requests; `session` sends requests to it."""

    def __init__(self, private: RSAPrivateKey) -> None:
        self.answer = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.status = "200 OK"
        self.asked = 0
        self.session = session_for({"https://keys.hullapp.test": self})

    def reach(self, origin: str, app: WSGIApp) -> None:
        """From now on this host answers as well."""
        self.session.mount(origin, WSGIAdapter(app))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.asked += environ["REQUEST_METHOD"] == "POST"
        start_response(self.status, [("Content-Type", "text/plain")])
        return [self.answer]


class Hull:
    """Posts notifications as Hull does."""

    def __init__(self, running: RunningWeb, private: RSAPrivateKey) -> None:
        self._running = running
        self._private = private

    def headers(self, notification_id: str = "n-1", **changed: str | None) -> dict[str, str]:
        given: dict[str, str | None] = {
            "X-Hull-Smart-Notifier": "true",
            "X-Hull-Smart-Notifier-Signature-Version": "v1",
            "X-Hull-Smart-Notifier-Signature": self.token(jti=notification_id),
            "X-Hull-Smart-Notifier-Signature-Public-Key-Url": KEY_URL,
        }
        given |= {f"X-Hull-Smart-Notifier{name.replace('_', '-')}": value for name, value in changed.items()}
        return {name: value for name, value in given.items() if value is not None}

    def token(self, **claims: Any) -> str:
        return jwt.encode({"iat": int(time.time()), **claims}, self._private, algorithm="RS256")

    def post(self, body: Any, headers: dict[str, str] | None = None) -> TestResponse:
        data = body if isinstance(body, bytes) else json.dumps(body)
        return self._running.client.post("/smart-notifier", data=data, headers=headers or self.headers())

    def notify(self, **changed: Any) -> TestResponse:
        """A notification of its own id."""
        body = notification(**changed)
        return self.post(body, self.headers(str(body["notification_id"])))


def notification(**changed: Any) -> dict[str, Any]:
    body = {
        "notification_id": "n-1",
        "configuration": {"id": ACME, "organization": ORGANIZATION, "secret": SECRETS["hull_secret"]},
        "kraken": {"retries": 0},
        "channel": "user:update",
        "connector": {"id": ACME, "private_settings": {"access_token": "canary-access"}},
        "segments": [],
        "accounts_segments": [],
        "is_export": False,
        "messages": [{"message_id": "m1", "user": {"id": "5f0000000000000000000001", "email": "canary@acme.test"}}],
    }
    return {name: value for name, value in {**body, **changed}.items() if value is not ...}
