"""Pipedrive's webhooks: create them, recreate unhealthy ones, and identify duplicates.

An unhealthy subscription is first marked, then recreated, then reported as recreated, each in its own transaction: after a
crash in between, the next check continues.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func
from sqlalchemy.orm import Session

from db import connector as connectors
from db import delivery as deliveries
from db import failure as failures
from db import failure_closing
from db import sync_event as events
from db import webhook as subscriptions
from db.connector import credentials_of, keep_credential, lock_connector
from db.schedule import request_catch_up
from db.session import transaction
from db.webhook import Subscription
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity, Outcome
from pipeline.errors import ConfigurationError, Rejected, Skip
from pipeline.settings import settings
from pipeline.sync.event_recorder import Level, record
from pipeline.telemetry import logger
from pipeline.transform.subscriptions import (
    ACTIVE,
    Address,
    SubscriptionState,
    find_subscription,
    is_ours,
    strays,
    subscription,
)
from pipeline.transform.webhooks import decode_head
from pipeline.vault import Vault
from pipeline.wiring import Wired

TOKEN_BYTES = 24
"""192 bits each: the path, the user and the password cannot be guessed."""
SECRET_NAMES = ("webhook_path", "webhook_user", "webhook_password")
TASK: Final = "ensure_webhooks"
SUBJECT: Final = failures.control_subject(TASK)
REST_S = 3600.0
"""After Pipedrive refused a subscription, the next attempt follows after this time: only a person can change the cause."""
MARGIN = timedelta(minutes=5)
"""A delivery is tried for three minutes; one that began to fail before a check may have ended after it."""

REASONS: Final = {
    "missing": "webhook_missing",
    "paused": "webhook_paused",
    "failing": "webhook_failing",
    "moved": "webhook_moved",
}


def delivery_key(payload: object, body: bytes) -> str:
    """Return what all deliveries of one event share: the event's id, or a digest of a body without one."""
    try:
        event_id = decode_head(payload).event_id
    except (Rejected, Skip):
        return hashlib.blake2b(body, digest_size=16).hexdigest()
    return clean_key(event_id)


def clean_key(given: str) -> str:
    """Return the key itself if a database and a log line can hold it, else a digest of it."""
    if given.isascii() and given.isprintable() and 0 < len(given) <= 255:
        return given
    return hashlib.blake2b(given.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnhealthySubscription:
    """A subscription to recreate, and since when changes may be missing."""

    entity: Entity
    finding: SubscriptionState
    state: str
    since: datetime | None

    @property
    def is_silent(self) -> bool:
        """Whether it looks healthy, but did not send every change."""
        return self.state == "silent" and self.finding.state == ACTIVE

    @property
    def must_be_made(self) -> bool:
        """False if an earlier check recreated it and ended before it reported that."""
        return self.is_silent or self.finding.state != ACTIVE


def ensure_webhooks(connector_key: int) -> list[str]:
    """Check that Pipedrive sends changes of Persons and Organizations; return the entities that were newly subscribed.

    Costs 10 tokens, and 10 for each subscription created. Safe to call again at any time; two concurrent calls may
    create one too many, which the next check deletes.
    Raises: Rejected if Pipedrive cannot reach PUBLIC_URL, has 40 subscriptions already or forbids them to this user;
    ConfigurationError; Retryable.
    """
    wired, address = _open(connector_key)
    try:
        present = wired.pipedrive.webhooks()
        found = {entity: find_subscription(present, entity, address) for entity in Entity}
        unhealthy = _note_findings(connector_key, found)
        _drop(wired, strays(present, address))
        for entity in Entity:
            _drop(wired, found[entity].stale)
        for each in unhealthy:
            _recreate(wired, address, each)
    except ConfigurationError as error:
        if error.reason == "forbidden":  # nothing but webhooks needs an administrator
            raise Rejected("webhooks_forbidden", error.detail) from None
        raise
    with transaction() as session:
        failure_closing.close_subject(session, connector_key, SUBJECT)
    return [str(each.entity) for each in unhealthy if each.must_be_made]


def remove_webhooks(connector_key: int) -> int:
    """Delete our subscriptions in Pipedrive; return how many there were. Without any, make no call.

    Raises: any error of Pipedrive; deliveries of the rest fail, and Pipedrive deletes them after three days.
    """
    with transaction() as session:
        if not credentials_of(session, connector_key).keys() >= set(SECRET_NAMES):
            return 0
    wired, address = _open(connector_key)
    ours = [int(row["id"]) for row in wired.pipedrive.webhooks() if is_ours(row, address)]
    _drop(wired, ours)
    return len(ours)


def _open(connector_key: int) -> tuple[Wired, Address]:
    with transaction() as session:
        keys = _keys(session, connector_key)
        wired = wiring.open_connector(session, connector_key)
    return wired, Address(
        connector_id=wired.id,
        base=f"{settings().arrival_url}/webhooks/pipedrive/{wired.id}/",
        path_token=keys["webhook_path"],
        user=keys["webhook_user"],
        password=keys["webhook_password"],
    )


def _keys(session: Session, connector_key: int) -> dict[str, str]:
    """Return the connector's webhook secrets; all three are created and sealed if one is missing."""
    lock_connector(session, connector_key)
    known = wiring.open_secrets(session, connector_key)
    if not all(name in known for name in SECRET_NAMES):
        vault = Vault(settings().secret_keys)
        known = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in SECRET_NAMES}
        for name, secret in known.items():
            keep_credential(session, connector_key, name, vault.seal(connector_key, name, secret))
    return {name: known[name] for name in SECRET_NAMES}


