"""The npm package hull-client, unmodified, against a served sandbox: the client the connector being replaced is built on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox import serve
from tests.contract import node_packages
from tests.contract.hull.sender import CONNECTOR_ID, SECRET

pytestmark = pytest.mark.node

HERE = Path(__file__).parent
OPTIONS = {"connector_id": CONNECTOR_ID, "secret": SECRET, "organization": "acme.hull.test"}


@dataclass(frozen=True, slots=True)
class Seen:
    """The client's answers, and the sandbox's own view afterwards."""

    answers: dict[str, Any]
    url: str

    def lines(self, path: str) -> list[Any]:
        return [
            json.loads(line) for line in requests.get(f"{self.url}/__sandbox__/{path}", timeout=10).text.splitlines()
        ]


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_packages, "MANIFEST", HERE / "node")  # this client is pinned beside its test
        folder = node_packages.install("hull-client")
    running = serve.start("sandbox.hull.app:create_app", OPTIONS)
    try:
        serve.wait_until_ready(running)
        host = running.url.removeprefix("http://")
        yield Seen(
            json.loads(node_packages.run(HERE / "scenario.cjs", folder, host, CONNECTOR_ID, SECRET)), running.url
        )
    finally:
        running.stop()


def test_it_writes_links_and_reads_back(seen: Seen) -> None:
    (found,) = seen.answers["found"]["data"]

    assert seen.answers["firehose"] == {"ok": True}
    assert seen.answers["found"]["pagination"] == {"total": 1, "page": 1, "pages": 1, "per_page": 1}
    assert (found["email"], found["pipedrive/id"], found["traits_plan"]) == ("ada@acme.com", 1, "pro")
    assert found["anonymous_ids"] == ["pipedrive:1", "site:1"]
    assert (found["account"]["domain"], found["account"]["anonymous_ids"]) == ("acme.com", ["pipedrive:44"])
    assert (found["account"]["pipedrive/id"], found["account"]["tier"]) == (44, "gold")
    assert seen.answers["report"] == {**found, "traits_by_id": True, "updated_at": seen.answers["report"]["updated_at"],
                                      "indexed_at": seen.answers["report"]["indexed_at"]}  # fmt: skip


def test_its_settings_helper_merges_into_what_is_stored(seen: Seen) -> None:
    assert seen.answers["app"]["private_settings"] == {"one": 1, "two": 2}
    assert seen.answers["status"]["status"] == {"status": "ok", "messages": ["allgood"]}
    assert seen.answers["segments"] == []
    assert seen.answers["stranger"] == 404


def test_its_properties_helper_reads_the_attribute_tree(seen: Seen) -> None:
    assert {"email", "traits_plan", "pipedrive/id"} <= set(seen.answers["properties"])


def test_its_batches_arrive_whole(seen: Seen) -> None:
    users, accounts = (seen.lines(f"export?entity={kind}") for kind in ("user", "account"))
    volley = {user["anonymous_ids"][0]: user["number"] for user in users if "number" in user}

    assert volley == {f"volley:{number}": number for number in range(120)}
    assert [account["domain"] for account in accounts] == ["acme.com", "globex.com"]
    (log,) = seen.lines("log")
    assert [line["reason"] for line in log] == ["no such user, and none is to be created"]
    (stats,) = seen.lines("stats")
    assert stats["received"] == {"traits": 126, "alias": 2, "unalias": 1, "track": 1}


def test_what_it_sent_is_listed_as_triples(seen: Seen) -> None:
    claims = {"email": "Ada@Acme.com", "anonymous_id": "pipedrive:1"}

    assert seen.lines("received")[:2] == [
        [
            "traits",
            {"subjectType": "user", "asUser": claims},
            {"pipedrive/id": {"operation": "set", "value": 1}, "plan": "pro"},
        ],
        [
            "traits",
            {
                "subjectType": "account",
                "asUser": claims,
                "asAccount": {"domain": "https://www.acme.com", "anonymous_id": "pipedrive:44"},
            },
            {"pipedrive/id": 44},
        ],
    ]
