"""Manage webhook subscriptions: create, list, delete; v1 paths only.

Source: the v1 OpenAPI file, path /webhooks. Loopback and private addresses are allowed here, which the real service refuses.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from flask import Response, g

from sandbox.company import Company
from sandbox.pipedrive import answers
from sandbox.pipedrive.answers import ApiError
from sandbox.pipedrive.gate.access import Caller
from sandbox.pipedrive.records import json_object

MAX_PER_USER = 40
MAX_NAME = 255
ACTIONS = ("create", "change", "delete", "*")
OBJECTS = (
    "activity", "deal", "lead", "note", "organization", "person", "pipeline", "product", "stage", "user", "*",
)  # fmt: skip
VERSIONS = ("1.0", "2.0")
OF_APP = "application"  # the type of a webhook made with an app's token


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
        if len(self._seen(g.caller)) >= MAX_PER_USER:
            raise _error(422, {"webhooks": [f"limit of {MAX_PER_USER} webhooks per user reached"]})
        self._last_id += 1
        self.by_id[self._last_id] = subscription = self._subscription(body, g.caller)
        return answers.plain({"status": "ok", "success": True, "data": subscription}, 201)

    def list_all(self) -> Response:
        """Answer GET /api/v1/webhooks, which has no pages. An app sees only those it made."""
        return answers.plain({"status": "ok", "success": True, "data": self._seen(g.caller)})

    def delete(self, webhook_id: int) -> Response:
        """Answer DELETE /api/v1/webhooks/{id}."""
        subscription = self.by_id.get(webhook_id)
        if subscription is None:
            raise _error(404, {"id": ["not found"]})
        if subscription not in self._seen(g.caller):
            raise ApiError(403, {"success": False, "message": "Forbidden"})
        self.by_id.pop(webhook_id, None)
        return answers.plain({"status": "ok", "success": True})

    def forget_app(self, user_id: int) -> None:
        """Drop what an app made for a user who no longer has it."""
        for webhook_id, subscription in list(self.by_id.items()):
            if (subscription["type"], subscription["owner_id"]) == (OF_APP, user_id):
                self.by_id.pop(webhook_id, None)

    def _seen(self, caller: Caller) -> list[dict[str, Any]]:
        """List what a caller may see: everything, or what the app made for this user."""
        held = list(self.by_id.values())
        if not caller.by_app:
            return held
        return [each for each in held if (each["type"], each["owner_id"]) == (OF_APP, caller.user.id)]

    def _subscription(self, body: dict[str, Any], caller: Caller) -> dict[str, Any]:
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
            "type": OF_APP if caller.by_app else "general",
            "http_auth_user": body.get("http_auth_user"),
            "http_auth_password": body.get("http_auth_password"),
            "remove_reason": None,
            "last_delivery_time": None,
            "last_http_status": None,
            "admin_id": user_id,
            "name": body["name"],
        }


def milliseconds(moment: float) -> str:
    """Write epoch seconds as webhooks do: 2019-10-25T08:25:27.000Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _problems(body: dict[str, Any]) -> dict[str, list[str]]:
    """Collect what is wrong with a subscription, by key."""
    url = body.get("subscription_url")
    name = body.get("name")
    found = {
        "subscription_url": None if isinstance(url, str) and _reachable(url) else "invalid or non-reachable URL",
        "event_action": None if body.get("event_action") in ACTIONS else "invalid event action",
        "event_object": None if body.get("event_object") in OBJECTS else "invalid event object",
        "name": None
        if isinstance(name, str) and 0 < len(name) <= MAX_NAME
        else f"must have 1 to {MAX_NAME} characters",
        "version": None if body.get("version", "2.0") in VERSIONS else "invalid version",
    }
    return {key: [problem] for key, problem in found.items() if problem}


def _reachable(url: str) -> bool:
    parts = urlsplit(url)
    return (
        parts.scheme in {"http", "https"} and bool(parts.hostname) and not str(parts.hostname).endswith("pipedrive.com")
    )


def _error(status: int, errors: dict[str, list[str]]) -> ApiError:
    return ApiError(status, {"status": "error", "success": False, "errors": errors})
