"""Webhooks of a connector: their health, what was received, and a check of them."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from db import delivery
from db import subscription as subscriptions
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.insight.webhooks import listening, open_delivery
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError, not_found
from pipeline.operations.models import ConnectorRequest, Done, Listed, RowRequest, Shape
from pipeline.operations.registry import operation
from pipeline.operations.values import Text, Value
from pipeline.sync.connectors.webhooks import ensure_webhooks as subscribe_to_what_is_missing
from pipeline.tasks.wakeups import request_webhook_check

Source = Literal["pipedrive", "hull"]


class SubscriptionShape(Shape):
    """One webhook as of the last check: `sound_at` is when it was last healthy, `healed` how often it was recreated."""

    entity: str
    state: str
    webhook_id: int | None
    last_status: int | None
    healed: int
    checked_at: datetime
    sound_at: datetime | None


class DeliveryCountShape(Shape):
    """Deliveries of the last six hours, by outcome."""

    state: str
    reason: str | None
    meaning: str
    deliveries: int


class ListeningFailureShape(BaseModel):
    """The last failed check of the webhooks."""

    id: int
    meaning: str
    advice: str


class GapShape(Shape):
    """One event of the webhooks: a webhook was recreated, or a gap was found."""

    id: int
    at: datetime
    event: str
    reason: str | None
    detail: Text | None


class WebhooksAnswer(BaseModel):
    """`level` is `ok`, `warning` or `error`; `is_cut`: there were more deliveries than are counted."""

    level: str
    sentence: str
    last_at: datetime | None
    failure: ListeningFailureShape | None
    subscriptions: list[SubscriptionShape]
    counts: list[DeliveryCountShape]
    is_cut: bool
    events: list[GapShape]


class SubscriptionsAnswer(BaseModel):
    subscriptions: list[SubscriptionShape]


class DeliveryShape(Shape):
    """One webhook or notification as received, without its body."""

    id: int
    source: str
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
    document: Value
    text: Text | None


class WebhooksRequest(ConnectorRequest):
    source: Annotated[Source, Field(description="The sender.")] = "pipedrive"


class DeliveriesRequest(ConnectorRequest, Listed):
    source: Annotated[Source, Field(description="The sender.")] = "pipedrive"


@operation("GET /connectors/<connector>/webhooks", role=Role.VIEWER, command="webhooks show CONNECTOR")
def show_webhooks(call: Call, request: WebhooksRequest) -> WebhooksAnswer:
    """Show the health of the webhooks, and recent deliveries from Pipedrive or Hull."""
    with transaction() as session:
        found = listening(session, call.connector, request.source)
    failure = zip(ListeningFailureShape.model_fields, found.failure, strict=True) if found.failure else None
    return WebhooksAnswer(
        level=found.level,
        sentence=found.sentence,
        last_at=found.last_at,
        failure=ListeningFailureShape(**dict(failure)) if failure else None,
        subscriptions=[SubscriptionShape.model_validate(each) for each in found.subscriptions],
        counts=[DeliveryCountShape.model_validate(each) for each in found.counts],
        is_cut=found.is_cut,
        events=[GapShape.model_validate(each) for each in found.events],
    )


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
        pass  # committed before the call: a webhook created there outlives a failure here
    subscribe_to_what_is_missing(call.connector.key)
    with transaction() as session:
        found = subscriptions.subscriptions_of(session, call.connector.key)
    return SubscriptionsAnswer(subscriptions=[SubscriptionShape.model_validate(each) for each in found])


@operation("GET /connectors/<connector>/deliveries", role=Role.VIEWER, command="deliveries list CONNECTOR")
def list_deliveries(call: Call, request: DeliveriesRequest) -> DeliveriesAnswer:
    """List what was received, newest first."""
    with transaction() as session:
        found = delivery.latest_deliveries(
            session, call.connector.key, request.source, before_id=request.before, limit=request.limit
        )
    return DeliveriesAnswer(deliveries=[DeliveryShape.model_validate(each) for each in found])


@operation(
    "GET /connectors/<connector>/deliveries/<id>",
    role=Role.OPERATOR,
    command="deliveries show CONNECTOR ID",
    example="acme 4711",
)
def show_delivery(call: Call, request: RowRequest) -> DeliveryAnswer:
    """Show one delivery with its body, which contains values of records."""
    with transaction() as session:
        opened = open_delivery(session, call.connector.key, request.id)
    if opened is None:
        raise not_found("There is no such delivery of this connector.", "Deliveries are kept for 30 days.")
    row = opened.delivery
    plain = {name: getattr(row, name) for name in ("id", "source", "state", "reason", "received_at")}
    return DeliveryAnswer(
        delivery=DeliveryShape(**plain, size_bytes=opened.size_bytes),
        meaning=opened.meaning,
        advice=opened.advice,
        about=opened.about,
        document=opened.document,
        text=opened.text,
    )
