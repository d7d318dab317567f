"""The webhooks that we request from Pipedrive, and their state: a subscription may be missing, paused, failing or moved.

A subscription is ours if its address has the path token that only this connector has, or is below the address that
PUBLIC_URL gives this connector. All others belong to other programs and are never touched.
Source: https://developers.pipedrive.com/docs/api/v1/Webhooks and https://pipedrive.readme.io/docs/guide-for-webhooks-v2
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.kinds import Entity

Row = dict[str, Any]
"""A webhook as Pipedrive lists it."""

ACTIVE: Final = "active"
VERSION: Final = "2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the webhooks of one connector go, and how they authenticate; `base` ends with a slash."""

    connector_id: str
    base: str
    path_token: str = field(repr=False)
    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        return self.base + self.path_token


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionState:
    """The state of the subscription to one entity.

    state       `active`, `missing`, `paused`, `failing` or `moved`
    webhook_id  the one that works, or the one that should
    stale       ids of ours to delete: all but the one that works
    """

    state: str
    webhook_id: int | None
    last_status: int | None
    stale: tuple[int, ...]


def subscription(entity: Entity, address: Address) -> dict[str, str]:
    """Return the subscription to request: every action on every record of the entity."""
    return {
        "subscription_url": address.url,
        "event_action": "*",
        "event_object": entity.value,
        "name": f"Hull {entity.plural} ({address.connector_id})",
        "version": VERSION,
        "http_auth_user": address.user,
        "http_auth_password": address.password,
    }


def is_ours(row: Row, address: Address) -> bool:
    """Return whether this connector created the subscription."""
    url = str(row.get("subscription_url"))
    return url.startswith(address.base) or url.endswith("/" + address.path_token)


def find_subscription(rows: Iterable[Row], entity: Entity, address: Address) -> SubscriptionState:
    """Return the state of the subscription to one entity in Pipedrive's list."""
    ours = [row for row in rows if is_ours(row, address) and row.get("event_object") == entity.value]
    correct = [row for row in ours if _is_as_requested(row, address)]
    healthy = [row for row in correct if _is_active(row) and not _has_failed(row)]
    chosen = next(iter(healthy or correct or ours), None)
    if healthy:
        state = ACTIVE
    elif correct:
        state = "failing" if _is_active(correct[0]) else "paused"
    else:
        state = "moved" if ours else "missing"
    return SubscriptionState(
        state=state,
        webhook_id=None if chosen is None else int(chosen["id"]),
        last_status=None if chosen is None else _status(chosen),
        stale=tuple(int(row["id"]) for row in ours if not healthy or row is not chosen),
    )


def strays(rows: Iterable[Row], address: Address) -> tuple[int, ...]:
    """Return ids of our subscriptions to events that are not synchronized."""
    entities = {entity.value for entity in Entity}
    return tuple(int(row["id"]) for row in rows if is_ours(row, address) and row.get("event_object") not in entities)


def _is_as_requested(row: Row, address: Address) -> bool:
    """Return whether a subscription is as requested. The password is not compared: Pipedrive may hide it."""
    return (
        row.get("subscription_url") == address.url
        and row.get("event_action") == "*"
        and str(row.get("version")) == VERSION
        and row.get("http_auth_user") in (None, address.user)
    )


def _is_active(row: Row) -> bool:
    return bool(row.get("is_active", 1))


def _has_failed(row: Row) -> bool:
    status = _status(row)
    return status is not None and not 200 <= status < 300


def _status(row: Row) -> int | None:
    try:
        return int(row["last_http_status"])
    except (KeyError, TypeError, ValueError):
        return None
