"""A subscriber: the requested webhook, and its receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import requests

HOOKS = "/api/v1/webhooks"
ORIGIN = "http://receiver.test"
BODY = {
    "subscription_url": f"{ORIGIN}/pd",
    "event_action": "*",
    "event_object": "*",
    "name": "all",
    "http_auth_user": "etl",
    "http_auth_password": "secret",
}


class Receiver:
    """Keeps what it is sent and answers with `status`; None is no answer in time. `hear` is called with each payload first."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.status: str | None = "204 No Content"
        self.hear: Callable[[dict[str, Any]], object] = lambda _payload: None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        payload = orjson.loads(environ["wsgi.input"].read())
        self.hear(payload)
        self.got.append((environ, payload))
        if self.status is None:
            raise requests.ReadTimeout
        start_response(self.status, [])
        return iter([b""])

    def payloads(self) -> list[dict[str, Any]]:
        """What it was sent, in the order it came."""
        return [payload for _, payload in self.got]

    def attempts(self) -> list[int]:
        """The counter of each payload."""
        return [payload["meta"]["attempt"] for payload in self.payloads()]
