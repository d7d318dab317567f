"""Look at the deliveries and meddle with them: GET and POST /__sandbox__/deliveries, POST /__sandbox__/webhooks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Response

from sandbox.control import number, plain, read, sent_object
from sandbox.pipedrive import answers
from sandbox.pipedrive.delivery import Delivery
from sandbox.pipedrive.sending.standing import Rules
from sandbox.pipedrive.sending.trouble import Trouble
from sandbox.pipedrive.webhooks import Subscriptions, milliseconds


def show(delivery: Delivery, subscriptions: Subscriptions) -> Response:
    """Tell what became of all deliveries, and how each webhook stands."""
    body = {
        "counts": dict(delivery.counts),
        "waiting": delivery.waiting,
        "trouble": asdict(delivery.trouble),
        "rules": asdict(delivery.rules),
        "webhooks": [_stands(delivery, subscription) for subscription in list(subscriptions.by_id.values())],
    }
    return plain({"success": True, "data": body})


def set_trouble(delivery: Delivery) -> Response:
    """Put other trouble or rules in force: {trouble?: the members of `Trouble`, rules?: those of `Rules`}; {} changes nothing."""
    body = sent_object()
    _allow(body, {"trouble", "rules"})
    fresh = read(Trouble, body["trouble"]) if "trouble" in body else delivery.trouble
    rules = read(Rules, body["rules"]) if "rules" in body else delivery.rules
    delivery.rules = rules
    if fresh is not delivery.trouble:
        delivery.trouble = fresh
    return plain({"success": True, "data": {"trouble": asdict(fresh), "rules": asdict(rules)}})


def meddle(delivery: Delivery, subscriptions: Subscriptions) -> Response:
    """Ban, delete, switch or redirect a webhook: {id?, ban_s?, delete?, is_active?, subscription_url?}; without an id, all.

    `ban_s` null bans as long as Pipedrive does, 0 ends a ban.
    """
    body = sent_object()
    _allow(body, {"id", "ban_s", "delete", "is_active", "subscription_url"})
    if "id" in body and body["id"] not in list(subscriptions.by_id):
        raise answers.not_found()
    ban_s = None if body.get("ban_s") is None else number(body["ban_s"], "ban_s")
    meant: list[int] = [body["id"]] if "id" in body else list(subscriptions.by_id)
    for webhook_id in meant:
        if "ban_s" in body:
            delivery.ban(webhook_id, ban_s)
        _meddle(subscriptions, webhook_id, body)
    return plain({"success": True, "data": {"ids": meant}})


def _allow(body: dict[str, Any], known: set[str]) -> None:
    if set(body) - known:
        raise ValueError(f"{min(set(body) - known)}: unknown parameter")


def _meddle(subscriptions: Subscriptions, webhook_id: int, body: dict[str, Any]) -> None:
    if body.get("delete"):
        subscriptions.by_id.pop(webhook_id, None)
        return
    changed: dict[str, Any] = {}
    if "is_active" in body:
        changed["is_active"] = int(bool(body["is_active"]))
    if "subscription_url" in body:
        changed["subscription_url"] = str(body["subscription_url"])
    subscriptions.by_id.get(webhook_id, {}).update(changed)


def _stands(delivery: Delivery, subscription: dict[str, Any]) -> dict[str, Any]:
    standing = delivery.standing(subscription["id"])
    return {
        "id": subscription["id"],
        "name": subscription["name"],
        "is_active": subscription["is_active"],
        "failures": standing.failures,
        "banned_until": _moment(standing.banned_until),
        "failing_since": _moment(standing.failing_since),
        "last_http_status": subscription["last_http_status"],
        "last_delivery_time": subscription["last_delivery_time"],
    }


def _moment(moment: float | None) -> str | None:
    return None if moment is None else milliseconds(moment)
