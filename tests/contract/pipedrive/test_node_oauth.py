"""The vendor's own Node.js client connects as an app, unmodified but for its host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import serve
from sandbox.pipedrive import start
from tests.contract import node_packages

pytestmark = pytest.mark.node

CLIENT = ("node-client", "node-secret")


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    folder = node_packages.install("pipedrive")
    client_id, client_secret = CLIENT
    running = serve.start(
        start.FACTORY, {"persons": 20, "organizations": 5, "client_id": client_id, "client_secret": client_secret}
    )
    try:
        serve.wait_until_ready(running)
        output = node_packages.run(Path(__file__).parent / "oauth.cjs", folder, running.url, *CLIENT)
        yield {**json.loads(output), "url": running.url}
    finally:
        running.stop()


def test_it_turns_a_code_into_tokens(seen: dict[str, Any]) -> None:
    assert len(seen["first"]["access_token"]) > 400
    assert seen["first"]["api_domain"] == seen["apiDomain"] == seen["url"]


def test_it_calls_with_them(seen: dict[str, Any]) -> None:
    assert seen["me"]["access"][0]["admin"] is True
    assert seen["hook"]["type"] == "application"
    assert seen["listed"] == 5


def test_it_refreshes_by_itself(seen: dict[str, Any]) -> None:
    assert seen["second"] not in {None, seen["first"]["access_token"]}


def test_it_revokes(seen: dict[str, Any]) -> None:
    assert seen["revoked"]["errorCode"] == 401
    assert seen["lost"]["error"] == "invalid_grant"
