"""The notifier: collects changes, posts signed notifications to the connector, obeys `flow_control`, and remembers every
exchange.

Changes of one record since the last notification become one message: with the oldest old value and the newest new one; a
value that changed back is no change. One notification is sent at a time. A `retry` answer, and any failure, sends the same
messages again with `kraken.retries` one higher, after `in` ms, at most MAX_TRIES times. A signature is a JWT, RS256, with
the notification's id as `jti`. Sources: https://github.com/hull/hull-connectors
(packages/hull/src/handlers/notification-handler, types/notifications.js, middlewares/full-context-body.js,
utils/notification-validator.js); https://www.hull.io/docs/data_lifecycle/notify/
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

import jwt
import orjson
import requests
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.hull.attributes import Changes
from sandbox.hull.identity import HullRecord, Kind
from sandbox.hull.reports import account_report, report_key, segment_object, user_report
from sandbox.hull.state import HullState, iso

_MAX_MESSAGES = 100  # per notification, unless the connector's flow_control names another size
MAX_TRIES = 5
_MAX_WAIT_S = 5.0  # however long `in` is, so that a sandbox is not idle
_DEFAULT_RETRY_MS = 1_000
_TIMEOUT_S = 30.0
_EXCHANGES_KEPT = 1_000
_Diff = dict[str, list[Any]]
#: (url, headers, body) → (status, answer's text); raises OSError without an answer
Post = Callable[[str, Mapping[str, str], bytes], tuple[int, str]]


@dataclass(frozen=True, slots=True)
class NotificationTarget:
    """Where notifications go, and where the connector finds the public key."""

    url: str
    public_key_url: str


class HullNotifier:
    """`deliver_pending` does the work; `start` runs it in a background thread whenever something is pending."""

    def __init__(self, state: HullState, *, post: Post | None = None) -> None:
        self.signer = Signer()
        self.target: NotificationTarget | None = None
        self.post: Post = post or _post
        self.pause: Callable[[float], object] = threading.Event().wait
        self.exchanges: deque[dict[str, Any]] = deque(maxlen=_EXCHANGES_KEPT)
        self._state = state
        self._pending: dict[str, dict[str, PendingMessage]] = {"account:update": {}, "user:update": {}}
        self._settings_changed = False
        self._size = _MAX_MESSAGES
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self, url: str, public_key_url: str) -> None:
        self.target = NotificationTarget(url, public_key_url)

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hull-notifier", daemon=True)
            self._thread.start()

    def record_changed(self, entity: HullRecord, changes: Changes, is_new: bool) -> None:
        """Called under the state's lock. A change of an Account reaches its Users too."""
        if self.target is None:
            return
        of_account = entity.kind == "account"
        self._add(f"{entity.kind}:update", entity, changes, of_account=of_account, is_new=is_new)
        if of_account:
            for user_id in sorted(self._state.members.get(entity.id, ())):
                user = self._state.users.by_id[user_id]
                self._add("user:update", user, changes, of_account=True, is_new=False)
        self._wake.set()

    def connector_changed(self) -> None:
        """Called under the state's lock: settings were written."""
        self._settings_changed = self.target is not None
        self._wake.set()

    def waiting(self) -> int:
        """Messages not yet in a notification."""
        return sum(map(len, self._pending.values())) + self._settings_changed

    def deliver_pending(self) -> None:
        """Send until nothing is pending; return once everything was accepted or failed for the last time."""
        target = self.target
        while target is not None and (body := self._next_notification()) is not None:
            self._deliver(target, body)

    def _add(self, channel: str, entity: HullRecord, changes: Changes, *, of_account: bool, is_new: bool) -> None:
        queue = self._pending[channel]
        pending = queue.setdefault(entity.id, PendingMessage(entity))
        pending.is_new = pending.is_new or is_new
        pending.add(changes, of_account=of_account)
        if pending.is_empty():
            del queue[entity.id]

    def _next_notification(self) -> dict[str, Any] | None:
        state = self._state
        with state.lock:
            if self._settings_changed:
                self._settings_changed = False
                return _notification(state, "ship:update", [state.connector])
            for channel, queue in self._pending.items():
                taken = [queue.pop(hull_id) for hull_id in list(queue)[: self._size]]
                present = [p for p in taken if state.directory(p.entity.kind).by_id.get(p.entity.id) is p.entity]
                if present:
                    return _notification(state, channel, [_message(state, pending) for pending in present])
        return None

    def _deliver(self, target: NotificationTarget, body: dict[str, Any]) -> None:
        for retries in range(MAX_TRIES):
            flow = self._try(target, {**body, "kraken": {"retries": retries}})
            if isinstance(flow.get("size"), int) and flow["size"] > 0:
                self._size = flow["size"]
            wait_ms = flow.get("in", 0)
            if isinstance(wait_ms, int | float) and wait_ms > 0:
                self.pause(min(wait_ms / 1000, _MAX_WAIT_S))
            if flow["type"] == "next":
                return
        self.exchanges[-1]["given_up"] = True

    def _try(self, target: NotificationTarget, body: dict[str, Any]) -> dict[str, Any]:
        """Post once. Return the flow_control of the answer; everything except a 200 with `next` is a retry."""
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
    return {"in": 0 if accepted else _DEFAULT_RETRY_MS, **flow, "type": "next" if accepted else "retry"}


