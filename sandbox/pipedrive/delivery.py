"""Delivery of webhooks: each event is sent to every subscription for its kind, by the rules of Pipedrive.

A failed first attempt is retried three times, then the event is lost; ten of them ban the webhook for half an hour, three
days without success delete it (`webhooks.SubscriptionHealth`). Several threads send, so order is not promised, as in reality;
with `schedule.threads` 0 nothing is sent until `run_due`. `Trouble` disturbs a share of the deliveries on purpose. Source:
docs page guide-for-webhooks-v2.
"""

from __future__ import annotations

import logging
import random
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import requests

from sandbox.app import require_number
from sandbox.company import Company, Event
from sandbox.company.records import encode
from sandbox.pipedrive.answers import milliseconds
from sandbox.pipedrive.payload import OWNER_ONLY, legacy_payload, payload, permitted_users
from sandbox.pipedrive.schedule import DeliverySchedule
from sandbox.pipedrive.webhooks import DeliveryRules, SubscriptionHealth

logger = logging.getLogger(__name__)
_THREADS = 4
_USER_AGENT = "Pipedrive-Webhook"
_REPEATED_WITHIN_S = 10.0
_LAST_ATTEMPT = 4
_OUTCOMES = (
    "events", "sent", "refused", "retried", "given_up", "lost_on_purpose", "duplicated", "delayed", "legacy", "astray",
    "dropped_by_ban", "dropped_by_switch", "dropped_by_deletion", "webhooks_deleted",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Shares between 0 and 1 of all deliveries with a disturbance. Raises: ValueError for anything else.

    `lost` is never sent. `duplicated` arrives a second time within ten seconds, with the same meta.id. `delayed` is sent up
    to `delay_s` later, which also changes the order. `legacy` has the shape of version 1.0. `astray` starts with the second
    to fourth attempt, as if the earlier ones had been lost.
    """

    seed: int | str = 1
    lost: float = 0.0
    duplicated: float = 0.0
    delayed: float = 0.0
    delay_s: float = 60.0
    legacy: float = 0.0
    astray: float = 0.0

    def __post_init__(self) -> None:
        for share in ("lost", "duplicated", "delayed", "legacy", "astray"):
            if not 0 <= require_number(getattr(self, share), share) <= 1:
                raise ValueError(f"{share}: must be between 0 and 1")
        if require_number(self.delay_s, "delay_s") < 0:
            raise ValueError("delay_s: must not be negative")
        if not isinstance(self.seed, int | str):
            raise ValueError("seed: must be a number or a text")  # noqa: TRY004 (one error for all that is wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disruption:
    """What happens to one delivery; `repeated_after_s` None: it is not repeated."""

    lost: bool
    delay_s: float
    repeated_after_s: float | None
    legacy: bool
    attempt: int


class Disruptions:
    """Random disruptions, the same for the same seed. The caller holds a lock.

    Five numbers are drawn for each delivery whatever the shares are, so a change of one share does not change the others.
    """

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        self._random = random.Random(trouble.seed)

    def draw(self) -> Disruption:
        """Draw what happens to the next delivery."""
        trouble = self.trouble
        lost, duplicated, delayed, legacy, astray = (self._random.random() for _ in range(5))
        return Disruption(
            lost=lost < trouble.lost,
            delay_s=delayed / trouble.delayed * trouble.delay_s if delayed < trouble.delayed else 0.0,
            repeated_after_s=duplicated / trouble.duplicated * _REPEATED_WITHIN_S
            if duplicated < trouble.duplicated
            else None,
            legacy=legacy < trouble.legacy,
            attempt=2 + int(astray / trouble.astray * (_LAST_ATTEMPT - 1)) if astray < trouble.astray else 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt to send one event to one webhook. The outcome of a `repeat`, a second copy, has no consequences."""

    event: Event
    webhook_id: int
    number: int
    legacy: bool
    repeat: bool = False


class WebhookDelivery:
    """Sends events to subscribers; every public method may be called from any thread."""

    def __init__(self, company: Company, subscriptions: dict[int, dict[str, Any]], session: requests.Session) -> None:
        self.rules = DeliveryRules()
        self.schedule = DeliverySchedule(company.clock, threads=_THREADS)
        self.counts: Counter[str] = Counter(dict.fromkeys(_OUTCOMES, 0))
        self.waiting = 0  # attempts that are still to be made
        self._company = company
        self._subscriptions = subscriptions
        self._session = session
        self._health: dict[int, SubscriptionHealth] = {}
        self._disruptions = Disruptions(Trouble())
        self._lock = threading.RLock()

    @property
    def trouble(self) -> Trouble:
        """The disturbances; setting them restarts the random numbers."""
        return self._disruptions.trouble

    @trouble.setter
    def trouble(self, trouble: Trouble) -> None:
        with self._lock:
            self._disruptions = Disruptions(trouble)

    def take(self, event: Event) -> None:
        """Schedule an event for every subscription to its kind."""
        for subscription in list(self._subscriptions.values()):
            if _matches(subscription, event) and self._may_see(subscription, event):
                with self._lock:
                    self._accept(event, subscription["id"])

    def run_due(self) -> int:
        """Deliver everything that is due by the company's clock, in this thread; return how many requests that took."""
        return self.schedule.run_due()

    def drain(self) -> None:
        """Wait until everything that is due has been tried; do not wait for later retries."""
        self.schedule.wait_until_idle()

    def health(self, webhook_id: int) -> SubscriptionHealth:
        """Return the health of a webhook now."""
        with self._lock:
            health = self._health.setdefault(webhook_id, SubscriptionHealth())
            health.end_ban(self._company.clock())
            return health

    def ban(self, webhook_id: int, seconds: float | None = None) -> None:
        """Ban a webhook now, for the time of the rules or for so many seconds; 0 ends a ban."""
        with self._lock:
            span = self.rules.ban_s if seconds is None else seconds
            self.health(webhook_id).ban(self._company.clock() + span)

    def _may_see(self, subscription: dict[str, Any], event: Event) -> bool:
        record = event.after or event.before or {}
        return record.get("visible_to") != OWNER_ONLY or subscription.get("user_id") in permitted_users(
            self._company, event
        )

    def _accept(self, event: Event, webhook_id: int) -> None:
        """Schedule the first attempt, with its disruption. The caller holds the lock."""
        now, disruption = self._company.clock(), self._disruptions.draw()
        self.counts["events"] += 1
        if self.health(webhook_id).banned_until is not None:
            self.counts["dropped_by_ban"] += 1
            return
        if disruption.lost:
            self.counts["lost_on_purpose"] += 1
            return
        self.counts["delayed"] += disruption.delay_s > 0
        self.counts["legacy"] += disruption.legacy
        self.counts["astray"] += disruption.attempt > 1
        due = now + disruption.delay_s + sum(self.rules.retry_after_s[: disruption.attempt - 1])
        attempt = Attempt(event=event, webhook_id=webhook_id, number=disruption.attempt, legacy=disruption.legacy)
        self._add(due, attempt)
        if disruption.repeated_after_s is not None:
            self.counts["duplicated"] += 1
            self._add(due + disruption.repeated_after_s, replace(attempt, repeat=True))

    def _add(self, due: float, attempt: Attempt) -> None:
        """Schedule one attempt. The caller holds the lock."""
        self.waiting += 1
        self.schedule.add(due, attempt.webhook_id, partial(self._try, attempt))

    def _try(self, attempt: Attempt) -> None:
        """Make one attempt, unless the webhook is deleted, switched off or banned by now."""
        subscription = self._subscriptions.get(attempt.webhook_id)
        with self._lock:
            self.waiting -= 1
            obstacle = self._obstacle(subscription, attempt)
            if subscription is None or obstacle:
                self.counts[obstacle] += 1
                return
            self.counts["retried"] += attempt.number > 1 and not attempt.repeat
        status = self._send(subscription, attempt)
        with self._lock:
            self._record(subscription, attempt, status)

    def _obstacle(self, subscription: dict[str, Any] | None, attempt: Attempt) -> str:
        if subscription is None:
            return "dropped_by_deletion"
        if not subscription["is_active"]:
            return "dropped_by_switch"
        return "dropped_by_ban" if self.health(attempt.webhook_id).banned_until is not None else ""

    def _send(self, subscription: dict[str, Any], attempt: Attempt) -> int | None:
        """Send one request; the status, or None where there was no answer in time."""
        user, password = subscription["http_auth_user"], subscription["http_auth_password"]
        try:
            answer = self._session.post(
                subscription["subscription_url"],
                data=encode(self._payload(subscription, attempt)),
                headers={"Content-Type": "application/json", "User-Agent": _USER_AGENT},
                auth=(user, password or "") if user else None,
                timeout=self.rules.timeout_s,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            logger.info("webhook %s was not delivered: %s", subscription["id"], type(error).__name__)
            return None
        return answer.status_code

    def _payload(self, subscription: dict[str, Any], attempt: Attempt) -> dict[str, Any]:
        if attempt.legacy or subscription["version"] == "1.0":
            return legacy_payload(self._company, attempt.event, subscription, attempt=attempt.number)
        body = payload(self._company, attempt.event, subscription, attempt=attempt.number)
        if attempt.number > 1 and not self.rules.stable_id:
            body["meta"]["id"] = str(uuid.uuid5(uuid.UUID(body["meta"]["id"]), str(attempt.number)))
        return body

    def _record(self, subscription: dict[str, Any], attempt: Attempt, status: int | None) -> None:
        """Record the outcome of an attempt. The caller holds the lock."""
        now, health = self._company.clock(), self.health(attempt.webhook_id)
        subscription["last_http_status"] = status
        if status is not None and 200 <= status < 300:
            self.counts["sent"] += 1
            subscription["last_delivery_time"] = milliseconds(now)
            health.succeed(self.rules)
            return
        self.counts["refused"] += 1
        if attempt.repeat:
            return
        if health.fail(now, self.rules, first=attempt.number == 1):
            self.schedule.add(
                now + self.rules.delete_after_s,
                attempt.webhook_id,
                partial(self._delete_if_failing, attempt.webhook_id),
            )
        if attempt.number > len(self.rules.retry_after_s):
            self.counts["given_up"] += 1
        else:
            due = now + self.rules.retry_after_s[attempt.number - 1]
            self._add(due, replace(attempt, number=attempt.number + 1))

    def _delete_if_failing(self, webhook_id: int) -> None:
        """Delete a webhook that has only failed for days."""
        with self._lock:
            if self.health(webhook_id).has_failed_too_long(self._company.clock(), self.rules):
                self.counts["webhooks_deleted"] += self._subscriptions.pop(webhook_id, None) is not None


def _matches(subscription: dict[str, Any], event: Event) -> bool:
    """Return whether a subscription is for events of this kind."""
    return (
        bool(subscription["is_active"])
        and subscription["event_object"] in {"*", event.entity}
        and subscription["event_action"] in {"*", event.action}
    )
