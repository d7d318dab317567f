"""Pipedrive's webhooks: that it sends them to us, and what makes a repeated one the same.

A subscription is ours when its address holds the path token that only this connector has, or lies below the address that
PUBLIC_URL gives this connector. All others belong to somebody else and are never touched.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from sqlalchemy.orm import Session

from db.connector import Connector, keep_credential
from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected, Skip
from pipeline.settings import settings
from pipeline.telemetry import logger
from pipeline.transform.webhooks import decode_head
from pipeline.vault import Vault
from pipeline.wiring import Wired

TOKEN_BYTES = 24
"""192 bits each: nobody guesses the path, the user or the password."""

SECRET_NAMES = ("webhook_path", "webhook_user", "webhook_password")


def delivery_key(payload: object, body: bytes) -> str:
    """What all deliveries of one event share: the event's id, or a digest of a body that names none."""
    try:
        event_id = decode_head(payload).event_id
    except (Rejected, Skip):
        return hashlib.blake2b(body, digest_size=16).hexdigest()
    return clean_key(event_id)


def clean_key(given: str) -> str:
    """The key itself when a database and a log line can hold it, else a digest of it."""
    if given.isascii() and given.isprintable() and 0 < len(given) <= 255:
        return given
    return hashlib.blake2b(given.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def ensure_webhooks(connector_key: int) -> list[str]:
    """See that Pipedrive tells us of Persons and Organizations; returns the entities it was newly asked for.

    Costs 10 tokens, and 10 for each subscription made. Safe to call again at any time: a subscription that failed for
    three days is deleted by Pipedrive without a word.
    Raises: Rejected when Pipedrive cannot reach PUBLIC_URL or holds 40 subscriptions already; ConfigurationError;
    Retryable.
    """
    with transaction() as session:
        keys = _keys(session, connector_key)
        wired = wiring.open_connector(session, connector_key)
    url = webhook_url(wired.id, keys["webhook_path"])
    present = wired.pipedrive.webhooks()
    missing = [entity for entity in Entity if not any(_serves(row, entity, url, keys) for row in present)]
    for entity in missing:
        wired.pipedrive.create_webhook(_subscription(entity, wired.id, url, keys))
    _drop_stale(wired, url, keys, present)
    if missing:
        logger().info("pipedrive.webhooks.registered", connector_id=wired.id, entities=[str(each) for each in missing])
    return [str(entity) for entity in missing]


def webhook_url(connector_id: str, path_token: str) -> str:
    """Where Pipedrive is to send the webhooks of this connector."""
    return f"{_address(connector_id)}{path_token}"


def _address(connector_id: str) -> str:
    return f"{settings().public_url}/webhooks/pipedrive/{connector_id}/"


def _keys(session: Session, connector_key: int) -> dict[str, str]:
    """The connector's webhook secrets, made and sealed now where they are missing: all three, or none is of use."""
    session.get_one(Connector, connector_key, with_for_update=True)
    known = wiring.open_secrets(session, connector_key, settings())
    if not all(name in known for name in SECRET_NAMES):
        vault = Vault(settings().secret_keys)
        known = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in SECRET_NAMES}
        for name, secret in known.items():
            keep_credential(session, connector_key, name, vault.seal(connector_key, name, secret))
    return {name: known[name] for name in SECRET_NAMES}


def _subscription(entity: Entity, connector_id: str, url: str, keys: dict[str, str]) -> dict[str, str]:
    """Source: https://developers.pipedrive.com/docs/api/v1/Webhooks#addWebhook"""
    return {
        "subscription_url": url,
        "event_action": "*",
        "event_object": entity.value,
        "name": f"Hull {entity.plural} ({connector_id})",
        "version": "2.0",
        "http_auth_user": keys["webhook_user"],
        "http_auth_password": keys["webhook_password"],
    }


def _serves(row: dict[str, Any], entity: Entity, url: str, keys: dict[str, str]) -> bool:
    """Whether this subscription already does what we would ask for. Pipedrive may leave the credentials out."""
    return (
        row.get("subscription_url") == url
        and row.get("event_object") == entity.value
        and row.get("event_action") == "*"
        and row.get("version") == "2.0"
        and bool(row.get("is_active", 1))
        and row.get("http_auth_user") in (None, keys["webhook_user"])
        and row.get("http_auth_password") in (None, keys["webhook_password"])
    )


def _drop_stale(wired: Wired, url: str, keys: dict[str, str], present: list[dict[str, Any]]) -> None:
    """Take away those of ours that point elsewhere or ask for something else."""
    for row in present:
        address = str(row.get("subscription_url"))
        is_ours = address.startswith(_address(wired.id)) or address.endswith("/" + keys["webhook_path"])
        if is_ours and not any(_serves(row, entity, url, keys) for entity in Entity):
            try:
                wired.pipedrive.delete_webhook(row["id"])
            except Rejected as refused:
                logger().warning("pipedrive.webhooks.stale", connector_id=wired.id, reason=refused.reason)
