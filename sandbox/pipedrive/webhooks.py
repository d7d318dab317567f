"""Webhook subscriptions (create, list, delete; v1 paths only), and their health: failures, bans, days without success.

Sources: the v1 OpenAPI file, path /webhooks; docs page guide-for-webhooks-v2. Loopback and private addresses are allowed
here, which the real service refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Response, g

from sandbox.app import json_answer, require_number
from sandbox.company import Company
from sandbox.pipedrive.access import ApiCaller
from sandbox.pipedrive.answers import ApiError, milliseconds
from sandbox.pipedrive.records import json_object

_MAX_PER_USER = 40
_MAX_NAME = 255
_ACTIONS = ("create", "change", "delete", "*")
_OBJECTS = (
    "activity", "deal", "lead", "note", "organization", "person", "pipeline", "product", "stage", "user", "*",
)  # fmt: skip
_VERSIONS = ("1.0", "2.0")
_OF_APP = "application"  # the type of a webhook made with an app's token


class Subscriptions:
    """The webhooks of one company, by id."""

    def __init__(self, company: Company) -> None:
        self.by_id: dict[int, dict[str, Any]] = {}
        self._company = company
        self._last_id = 4_700_000

    def create(self) -> Response:
        """Answer POST /api/v1/webhooks."""
        body = json_object()
        problems = _problems(body)
        if problems:
            raise _error(400, problems)
        if len(self._seen(g.caller)) >= _MAX_PER_USER:
            raise _error(422, {"webhooks": [f"limit of {_MAX_PER_USER} webhooks per user reached"]})
        self._last_id += 1
        self.by_id[self._last_id] = subscription = self._subscription(body, g.caller)
        return json_answer({"status": "ok", "success": True, "data": subscription}, 201)

    def list_all(self) -> Response:
        """Answer GET /api/v1/webhooks, which has no pages. An app sees only those it made."""
        return json_answer({"status": "ok", "success": True, "data": self._seen(g.caller)})

    def delete(self, webhook_id: int) -> Response:
        """Answer DELETE /api/v1/webhooks/{id}."""
        subscription = self.by_id.get(webhook_id)
        if subscription is None:
            raise _error(404, {"id": ["not found"]})
        if subscription not in self._seen(g.caller):
            raise ApiError(403, {"success": False, "message": "Forbidden"})
        self.by_id.pop(webhook_id, None)
        return json_answer({"status": "ok", "success": True})

    def forget_app(self, user_id: int) -> None:
        """Delete what an app made for a user who no longer has it."""
        for webhook_id, subscription in list(self.by_id.items()):
            if (subscription["type"], subscription["owner_id"]) == (_OF_APP, user_id):
                self.by_id.pop(webhook_id, None)

    def _seen(self, caller: ApiCaller) -> list[dict[str, Any]]:
        """List what a caller may see: everything, or what the app made for this user."""
        held = list(self.by_id.values())
        if not caller.by_app:
            return held
        return [each for each in held if (each["type"], each["owner_id"]) == (_OF_APP, caller.user.id)]

    def _subscription(self, body: dict[str, Any], caller: ApiCaller) -> dict[str, Any]:
        user_id = caller.user.id
        return {
            "id": self._last_id,
            "company_id": self._company.id,
            "owner_id": user_id,
            "user_id": body.get("user_id", user_id),
            "event_action": body["event_action"],
            "event_object": body["event_object"],
            "subscription_url": body["subscription_url"],
            "version": body.get("version", "2.0"),
            "is_active": 1,
            "add_time": milliseconds(self._company.clock()),
            "remove_time": None,
            "type": _OF_APP if caller.by_app else "general",
            "http_auth_user": body.get("http_auth_user"),
            "http_auth_password": body.get("http_auth_password"),
            "remove_reason": None,
            "last_delivery_time": None,
            "last_http_status": None,
            "admin_id": user_id,
            "name": body["name"],
        }


def _problems(body: dict[str, Any]) -> dict[str, list[str]]:
    """Return what is wrong with a subscription, by key."""
    url = body.get("subscription_url")
    name = body.get("name")
    found = {
        "subscription_url": None if isinstance(url, str) and _reachable(url) else "invalid or non-reachable URL",
        "event_action": None if body.get("event_action") in _ACTIONS else "invalid event action",
        "event_object": None if body.get("event_object") in _OBJECTS else "invalid event object",
        "name": None
        if isinstance(name, str) and 0 < len(name) <= _MAX_NAME
        else f"must have 1 to {_MAX_NAME} characters",
        "version": None if body.get("version", "2.0") in _VERSIONS else "invalid version",
    }
    return {key: [problem] for key, problem in found.items() if problem}


def _reachable(url: str) -> bool:
    parts = urlsplit(url)
    return (
        parts.scheme in {"http", "https"} and bool(parts.hostname) and not str(parts.hostname).endswith("pipedrive.com")
    )


def _error(status: int, errors: dict[str, list[str]]) -> ApiError:
    return ApiError(status, {"status": "error", "success": False, "errors": errors})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRules:
    """What Pipedrive does when a receiver fails. The last two are undocumented and may be either way. Raises: ValueError for
    no number.

    `timeout_s` is in real time, as the receiver's is; the others follow the company's clock.
    """

    timeout_s: float = 10.0
    retry_after_s: tuple[float, ...] = (3.0, 30.0, 150.0)
    failures_to_ban: int = 10  # failed first attempts; retries do not count
    ban_s: float = 1_800.0
    delete_after_s: float = 3 * 86_400.0  # from the first failure that no success followed
    success_resets: bool = True  # a success sets the count of failures to 0
    stable_id: bool = True  # a retry has the meta.id of its first attempt

    def __post_init__(self) -> None:
        if not isinstance(self.retry_after_s, tuple | list):
            raise ValueError("retry_after_s: must be an array")  # noqa: TRY004 (one error for all that is wrong)
        for name in ("timeout_s", "failures_to_ban", "ban_s", "delete_after_s"):
            require_number(getattr(self, name), name)
        for wait_s in self.retry_after_s:
            require_number(wait_s, "retry_after_s")


@dataclass(slots=True)
class SubscriptionHealth:
    """The health of one webhook. The caller holds a lock."""

    failures: int = 0
    banned_until: float | None = None
    failing_since: float | None = None

    def end_ban(self, now: float) -> None:
        """End an expired ban, and reset the count of failures."""
        if self.banned_until is not None and now >= self.banned_until:
            self.banned_until, self.failures = None, 0

    def ban(self, until: float) -> None:
        """Drop every delivery until then."""
        self.banned_until = until

    def succeed(self, rules: DeliveryRules) -> None:
        """Record a success."""
        self.failing_since = None
        if rules.success_resets:
            self.failures = 0

    def fail(self, now: float, rules: DeliveryRules, *, first: bool) -> bool:
        """Record a failed attempt; return True when it is the first since the last success."""
        begins = self.failing_since is None
        if begins:
            self.failing_since = now
        if first and self.banned_until is None:
            self.failures += 1
            if self.failures >= rules.failures_to_ban:
                self.ban(now + rules.ban_s)
        return begins

    def has_failed_too_long(self, now: float, rules: DeliveryRules) -> bool:
        """Return whether it has failed for so long that the webhook is deleted."""
        return self.failing_since is not None and now - self.failing_since >= rules.delete_after_s
