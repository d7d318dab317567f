"""Deliver webhooks: each event to every subscription that asked for its like, by the rules of Pipedrive.

In: events of the company. Out: requests to subscribers; `last_delivery_time` and `last_http_status` on the subscription; counts.
A failed first attempt is retried three times, then the event is lost; ten of them ban the webhook for half an hour, three days
without success delete it (`sending.standing`). Several threads send, so order is not promised, as in reality; with
`timetable.threads` 0 nothing is sent until `run_due`. Source: docs page guide-for-webhooks-v2.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import requests

from sandbox.company import Company, Event
from sandbox.company.records import encode
from sandbox.pipedrive.payload import OWNER_ONLY, payload, permitted_users
from sandbox.pipedrive.sending.legacy import legacy_payload
from sandbox.pipedrive.sending.standing import Rules, Standing
from sandbox.pipedrive.sending.timetable import Timetable
from sandbox.pipedrive.sending.trouble import Fates, Trouble
from sandbox.pipedrive.webhooks import milliseconds

logger = logging.getLogger(__name__)

THREADS = 4
USER_AGENT = "Pipedrive-Webhook"
OUTCOMES = (
    "events", "sent", "refused", "retried", "given_up", "lost_on_purpose", "duplicated", "delayed", "legacy", "astray",
    "dropped_by_ban", "dropped_by_switch", "dropped_by_deletion", "webhooks_deleted",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One event on its way to one webhook. `repeat` is a second copy, of which nobody takes note."""

    event: Event
    webhook_id: int
    attempt: int
    legacy: bool
    repeat: bool = False


