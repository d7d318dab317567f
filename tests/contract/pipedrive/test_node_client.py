"""The vendor's own Node.js client, unmodified but for its base URL, against a served sandbox."""

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

TOKEN = "node-token"


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    folder = node_packages.install("pipedrive")
    running = serve.start(start.FACTORY, {"seed": 3, "persons": 130, "organizations": 90, "api_token": TOKEN})
    try:
        serve.wait_until_ready(running)
        yield json.loads(node_packages.run(Path(__file__).parent / "client.cjs", folder, running.url, TOKEN))
    finally:
        running.stop()


@pytest.mark.parametrize(("entities", "held"), [("persons", 130), ("organizations", 90)])
def test_it_walks_every_page(seen: dict[str, Any], entities: str, held: int) -> None:
    listed = seen[entities]["listed"]

    assert listed == sorted(set(listed))
    assert 0.9 * held < len(listed) <= held


@pytest.mark.parametrize("entities", ["persons", "organizations"])
def test_it_creates_reads_updates_finds_and_deletes(seen: dict[str, Any], entities: str) -> None:
    answers = seen[entities]

    assert answers["read"] == answers["created"]
    assert answers["updated"]["id"] == answers["created"]["id"]
    assert answers["deleted"] == {"id": answers["created"]["id"]}
    assert answers["gone"]["success"] is False
    assert answers["gone"]["error"] == "Entity was not found"


def test_an_update_takes_effect(seen: dict[str, Any]) -> None:
    assert seen["persons"]["updated"]["last_name"] == "Caller"
    assert seen["organizations"]["updated"]["address"]["value"] == "Tallinn"
    # The search came after the rename, so the Person is not found by the old name, and the Organization is.
    assert seen["persons"]["found"] == []
    assert seen["organizations"]["found"] == [seen["organizations"]["created"]["id"]]


def test_it_reads_field_definitions(seen: dict[str, Any]) -> None:
    custom = {field["field_code"] for field in seen["personFields"] if field["is_custom_field"]}

    assert custom == set(seen["persons"]["created"]["custom_fields"])
    assert custom <= {field["key"] for field in seen["olderFields"]}
    assert {"name", "address", "website"} <= {field["field_code"] for field in seen["organizationFields"]}


def test_it_merges(seen: dict[str, Any]) -> None:
    merged = seen["merged"]

    assert (merged["id"], merged["merge_what_id"], merged["name"]) == (seen["survivor"], seen["loser"], "Node Twice")


def test_it_manages_webhooks(seen: dict[str, Any]) -> None:
    assert seen["listedHooks"] == [seen["hook"]]
    assert seen["leftHooks"] == []
    assert seen["refused"]["errors"] == {"subscription_url": ["invalid or non-reachable URL"]}


def test_it_knows_who_it_is(seen: dict[str, Any]) -> None:
    assert seen["me"]["company_domain"] == "harborlight-3"
    assert seen["stranger"]["errorCode"] == 401