def _note_findings(connector_key: int, found: dict[Entity, SubscriptionState]) -> list[UnhealthySubscription]:
    """Store the state of each subscription; return those that must be recreated, or were recreated and never reported."""
    unhealthy = []
    with transaction() as session:
        for entity, finding in found.items():
            row = subscriptions.hold_subscription(session, connector_key, entity)
            row.webhook_id, row.last_status, row.checked_at = finding.webhook_id, finding.last_status, func.now()
            was_healthy = row.state == ACTIVE
            if finding.state != ACTIVE:
                row.state = finding.state
                if was_healthy:
                    _record(
                        session, row, Outcome.ERROR, REASONS[finding.state], f"webhook {finding.webhook_id or 'gone'}"
                    )
            if row.state == ACTIVE or (finding.state == ACTIVE and row.healthy_at is None):
                row.state, row.healthy_at = ACTIVE, func.now()
            else:
                unhealthy.append(
                    UnhealthySubscription(entity=entity, finding=finding, state=row.state, since=row.healthy_at)
                )
    return unhealthy


def _recreate(wired: Wired, address: Address, unhealthy: UnhealthySubscription) -> None:
    """Recreate one subscription, then report it and fetch the changes it may have missed."""
    made_id = unhealthy.finding.webhook_id
    if unhealthy.must_be_made:
        if unhealthy.is_silent and made_id is not None:
            _drop(wired, [made_id])
        made_id = int(wired.pipedrive.create_webhook(subscription(unhealthy.entity, address))["id"])
    with transaction() as session:
        row = subscriptions.hold_subscription(session, wired.key, unhealthy.entity)
        if unhealthy.is_silent:
            _record(session, row, Outcome.ERROR, "webhook_silent", f"webhook {unhealthy.finding.webhook_id}")
        row.webhook_id, row.state, row.last_status, row.healthy_at = made_id, ACTIVE, None, func.now()
        if unhealthy.since is None:
            logger().info("pipedrive.webhooks.registered", connector_id=wired.id, type=unhealthy.entity.hull)
            return
        row.recreated += 1
        since = max(unhealthy.since - MARGIN, connectors.get_connector(session, wired.key).created_at)
        _record(
            session,
            row,
            Outcome.SUCCESS,
            "webhook_recreated",
            f"webhook {made_id}; in doubt since {since:%Y-%m-%d %H:%M:%S} UTC",
        )
        request_catch_up(session, wired.key)


def _drop(wired: Wired, webhook_ids: Iterable[int]) -> None:
    """Delete our subscription; one that is already deleted is fine."""
    for webhook_id in webhook_ids:
        try:
            wired.pipedrive.delete_webhook(webhook_id)
        except Rejected as refused:
            logger().warning("pipedrive.webhooks.stale", connector_id=wired.id, reason=refused.reason)


def _record(session: Session, row: subscriptions.Subscription, outcome: Outcome, reason: str, detail: str) -> None:
    name = f"{Direction.INCOMING}.job.{outcome}"
    event = events.NewEvent(
        connector_key=row.connector_key, event=name, entity=row.entity, cause="webhook", reason=reason, detail=detail
    )
    level: Level = "error" if outcome is Outcome.ERROR else "info"
    record(session, [event], level=level, type=Entity(row.entity).hull, detail=detail)


NOT_SUBSCRIBED: Final = "Pipedrive does not send webhooks yet: changes arrive with the next fetch only."
WORDS: Final = {
    "missing": "is gone",
    "paused": "is paused by Pipedrive",
    "failing": "does not get through",
    "moved": "points elsewhere",
    "silent": "is silent, though records changed",
}
"""State of an unhealthy subscription → its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookHealth:
    """`sentence` describes the health of the webhooks and what happens next; `is_well` if nothing must be done."""

    is_well: bool
    sentence: str


def subscription_health(session: Session, connector_key: int) -> WebhookHealth:
    """Return the health of a connector's webhooks as of the last check and the last delivery."""
    rows = subscriptions.subscriptions_of(session, connector_key)
    if "webhook_path" not in connectors.credentials_of(session, connector_key) or any(
        row.healthy_at is None for row in rows
    ):
        return WebhookHealth(is_well=False, sentence=NOT_SUBSCRIBED)
    if not rows:
        return WebhookHealth(is_well=True, sentence="Webhooks were not checked yet.")
    unhealthy = [_sentence(row) for row in rows if row.state != ACTIVE]
    if unhealthy:
        return WebhookHealth(is_well=False, sentence=" ".join(unhealthy))
    received_at = deliveries.last_delivery(session, connector_key, "pipedrive")
    last = f"last received at {received_at:%Y-%m-%d %H:%M:%S} UTC" if received_at else "none received yet"
    return WebhookHealth(is_well=True, sentence=f"Webhooks are healthy; {last}.")


def _sentence(row: Subscription) -> str:
    since = f"{row.healthy_at:%Y-%m-%d %H:%M:%S} UTC"
    plural = Entity(row.entity).plural.capitalize()
    return f"The webhook for {plural} {WORDS[row.state]}: it is being recreated, and what changed since {since} is then fetched."
