"""Webhooks of a connector: their health, received deliveries, and a check of them."""

from __future__ import annotations

import json
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import delivery as deliveries
from db import failure_filter
from db import webhook as subscriptions
from db.authorisation import connection_of
from db.connector import Connector
from db.delivery import Delivery
from db.session import transaction
from db.sync_event import events_about_webhooks
from pipeline.domain.kinds import Role
from pipeline.domain.reasons import advice_of, meaning_of
from pipeline.errors import Rejected, Skip
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError, not_found
from pipeline.operations.models import (
    ConnectorRequest,
    Done,
    PageOnly,
    PageRequest,
    RowRequest,
    Shape,
    Text,
    Value,
    shape_of,
)
from pipeline.operations.registry import operation
from pipeline.sync.connectors.webhooks import SUBJECT, subscription_health
from pipeline.sync.connectors.webhooks import ensure_webhooks as subscribe_to_what_is_missing
from pipeline.tasks.canvases import request_webhook_check
from pipeline.transform.webhooks import decode_head

HOURS: Final = 6
MOST: Final = 20_000
"""Maximum of counted deliveries, so that the page stays fast for a busy company."""
SOURCES: Final = ("pipedrive", "hull")
LONGEST_READ: Final = 2 * 1024 * 1024

Source = Literal["pipedrive", "hull"]


class SubscriptionShape(Shape):
    """One webhook as of the last check: `healthy_at` is when it was last healthy, `recreated` how often it was recreated."""

    entity: str
    state: str
    webhook_id: int | None
    last_status: int | None
    recreated: int
    checked_at: datetime
    healthy_at: datetime | None


class DeliveryCountShape(Shape):
    """Deliveries of the last six hours, by outcome."""

    state: str
    reason: str | None
    meaning: str
    deliveries: int


class FailedCheckShape(BaseModel):
    """The last failed check of the webhooks."""

    id: int
    meaning: str
    advice: str


class WebhookEventShape(Shape):
    """One event of the webhooks: a webhook was recreated, or a gap was found."""

    id: int
    at: datetime
    event: str
    entity: PageOnly[str] = ""
    run_id: PageOnly[int | None] = None
    reason: str | None
    detail: Text | None


class WebhooksAnswer(BaseModel):
    """`level` is `ok`, `warning` or `error`; `is_cut`: there were more deliveries than were counted."""

    level: str
    sentence: str
    last_at: datetime | None
    failure: FailedCheckShape | None
    subscriptions: list[SubscriptionShape]
    counts: list[DeliveryCountShape]
    is_cut: bool
    events: list[WebhookEventShape]


class SubscriptionsAnswer(BaseModel):
    subscriptions: list[SubscriptionShape]


class DeliveryShape(Shape):
    """One webhook or notification as received, without its body."""

    id: int
    source: str
    key: PageOnly[str] = ""
    state: str
    reason: str | None
    received_at: datetime
    size_bytes: int


class DeliveriesAnswer(BaseModel):
    deliveries: list[DeliveryShape]


class DeliveryAnswer(BaseModel):
    """One delivery with its body: `document`, or `text` if it is not JSON; `about` names the record and the action."""

    delivery: DeliveryShape
    meaning: str
    advice: str
    about: dict[str, Any]
    record: PageOnly[tuple[str, int] | None] = None
    document: Value
    text: Text | None


class WebhooksRequest(ConnectorRequest):
    source: Annotated[Source, Field(description="The sender.")] = "pipedrive"


class DeliveriesRequest(ConnectorRequest, PageRequest):
    source: Annotated[Source, Field(description="The sender.")] = "pipedrive"


@operation("GET /connectors/<connector>/webhooks", role=Role.VIEWER, command="webhooks show CONNECTOR")
def show_webhooks(call: Call, request: WebhooksRequest) -> WebhooksAnswer:
    """Show the health of the webhooks, and recent deliveries from Pipedrive or Hull."""
    with transaction() as session:
        return webhook_health(session, call.connector, request.source)


@operation(
    "POST /connectors/<connector>/webhooks/check",
    role=Role.OPERATOR,
    audit_action="webhooks.check",
    command="webhooks check CONNECTOR",
)
def check_webhooks(call: Call, _request: ConnectorRequest) -> Done:
    """Have a worker check the webhooks now and recreate unhealthy ones."""
    with call.transaction() as session:
        call.note(session)
        session.flush()
        if not request_webhook_check(call.connector.key):
            message = "The broker does not answer, so no worker could be notified."
            next_step = "Try again when it does."
            raise OperationError(HTTPStatus.SERVICE_UNAVAILABLE, "broker_unreachable", message, next_step)
    return Done(done="asked")