def _post(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
    response = requests.post(url, data=body, headers=dict(headers), timeout=_TIMEOUT_S)
    return response.status_code, response.text


class Signer:
    """Signs notifications. The key is generated when it is first needed: that takes a tenth of a second, and most tests
    never sign.
    """

    @cached_property
    def _key(self) -> RSAPrivateKey:
        return generate_private_key(public_exponent=65537, key_size=2048)

    def sign(self, notification_id: str) -> str:
        return jwt.encode({"jti": notification_id, "iat": int(time.time())}, self._key, algorithm="RS256")

    def public_pem(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(slots=True)
class SegmentMoves:
    """Ids of the segments entered and left."""

    entered: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, left: list[str], entered: list[str]) -> None:
        for segment_id in entered:
            _move(segment_id, self.left, self.entered)
        for segment_id in left:
            _move(segment_id, self.entered, self.left)


@dataclass(slots=True)
class PendingMessage:
    """All changes of one record since the last notification. `user` stays empty for an account:update."""

    entity: HullRecord
    is_new: bool = False
    user: _Diff = field(default_factory=dict)
    account: _Diff = field(default_factory=dict)
    segments: SegmentMoves = field(default_factory=SegmentMoves)
    account_segments: SegmentMoves = field(default_factory=SegmentMoves)

    def is_empty(self) -> bool:
        moves = (self.segments, self.account_segments)
        return not (self.is_new or self.user or self.account or any(move.entered or move.left for move in moves))

    def add(self, changes: Mapping[str, Any], *, of_account: bool) -> None:
        """Add changes {name: (old, new)}; `account.x` is the User's Account's x, "segments" is (ids left, ids entered)."""
        for name, (old, new) in changes.items():
            if name == "segments":
                (self.account_segments if of_account else self.segments).add(old, new)
            elif of_account or name.startswith("account."):
                _add_change(self.account, name.removeprefix("account."), old, new)
            else:
                _add_change(self.user, report_key("user", name), old, new)


def _add_change(diff: _Diff, name: str, old: Any, new: Any) -> None:
    first = diff[name][0] if name in diff else old
    diff[name] = [first, new]
    if first == new:
        del diff[name]


def _move(segment_id: str, opposite: list[str], own: list[str]) -> None:
    if segment_id in opposite:
        opposite.remove(segment_id)
    elif segment_id not in own:
        own.append(segment_id)


def _notification(state: HullState, channel: str, messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The whole body, without `kraken`, which counts the tries."""
    connector = state.connector
    return {
        "notification_id": str(uuid4()),
        "configuration": {name: connector[name] for name in ("id", "organization", "secret")},
        "channel": channel,
        "connector": {name: value for name, value in connector.items() if name != "secret"},
        "segments": _segments(state, "user"),
        "accounts_segments": _segments(state, "account"),
        "is_export": False,
        "messages": list(messages),
    }


def _message(state: HullState, pending: PendingMessage) -> dict[str, Any]:
    """One user:update or account:update message."""
    entity = pending.entity
    account = state.account_of(entity) if entity.kind == "user" else entity
    changes: dict[str, Any] = {
        "is_new": pending.is_new,
        "account": pending.account,
        "account_segments": _moves(state, "account", pending.account_segments),
    }
    shown = {
        "message_id": str(uuid4()),
        "account": {} if account is None else account_report(state, account),
        **_membership(state, "account_segments", "account_segment_ids", account),
        "changes": changes,
    }
    if entity.kind == "account":
        return shown
    changes |= {"user": pending.user, "segments": _moves(state, "user", pending.segments)}
    user = user_report(state, entity)
    del user["account"]
    return {**shown, "user": user, **_membership(state, "segments", "segment_ids", entity), "events": []}


def _segments(state: HullState, kind: Kind) -> list[dict[str, Any]]:
    return [segment_object(segment) for segment in state.segments.of_kind(kind)]


def _membership(state: HullState, name: str, ids_name: str, entity: HullRecord | None) -> dict[str, Any]:
    held = [] if entity is None else state.segments.holding(entity.kind, entity.id)
    return {name: [segment_object(segment) for segment in held], ids_name: [segment.id for segment in held]}


def _moves(state: HullState, kind: Kind, moves: SegmentMoves) -> dict[str, Any]:
    known = {segment.id: segment_object(segment) for segment in state.segments.of_kind(kind)}
    return {
        "entered": [known[segment_id] for segment_id in moves.entered],
        "left": [known[segment_id] for segment_id in moves.left],
    }
