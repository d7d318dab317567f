"""What knocks at the door: Pipedrive's webhooks as its sandbox writes them, and Hull's notifications.

said = listen(world)          from now on every edit of the company says its webhook here
deliver(world, *said)         the door stores them, as it does before it answers
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from db import delivery as deliveries
from db.session import transaction
from sandbox.company import Event
from sandbox.pipedrive.payload import payload
from tests.world import World

SUBSCRIPTION = {"id": 4_700_001, "type": "general", "version": "2.0", "owner_id": 1}


def listen(world: World) -> list[dict[str, Any]]:
    """A list that fills with the webhook of every later change."""
    said: list[dict[str, Any]] = []

    def note(event: Event) -> None:
        said.append(json.loads(json.dumps(payload(world.company, event, SUBSCRIPTION))))

    world.company.listeners.append(note)
    return said


def deliver(world: World, *bodies: Any) -> None:
    """Store webhooks as received. Bytes go as they are."""
    with transaction() as session:
        for number, body in enumerate(bodies):
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            deliveries.keep_delivery(session, world.connector_key, "pipedrive", _key(body, number), raw)


def notify(world: World, *messages: dict[str, Any], channel: str = "user:update", key: str = "n1", **more: Any) -> None:
    """Store a notification of Hull as received."""
    body = orjson.dumps({"channel": channel, "messages": list(messages), **more})
    with transaction() as session:
        deliveries.keep_delivery(session, world.connector_key, "hull", key, body)


def _key(body: Any, number: int) -> str:
    meta = body.get("meta") if isinstance(body, dict) else None
    return str(meta.get("id")) if isinstance(meta, dict) else f"{number}:{hash(str(body))}"