@operation("", role=Role.OPERATOR, audit_action="webhooks.check", command="connectors webhooks CONNECTOR")
def ensure_webhooks(call: Call, _request: ConnectorRequest) -> SubscriptionsAnswer:
    """Create missing webhooks to PUBLIC_URL in Pipedrive and show all of them; safe to run again.

    Runs immediately, without a worker.
    """
    with call.transaction():
        pass  # commit the audit entry first: a created webhook is not undone by a failure here
    subscribe_to_what_is_missing(call.connector.key)
    with transaction() as session:
        found = subscriptions.subscriptions_of(session, call.connector.key)
    return SubscriptionsAnswer(subscriptions=[SubscriptionShape.model_validate(each) for each in found])


@operation("GET /connectors/<connector>/deliveries", role=Role.VIEWER, command="deliveries list CONNECTOR")
def list_deliveries(call: Call, request: DeliveriesRequest) -> DeliveriesAnswer:
    """List what was received, newest first."""
    with transaction() as session:
        found = deliveries.latest_deliveries(
            session, call.connector.key, request.source, before_id=request.before, limit=request.limit
        )
    return DeliveriesAnswer(deliveries=[DeliveryShape.model_validate(each) for each in found])


@operation("GET /connectors/<connector>/deliveries/<id>", role=Role.OPERATOR, command="deliveries show CONNECTOR ID")
def show_delivery(call: Call, request: RowRequest) -> DeliveryAnswer:
    """Show one delivery with its body, which contains values of records."""
    with transaction() as session:
        found = find_delivery(session, call.connector.key, request.id)
    if found is None:
        raise not_found("There is no such delivery of this connector.", "Deliveries are kept for 30 days.")
    return found


def webhook_health(session: Session, connector: Connector, source: str) -> WebhooksAnswer:
    """Return the health of a connector's webhooks, and the deliveries of the last HOURS hours from `source`."""
    counts = deliveries.count_lately(session, connector.key, source, hours=HOURS, most=MOST)
    failure = _failed_check(session, connector.key)
    level, sentence = _level_and_sentence(session, connector, failure)
    return WebhooksAnswer(
        level=level,
        sentence=sentence,
        last_at=deliveries.last_delivery(session, connector.key, source),
        failure=failure,
        subscriptions=[
            SubscriptionShape.model_validate(each) for each in subscriptions.subscriptions_of(session, connector.key)
        ],
        counts=[
            DeliveryCountShape(state=state, reason=reason, meaning=meaning_of(reason), deliveries=count)
            for state, reason, count in counts
        ],
        is_cut=sum(count for _, _, count in counts) >= MOST,
        events=[WebhookEventShape.model_validate(each) for each in events_about_webhooks(session, connector.key)],
    )


def find_delivery(session: Session, connector_key: int, delivery_id: int) -> DeliveryAnswer | None:
    """Return one delivery of the connector with its body; None if there is no such delivery."""
    found = session.get(Delivery, delivery_id) if delivery_id < 2**63 else None
    if found is None or found.connector_key != connector_key:
        return None
    document, text = _read(found.body)
    about, record = _head(document) if found.source == "pipedrive" else ({}, None)
    return DeliveryAnswer(
        delivery=shape_of(DeliveryShape, found, size_bytes=len(found.body)),
        meaning=meaning_of(found.reason),
        advice=advice_of(found.reason),
        about=about,
        record=record,
        document=document,
        text=text,
    )


def _level_and_sentence(session: Session, connector: Connector, failure: FailedCheckShape | None) -> tuple[str, str]:
    if connection_of(session, connector).how is None:
        return "warning", "Pipedrive is not connected yet, so no webhooks arrive."
    health = subscription_health(session, connector.key)
    if failure is not None:
        return "error", f"Webhooks are incomplete: {failure.meaning if health.is_well else health.sentence}"
    if not health.is_well:
        return "warning", f"Webhooks are incomplete: {health.sentence}"
    return "ok", f"Pipedrive sends every change. {health.sentence}"


def _failed_check(session: Session, connector_key: int) -> FailedCheckShape | None:
    found = failure_filter.find_open(session, connector_key, SUBJECT)
    if found is None:
        return None
    return FailedCheckShape(id=found.id, meaning=meaning_of(found.reason), advice=advice_of(found.reason))


def _read(body: bytes) -> tuple[Any, str | None]:
    """Return (document, None), or (None, the text as received)."""
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
