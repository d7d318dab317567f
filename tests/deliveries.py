"""Deliveries: webhooks in the format of Pipedrive's sandbox, and Hull's notifications.

webhooks = listen(system)      collect the webhooks of all edits from now on
deliver(system, *webhooks)     store them, as intake does
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from db import delivery as deliveries
from db.session import transaction
from sandbox.company import Event
from sandbox.pipedrive.payload import payload
from tests.system import SyncSystem

SUBSCRIPTION = {"id": 4_700_001, "type": "general", "version": "2.0", "owner_id": 1}


def listen(system: SyncSystem) -> list[dict[str, Any]]:
    """A list that fills with the webhook of every later change."""
    bodies: list[dict[str, Any]] = []

    def note(event: Event) -> None:
        bodies.append(json.loads(json.dumps(payload(system.company, event, SUBSCRIPTION))))

    system.company.listeners.append(note)
    return bodies


def deliver(system: SyncSystem, *bodies: Any) -> None:
    """Store webhooks as received. Bytes go as they are."""
    with transaction() as session:
        for number, body in enumerate(bodies):
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            deliveries.keep_delivery(session, system.connector_key, "pipedrive", _key(body, number), raw)


def notify(
    system: SyncSystem, *messages: dict[str, Any], channel: str = "user:update", key: str = "n1", **more: Any
) -> None:
    """Store a notification of Hull as received."""
    body = orjson.dumps({"channel": channel, "messages": list(messages), **more})
    with transaction() as session:
        deliveries.keep_delivery(session, system.connector_key, "hull", key, body)


def _key(body: Any, number: int) -> str:
    meta = body.get("meta") if isinstance(body, dict) else None
    return str(meta.get("id")) if isinstance(meta, dict) else f"{number}:{hash(str(body))}"


class HullNotifications:
    """Hull's notifications of all changes from now on, including our deliveries, in the format of its notifier.

    notifications = HullNotifications(system)
    receive(system, *notifications())      store the notifications since the last call, as intake does
    """

    def __init__(self, system: SyncSystem) -> None:
        self._bodies: list[dict[str, Any]] = []
        self._notifier = system.hull_app.extensions["hull_notifier"]
        self._notifier.post = self._take
        self._notifier.signer = _Unsigned()
        self._notifier.register("http://connector.test/smart-notifier", "http://hull.test/key")
        self._hull = system.hull
        self._hull.notify_on_firehose = True

    def __call__(self) -> list[dict[str, Any]]:
        self._notifier.deliver_pending()
        bodies, self._bodies = self._bodies, []
        return bodies

    def end(self) -> None:
        """Have the notifier send nothing, as in a new system."""
        self._notifier.target = None
        self._hull.notify_on_firehose = False

    def _take(self, _url: str, _headers: Any, body: bytes) -> tuple[int, str]:
        self._bodies.append(orjson.loads(body))
        return 200, '{"flow_control": {"type": "next"}}'


class _Unsigned:
    """Signs nothing: creating a key takes longer than a test, and intake is not part of it."""

    def sign(self, notification_id: str) -> str:
        return notification_id


def receive(system: SyncSystem, *notifications: dict[str, Any]) -> None:
    """Store notifications as received; a repeated one is recognized by its id."""
    with transaction() as session:
        for each in notifications:
            deliveries.keep_delivery(
                session, system.connector_key, "hull", each["notification_id"], orjson.dumps(_kept(each))
            )


def _kept(notification: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that intake stores."""
    return {name: notification[name] for name in ("notification_id", "channel", "is_export", "messages")}