class Delivery:
    """Sends events on their way; every public method may be called from any thread."""

    def __init__(self, company: Company, subscriptions: dict[int, dict[str, Any]], session: requests.Session) -> None:
        self.rules = Rules()
        self.timetable = Timetable(company.clock, threads=THREADS)
        self.counts: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.waiting = 0  # attempts that are still to be made
        self._company = company
        self._subscriptions = subscriptions
        self._session = session
        self._standings: dict[int, Standing] = {}
        self._fates = Fates(Trouble())
        self._lock = threading.RLock()

    @property
    def trouble(self) -> Trouble:
        """What goes wrong on the way; setting it begins its draws anew."""
        return self._fates.trouble

    @trouble.setter
    def trouble(self, trouble: Trouble) -> None:
        with self._lock:
            self._fates = Fates(trouble)

    def take(self, event: Event) -> None:
        """Put an event on its way to every subscription that asked for its like."""
        for subscription in list(self._subscriptions.values()):
            if matches(subscription, event) and self._may_see(subscription, event):
                with self._lock:
                    self._accept(event, subscription["id"])

    def run_due(self) -> int:
        """Deliver everything that is due by the company's clock, in this thread; tells how many requests that took."""
        return self.timetable.run_due()

    def drain(self) -> None:
        """Wait until everything that is due has been tried; a retry that lies ahead is not waited for."""
        self.timetable.settle()

    def standing(self, webhook_id: int) -> Standing:
        """Find how a webhook stands now."""
        with self._lock:
            standing = self._standings.setdefault(webhook_id, Standing())
            standing.end_ban(self._company.clock())
            return standing

    def ban(self, webhook_id: int, seconds: float | None = None) -> None:
        """Ban a webhook now, as long as the rules say or as many seconds; 0 ends a ban."""
        with self._lock:
            span = self.rules.ban_s if seconds is None else seconds
            self.standing(webhook_id).ban(self._company.clock() + span)

    def _may_see(self, subscription: dict[str, Any], event: Event) -> bool:
        record = event.after or event.before or {}
        return record.get("visible_to") != OWNER_ONLY or subscription.get("user_id") in permitted_users(
            self._company, event
        )

    def _accept(self, event: Event, webhook_id: int) -> None:
        """Decide about one letter and put it into the timetable. The caller holds the lock."""
        now, fate = self._company.clock(), self._fates.draw()
        self.counts["events"] += 1
        if self.standing(webhook_id).banned_until is not None:
            self.counts["dropped_by_ban"] += 1
            return
        if fate.lost:
            self.counts["lost_on_purpose"] += 1
            return
        self.counts["delayed"] += fate.delay_s > 0
        self.counts["legacy"] += fate.legacy
        self.counts["astray"] += fate.attempt > 1
        due = now + fate.delay_s + sum(self.rules.retry_after_s[: fate.attempt - 1])
        letter = Letter(event=event, webhook_id=webhook_id, attempt=fate.attempt, legacy=fate.legacy)
        self._schedule(due, letter)
        if fate.repeated_after_s is not None:
            self.counts["duplicated"] += 1
            self._schedule(due + fate.repeated_after_s, replace(letter, repeat=True))

    def _schedule(self, due: float, letter: Letter) -> None:
        """Plan one attempt. The caller holds the lock."""
        self.waiting += 1
        self.timetable.add(due, letter.webhook_id, partial(self._try, letter))

    def _try(self, letter: Letter) -> None:
        """Make one attempt, unless the webhook is gone, switched off or banned by now."""
        subscription = self._subscriptions.get(letter.webhook_id)
        with self._lock:
            self.waiting -= 1
            hindrance = self._hindrance(subscription, letter)
            if subscription is None or hindrance:
                self.counts[hindrance] += 1
                return
            self.counts["retried"] += letter.attempt > 1 and not letter.repeat
        status = self._send(subscription, letter)
        with self._lock:
            self._note(subscription, letter, status)

    def _hindrance(self, subscription: dict[str, Any] | None, letter: Letter) -> str:
        if subscription is None:
            return "dropped_by_deletion"
        if not subscription["is_active"]:
            return "dropped_by_switch"
        return "dropped_by_ban" if self.standing(letter.webhook_id).banned_until is not None else ""

    def _send(self, subscription: dict[str, Any], letter: Letter) -> int | None:
        """Send one request; the status, or None where there was no answer in time."""
        user, password = subscription["http_auth_user"], subscription["http_auth_password"]
        try:
            answer = self._session.post(
                subscription["subscription_url"],
                data=encode(self._written(subscription, letter)),
                headers={"Content-Type": "application/json", "User-Agent": USER_AGENT},
                auth=(user, password or "") if user else None,
                timeout=self.rules.timeout_s,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            logger.info("webhook %s was not delivered: %s", subscription["id"], type(error).__name__)
            return None
        return answer.status_code

    def _written(self, subscription: dict[str, Any], letter: Letter) -> dict[str, Any]:
        if letter.legacy or subscription["version"] == "1.0":
            return legacy_payload(self._company, letter.event, subscription, attempt=letter.attempt)
        body = payload(self._company, letter.event, subscription, attempt=letter.attempt)
        if letter.attempt > 1 and not self.rules.stable_id:
            body["meta"]["id"] = str(uuid.uuid5(uuid.UUID(body["meta"]["id"]), str(letter.attempt)))
        return body

    def _note(self, subscription: dict[str, Any], letter: Letter, status: int | None) -> None:
        """Draw the consequences of an attempt. The caller holds the lock."""
        now, standing = self._company.clock(), self.standing(letter.webhook_id)
        subscription["last_http_status"] = status
        if status is not None and 200 <= status < 300:
            self.counts["sent"] += 1
            subscription["last_delivery_time"] = milliseconds(now)
            standing.succeed(self.rules)
            return
        self.counts["refused"] += 1
        if letter.repeat:
            return
        if standing.fail(now, self.rules, first=letter.attempt == 1):
            self.timetable.add(
                now + self.rules.delete_after_s, letter.webhook_id, partial(self._review, letter.webhook_id)
            )
        if letter.attempt > len(self.rules.retry_after_s):
            self.counts["given_up"] += 1
        else:
            due = now + self.rules.retry_after_s[letter.attempt - 1]
            self._schedule(due, replace(letter, attempt=letter.attempt + 1))

    def _review(self, webhook_id: int) -> None:
        """Delete a webhook that has only failed for days."""
        with self._lock:
            if self.standing(webhook_id).is_hopeless(self._company.clock(), self.rules):
                self.counts["webhooks_deleted"] += self._subscriptions.pop(webhook_id, None) is not None


def matches(subscription: dict[str, Any], event: Event) -> bool:
    """Tell whether a subscription asked for events like this one."""
    return (
        bool(subscription["is_active"])
        and subscription["event_object"] in {"*", event.entity}
        and subscription["event_action"] in {"*", event.action}
    )
