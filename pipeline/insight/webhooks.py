"""The health of Pipedrive's webhooks, recent deliveries, and gaps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from db import delivery as deliveries
from db import failure as failures
from db import subscription as subscriptions
from db.authorisation import connection_of
from db.connector import Connector
from db.delivery import Delivery
from db.subscription import Subscription
from db.sync_event import SyncEvent, events_about_webhooks
from pipeline.domain.reasons import REASONS
from pipeline.errors import Rejected, Skip
from pipeline.sync.connectors.webhooks import SUBJECT, hearing
from pipeline.transform.webhooks import decode_head

HOURS: Final = 6
MOST: Final = 20_000
"""Deliveries that are counted at most: a busy company must not make the page slow."""
SOURCES: Final = ("pipedrive", "hull")
LONGEST_READ: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    state: str
    reason: str | None
    meaning: str
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """level  `ok`, `warning` or `error`; sentence  the summary
    failure  (id, meaning, advice) of the last failed check
    counts   deliveries of the last HOURS hours by state and reason; is_cut if there were more than MOST
    """

    level: str
    sentence: str
    last_at: datetime | None
    failure: tuple[int, str, str] | None
    subscriptions: tuple[Subscription, ...]
    counts: tuple[Count, ...]
    is_cut: bool
    events: tuple[SyncEvent, ...]


def listening(session: Session, connector: Connector, source: str) -> Listening:
    """Return the webhook health of one connector."""
    counts = deliveries.count_lately(session, connector.key, source, hours=HOURS, most=MOST)
    failure = _failure(session, connector.key)
    level, sentence = _answer(session, connector, failure)
    return Listening(
        level=level,
        sentence=sentence,
        last_at=deliveries.last_delivery(session, connector.key, source),
        failure=failure,
        subscriptions=tuple(subscriptions.subscriptions_of(session, connector.key)),
        counts=tuple(_count(*each) for each in counts),
        is_cut=sum(count for _, _, count in counts) >= MOST,
        events=tuple(events_about_webhooks(session, connector.key)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """One delivery. about  its record and action, if they can be read; text  the body if it is not JSON."""

    delivery: Delivery
    meaning: str
    advice: str
    about: dict[str, Any]
    record: tuple[str, int] | None
    document: Any
    text: str | None
    size_bytes: int


def open_delivery(session: Session, connector_key: int, delivery_id: int) -> Opened | None:
    """None if the connector has no such delivery."""
    found = session.get(Delivery, delivery_id) if delivery_id < 2**63 else None
    if found is None or found.connector_key != connector_key:
        return None
    document, text = _read(found.body)
    about, record = _head(document) if found.source == "pipedrive" else ({}, None)
    reason = REASONS.get(found.reason or "")
    return Opened(
        delivery=found,
        meaning=reason.meaning if reason else "",
        advice=reason.advice if reason else "",
        about=about,
        record=record,
        document=document,
        text=text,
        size_bytes=len(found.body),
    )


def _answer(session: Session, connector: Connector, failure: tuple[int, str, str] | None) -> tuple[str, str]:
    if connection_of(session, connector).how is None:
        return "warning", "Pipedrive is not connected yet, so no webhooks arrive."
    heard = hearing(session, connector.key)
    if failure is not None:
        return "error", f"Not of every change: {heard.sentence if not heard.is_well else failure[1]}"
    if not heard.is_well:
        return "warning", f"Not of every change: {heard.sentence}"
    return "ok", f"Pipedrive tells us of every change. {heard.sentence}"


def _failure(session: Session, connector_key: int) -> tuple[int, str, str] | None:
    found = failures.find_open(session, connector_key, SUBJECT)
    if found is None:
        return None
    reason = REASONS.get(found.reason)
    return found.id, reason.meaning if reason else found.reason, reason.advice if reason else ""


def _count(state: str, reason: str | None, count: int) -> Count:
    meaning = REASONS[reason].meaning if reason in REASONS else ""
    return Count(state=state, reason=reason, meaning=meaning, deliveries=count)


def _read(body: bytes) -> tuple[Any, str | None]:
    """(document, None), or (None, the text as it came)."""
    if len(body) <= LONGEST_READ:
        try:
            return json.loads(body), None
        except (ValueError, RecursionError):
            pass
    return None, body[:LONGEST_READ].decode("utf-8", "replace")


def _head(document: Any) -> tuple[dict[str, Any], tuple[str, int] | None]:
    try:
        head = decode_head(document)
    except (Rejected, Skip):
        return {}, None
    about = {"action": head.action.value, "entity": head.entity.value, "event": head.event_id, "attempt": head.attempt}
    return about, (head.entity.value, head.pipedrive_id)
