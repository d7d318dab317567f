"""Deliver webhooks: one POST per matching subscription, from a thread of its own, in the order of the events.

In: events of the company. Out: requests to subscribers, and `last_delivery_time` and `last_http_status` on the subscription.
A delivery is tried once, for ten seconds; 2xx is success. Source: docs page guide-for-webhooks-v2.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

import orjson
import requests

from sandbox.company import Company, Event
from sandbox.pipedrive.payload import payload
from sandbox.pipedrive.webhooks import milliseconds

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
USER_AGENT = "Pipedrive-Webhook"


class Delivery:
    """A queue of events and the thread that empties it. The thread starts with the first subscription's first event."""

    def __init__(self, company: Company, subscriptions: dict[int, dict[str, Any]], session: requests.Session) -> None:
        self._company = company
        self._subscriptions = subscriptions
        self._session = session
        self._queue: queue.Queue[tuple[Event, dict[str, Any]]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def take(self, event: Event) -> None:
        """Queue an event for every subscription that asked for its like."""
        for subscription in list(self._subscriptions.values()):
            if matches(subscription, event):
                self._start()
                self._queue.put((event, subscription))

    def drain(self) -> None:
        """Wait until everything queued so far has been tried."""
        self._queue.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="webhook-delivery", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            event, subscription = self._queue.get()
            try:
                self._deliver(event, subscription)
            except Exception:
                logger.exception("webhook %s was not sent", subscription["id"])
            finally:
                self._queue.task_done()

    def _deliver(self, event: Event, subscription: dict[str, Any]) -> None:
        body = orjson.dumps(payload(self._company, event, subscription))
        user, password = subscription["http_auth_user"], subscription["http_auth_password"]
        try:
            answer = self._session.post(
                subscription["subscription_url"],
                data=body,
                headers={"Content-Type": "application/json", "User-Agent": USER_AGENT},
                auth=(user, password or "") if user else None,
                timeout=TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            logger.info("webhook %s was not delivered: %s", subscription["id"], type(error).__name__)
            subscription["last_http_status"] = None
            return
        subscription["last_http_status"] = answer.status_code
        if 200 <= answer.status_code < 300:
            subscription["last_delivery_time"] = milliseconds(event.moment)


def matches(subscription: dict[str, Any], event: Event) -> bool:
    """Tell whether a subscription asked for events like this one."""
    return (
        bool(subscription["is_active"])
        and subscription["event_object"] in {"*", event.entity}
        and subscription["event_action"] in {"*", event.action}
    )
