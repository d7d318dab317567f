"""Orders to the sandbox's Hull: notify this URL, show what was notified, misbehave like this. All under /__sandbox__."""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import urljoin

import orjson
from flask import Blueprint, Response, current_app, request

from sandbox.hull.notify.notifier import Notifier
from sandbox.hull.web.answers import answer, refusal, sent_object, the_state
from sandbox.hull.web.faults import Faults

orders = Blueprint("orders", __name__, url_prefix="/__sandbox__")


@orders.post("/notify_url")
def set_notify_url() -> Response:
    """{"url", "notify_on_firehose"?}: from now on changes are told to this URL; {"url": null} ends it."""
    given = sent_object() or {}
    url = given.get("url")
    if url is None:
        the_notifier().target = None
    elif isinstance(url, str):
        notify_at(url)
    else:
        return refusal(400, "url is text or null")
    the_state().notify_on_firehose = given.get("notify_on_firehose") is True
    return answer({"url": url})


@orders.get("/notifications")
def get_notifications() -> Response:
    """{"waiting": messages not sent yet, "exchanges": [{"at", "url", "request", "status", "response"}], oldest first}"""
    notifier = the_notifier()
    return answer({"waiting": notifier.waiting(), "exchanges": list(notifier.exchanges)})


@orders.route("/public-key", methods=["GET", "POST"])
def get_public_key() -> Response:
    """The PEM a notification's signature is verified with; validators POST, people GET."""
    return Response(the_notifier().signer.public_pem(), mimetype="application/x-pem-file")


@orders.get("/faults")
def get_faults() -> Response:
    return answer(the_faults().listed())


@orders.post("/faults")
def set_faults() -> Response:
    """A list of rules (see web/faults), replacing those in force; [] ends all."""
    try:
        the_faults().replace(orjson.loads(request.get_data()))
    except (ValueError, TypeError, re.error) as error:
        return refusal(400, str(error))
    return answer(the_faults().listed())


def the_notifier() -> Notifier:
    return cast("Notifier", current_app.extensions["hull_notifier"])


def the_faults() -> Faults:
    return cast("Faults", current_app.extensions["hull_faults"])


def notify_at(url: str) -> None:
    the_notifier().register(url, f"{request.host_url}__sandbox__/public-key")
    the_notifier().start()


def subscription_url(connector: dict[str, Any]) -> str | None:
    """Where an installed connector wants its notifications: its subscription's path, on the host of its manifest."""
    base = connector.get("source_url") or connector.get("manifest_url")
    subscriptions = connector.get("manifest", {}).get("subscriptions") or [{}]
    return urljoin(base, subscriptions[0].get("url", "/smart-notifier")) if base else None
