"""Webhooks of a connector: the answer first, what came and what became of it, and one delivery whole for operators."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.console.conftest import ConsoleClient
from tests.system import SyncSystem

HOSTILE = "<script>alert(1)</script>{{7*7}}\u202e\u200b"


@pytest.fixture(autouse=True)
def nothing_is_remembered(system: SyncSystem) -> Iterator[None]:
    """What pages share for a moment is forgotten between two tests."""
    from pipeline.web.console import webhooks  # noqa: PLC0415 - Celery reads its settings when it is imported

    webhooks._health.forget()
    yield
    webhooks._health.forget()


def deliver(
    system: SyncSystem, key: str, body: bytes = b"{}", state: str = "processed", reason: str | None = None, **more: Any
) -> int:
    row = system.rows(
        "INSERT INTO deliveries (connector_key, source, key, body, state, reason, received_at) VALUES (:connector, :source,"
        " :key, :body, :state, :reason, now() - make_interval(secs => :ago_s)) RETURNING id",
        connector=more.get("connector", system.connector_key),
        source=more.get("source", "pipedrive"),
        key=key,
        body=body,
        state=state,
        reason=reason,
        ago_s=more.get("ago_s", 0),
    )[0]
    delivery_id: int = row.id
    return delivery_id


def test_before_the_first_check_the_page_shows_that_there_are_no_webhooks(viewer: ConsoleClient) -> None:
    page = viewer.text("/c/acme/webhooks")

    assert "Webhooks are incomplete" in page
    assert "No webhooks yet" in page
    assert "No deliveries." in page


def test_healthy_webhooks_are_shown_with_deliveries(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.module("sync.connectors.webhooks").ensure_webhooks(system.connector_key)
    deliver(system, "1")
    deliver(system, "2", state="refused", reason="webhook_malformed")
    deliver(system, "3", state="new")

    page = viewer.text("/c/acme/webhooks")

    assert "Pipedrive sends every change. Webhooks are healthy" in page
    assert "The body does not have the format of Pipedrive" in page
    assert ">○ waiting<" in page
    assert page.count("● active") == 2


def test_an_ill_webhook_and_what_became_of_it(system: SyncSystem, viewer: ConsoleClient) -> None:
    webhooks = system.module("sync.connectors.webhooks")
    webhooks.ensure_webhooks(system.connector_key)
    system.change_rows("UPDATE webhook_subscriptions SET state = 'paused' WHERE entity = 'person'")
    page = viewer.text("/c/acme/webhooks")
    assert "The webhook for Persons is paused by Pipedrive" in page
    assert "▲ paused" in page


def test_a_check_that_gave_up_is_explained(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.change_rows(
        "INSERT INTO failures (connector_key, kind, subject, direction, entity, stage, reason, detail, fingerprint)"
        " VALUES (:key, 'control', 'control:ensure_webhooks', 'incoming', '', 'ensure_webhooks', 'webhooks_forbidden', 'x', 'f')",
        key=system.connector_key,
    )

    page = viewer.text("/c/acme/webhooks")

    assert "The last check failed: The connected user may not manage webhooks" in page
    assert "/c/acme/failures/1" in page


def test_gaps_are_shown_with_what_repaired_them(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.change_rows(
        "INSERT INTO sync_events (connector_key, event, entity, cause, reason, detail, run_id)"
        " VALUES (:key, 'incoming.job.success', 'person', 'schedule', 'gap_repaired', '3 Persons', 7)",
        key=system.connector_key,
    )

    page = viewer.text("/c/acme/webhooks")

    assert "gap_repaired</code> <bdi>3 Persons</bdi>" in page
    assert "/c/acme/runs/7" in page


def test_deliveries_are_paged_by_key(system: SyncSystem, viewer: ConsoleClient) -> None:
    ids = [deliver(system, str(position), ago_s=1_000 - position) for position in range(53)]
    deliver(system, "hull", source="hull")

    first = viewer.text("/c/acme/webhooks")
    second = viewer.text(f"/c/acme/webhooks?before={ids[3]}")

    assert f"before={ids[3]}" in first
    assert f">{ids[52]}<" in first
    assert f">{ids[2]}<" not in first
    assert f">{ids[2]}<" in second
    assert f">{ids[3]}<" not in second
    assert "Older" not in second


def test_a_check_is_handed_to_a_worker_by_operators_alone(
    system: SyncSystem, operator: ConsoleClient, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(
        system.module("tasks.control").app, "send_task", lambda name, **options: sent.append((name, options))
    )

    assert viewer.post("/c/acme/webhooks/check").status_code == 403
    assert "webhooks/check" not in viewer.text("/c/acme/webhooks")
    answer = operator.post("/c/acme/webhooks/check")

    assert answer.headers["Location"] == "/c/acme/webhooks"
    assert sent == [("control.ensure_webhooks", {"kwargs": {"connector_key": system.connector_key}})]
    assert "Check started" in operator.text("/c/acme/webhooks")
    (noted,) = system.rows("SELECT operator, action, connector_key FROM audit_log WHERE action = 'webhooks.check'")
    assert noted == ("operator@acme.test", "webhooks.check", system.connector_key)


def test_an_unreachable_broker_is_shown(
    system: SyncSystem, operator: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_arguments: Any, **_options: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(system.module("tasks.control").app, "send_task", away)
    operator.post("/c/acme/webhooks/check")

    assert "The broker does not answer" in operator.text("/c/acme/webhooks")


def test_one_delivery_whole_is_for_operators_and_shows_values_harmlessly(
    system: SyncSystem, operator: ConsoleClient, viewer: ConsoleClient
) -> None:
    meta = {
        "version": "2.0",
        "action": "change",
        "entity": "person",
        "entity_id": "7",
        "id": "abc",
        "timestamp": "2026-11-03T14:03:20.000Z",
    }
    body = {"meta": meta, "data": {"id": 7, "name": HOSTILE, "update_time": "2026-11-03T14:03:20Z"}, "previous": {}}
    delivery_id = deliver(system, HOSTILE, json.dumps(body).encode())

    page = operator.text(f"/c/acme/deliveries/{delivery_id}")

    assert viewer.get(f"/c/acme/deliveries/{delivery_id}").status_code == 403
    assert f"/deliveries/{delivery_id}" not in viewer.text("/c/acme/webhooks")
    assert "<script>alert" not in page
    assert "{{7*7}}" in page
    assert "\u202e" not in page
    assert "\u200b" not in page


@pytest.mark.parametrize(
    "body", [b"\xff\xfe<script>", b"[" * 100_000, b"", b'{"meta": 7}', b"null", b'{"a": NaN}', b"x" * 1_000_000]
)
def test_whatever_came_can_be_looked_at(system: SyncSystem, operator: ConsoleClient, body: bytes) -> None:
    delivery_id = deliver(system, "k", body, state="refused", reason="webhook_malformed")

    page = operator.text(f"/c/acme/deliveries/{delivery_id}")

    assert "rejected" in page
    assert len(page) < 200_000


def test_a_delivery_of_another_connector_is_not_there(system: SyncSystem, operator: ConsoleClient) -> None:
    system.change_rows("INSERT INTO connectors (id, name, hull_organization) VALUES ('b', 'other', 'other.test')")
    (other,) = system.rows("SELECT key FROM connectors WHERE name = 'other'")
    delivery_id = deliver(system, "k", connector=other.key)

    assert operator.get(f"/c/acme/deliveries/{delivery_id}").status_code == 404
    assert operator.get("/c/acme/deliveries/999999").status_code == 404
    assert operator.get(f"/c/acme/deliveries/{10**30}").status_code == 404
    assert "No deliveries." in operator.text(f"/c/acme/webhooks?before={10**30}&source=<b>")
    assert f">{delivery_id}<" not in operator.text("/c/acme/webhooks")


def test_scripts_read_the_health_of_webhooks_and_deliveries(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.module("sync.connectors.webhooks").ensure_webhooks(system.connector_key)
    deliver(system, "1", body=b'{"canary": 1}')

    health = viewer.get("/api/v1/connectors/acme/webhooks").get_json()
    (delivery,) = viewer.get("/api/v1/connectors/acme/deliveries").get_json()["deliveries"]

    assert (health["level"], [each["state"] for each in health["subscriptions"]]) == ("ok", ["active", "active"])
    assert (delivery["state"], delivery["size_bytes"]) == ("processed", 13)
    assert "canary" not in str(delivery)
    assert viewer.get("/api/v1/connectors/acme/deliveries?source=other").status_code == 422
