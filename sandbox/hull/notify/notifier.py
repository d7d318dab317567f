"""Tells the connector what changed: collects changes, posts signed notifications, obeys `flow_control`, remembers
every exchange.

One notification is under way at a time. A `retry` answer, and any failure, brings the same messages again with
`kraken.retries` one higher, after `in` ms, at most MAX_TRIES times. Source: https://github.com/hull/hull-connectors
(packages/hull/src/handlers/notification-handler)
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import requests

from sandbox.hull.notify.messages import message, notification
from sandbox.hull.notify.pending import Pending
from sandbox.hull.notify.signing import Signer
from sandbox.hull.records.attributes import Changes
from sandbox.hull.records.entity import Entity
from sandbox.hull.state import HullState, iso

MAX_MESSAGES = 100  # per notification, unless the connector's flow_control names another size
MAX_TRIES = 5
MAX_WAIT_S = 5.0  # however long `in` asks for: a sandbox should not stand still
DEFAULT_RETRY_MS = 1_000
TIMEOUT_S = 30.0
EXCHANGES_KEPT = 1_000

#: (url, headers, body) → (status, answer's text); raises OSError when nobody answers
Post = Callable[[str, Mapping[str, str], bytes], tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where notifications go, and where the connector finds the public key."""

    url: str
    public_key_url: str


class Notifier:
    """`deliver_pending` does the work; `start` runs it in a background thread whenever something is pending."""

    def __init__(self, state: HullState, *, post: Post | None = None) -> None:
        self.signer = Signer()
        self.target: Target | None = None
        self.post: Post = post or _post
        self.pause: Callable[[float], object] = threading.Event().wait
        self.exchanges: deque[dict[str, Any]] = deque(maxlen=EXCHANGES_KEPT)
        self._state = state
        self._pending: dict[str, dict[str, Pending]] = {"account:update": {}, "user:update": {}}
        self._settings_changed = False
        self._size = MAX_MESSAGES
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self, url: str, public_key_url: str) -> None:
        self.target = Target(url, public_key_url)

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hull-notifier", daemon=True)
            self._thread.start()

    def record_changed(self, entity: Entity, changes: Changes, is_new: bool) -> None:
        """Called under the state's lock. A change of an Account reaches its Users too."""
        if self.target is None:
            return
        of_account = entity.kind == "account"
        self._fold(f"{entity.kind}:update", entity, changes, of_account=of_account, is_new=is_new)
        if of_account:
            for user_id in sorted(self._state.members.get(entity.id, ())):
                user = self._state.users.by_id[user_id]
                self._fold("user:update", user, changes, of_account=True, is_new=False)
        self._wake.set()

    def connector_changed(self) -> None:
        """Called under the state's lock: settings were written, by whomever."""
        self._settings_changed = self.target is not None
        self._wake.set()

    def waiting(self) -> int:
        """Messages not yet in a notification."""
        return sum(map(len, self._pending.values())) + self._settings_changed

    def deliver_pending(self) -> None:
        """Send until nothing is pending; returns once everything was taken or given up."""
        target = self.target
        while target is not None and (body := self._next_notification()) is not None:
            self._deliver(target, body)

    def _fold(self, channel: str, entity: Entity, changes: Changes, *, of_account: bool, is_new: bool) -> None:
        queue = self._pending[channel]
        pending = queue.setdefault(entity.id, Pending(entity))
        pending.is_new = pending.is_new or is_new
        pending.fold(changes, of_account=of_account)
        if not pending.says_something():
            del queue[entity.id]

    def _next_notification(self) -> dict[str, Any] | None:
        state = self._state
        with state.lock:
            if self._settings_changed:
                self._settings_changed = False
                return notification(state, "ship:update", [state.connector])
            for channel, queue in self._pending.items():
                taken = [queue.pop(hull_id) for hull_id in list(queue)[: self._size]]
                present = [p for p in taken if state.directory(p.entity.kind).by_id.get(p.entity.id) is p.entity]
                if present:
                    return notification(state, channel, [message(state, pending) for pending in present])
        return None

    def _deliver(self, target: Target, body: dict[str, Any]) -> None:
        for retries in range(MAX_TRIES):
            flow = self._try(target, {**body, "kraken": {"retries": retries}})
            if isinstance(flow.get("size"), int) and flow["size"] > 0:
                self._size = flow["size"]
            wait_ms = flow.get("in", 0)
            if isinstance(wait_ms, int | float) and wait_ms > 0:
                self.pause(min(wait_ms / 1000, MAX_WAIT_S))
            if flow["type"] == "next":
                return
        self.exchanges[-1]["given_up"] = True

    def _try(self, target: Target, body: dict[str, Any]) -> dict[str, Any]:
        """Post once. Gives the flow_control of the answer; anything but a 200 that says `next` is a retry."""
        headers = {
            "Content-Type": "application/json",
            "X-Hull-Smart-Notifier": "true",
            "X-Hull-Smart-Notifier-Signature-Version": "v1",
            "X-Hull-Smart-Notifier-Signature": self.signer.sign(body["notification_id"]),
            "X-Hull-Smart-Notifier-Signature-Public-Key-Url": target.public_key_url,
        }
        status: int | None = None
        try:
            status, text = self.post(target.url, headers, orjson.dumps(body))
        except OSError as error:
            text = f"{type(error).__name__}: {error}"
        exchange = {
            "at": iso(self._state.clock()),
            "url": target.url,
            "request": body,
            "status": status,
            "response": text,
        }
        self.exchanges.append(exchange)
        return _flow_control(status, text)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self.deliver_pending()


def _flow_control(status: int | None, text: str) -> dict[str, Any]:
    try:
        flow = orjson.loads(text)["flow_control"]
    except (ValueError, KeyError, TypeError):
        flow = {}
    if not isinstance(flow, dict):
        flow = {}
    accepted = status == 200 and flow.get("type", "next") == "next"
    return {"in": 0 if accepted else DEFAULT_RETRY_MS, **flow, "type": "next" if accepted else "retry"}


def _post(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
    response = requests.post(url, data=body, headers=dict(headers), timeout=TIMEOUT_S)
    return response.status_code, response.text
