"""Webhooks of a connector: how they stand, what came, and a check of them."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from flask import Response
from pydantic import BaseModel, Field

from db import audit, delivery
from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight.webhooks import listening, open_delivery
from pipeline.operations.errors import OperationError, not_found
from pipeline.operations.models import Asked, Done, Listed, OfConnector, OfRow, Shape
from pipeline.operations.values import Text, Value
from pipeline.tasks.wakeups import request_webhook_check
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who

Source = Literal["pipedrive", "hull"]


class SubscriptionShape(Shape):
    """What Pipedrive was asked to tell, and how that stood when it was last looked at."""

    entity: str
    state: str
    webhook_id: int | None
    last_status: int | None
    healed: int
    checked_at: datetime
    sound_at: datetime | None


class DeliveryCountShape(Shape):
    """Deliveries of the last six hours, by what became of them."""

    state: str
    reason: str | None
    meaning: str
    deliveries: int


class ListeningFailureShape(BaseModel):
    """The check of the webhooks that gave up last."""

    id: int
    meaning: str
    advice: str


class GapShape(Shape):
    """One thing that happened to the webhooks: one made again, a gap found."""

    id: int
    at: datetime
    event: str
    reason: str | None
    detail: Text | None


class WebhooksAnswer(BaseModel):
    """`level` is `ok`, `warning` or `error`; `is_cut` when there were more deliveries than are counted."""

    level: str
    sentence: str
    last_at: datetime | None
    failure: ListeningFailureShape | None
    subscriptions: list[SubscriptionShape]
    counts: list[DeliveryCountShape]
    is_cut: bool
    events: list[GapShape]


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
    """One delivery whole: `document` is its body, or `text` where that is no JSON; `about` what it says of whom."""

    delivery: DeliveryShape
    meaning: str
    advice: str
    about: dict[str, Any]
    document: Value
    text: Text | None


class OfSource(Asked):
    source: Annotated[Source, Field(description="Who sends it.")] = "pipedrive"


class ListedOfSource(Listed):
    source: Annotated[Source, Field(description="Who sent it.")] = "pipedrive"


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/webhooks", show_webhooks, WebhooksAnswer)
    operations.post("/connectors/<connector>/webhooks/check", check_webhooks, Done)
    operations.get("/connectors/<connector>/deliveries", list_deliveries, DeliveriesAnswer)
    operations.get("/connectors/<connector>/deliveries/<id>", show_delivery, DeliveryAnswer, needs=Role.OPERATOR)


def show_webhooks(path: OfConnector, query: OfSource) -> Response:
    """Say whether Pipedrive tells us of every change; and what came of late, of Pipedrive or of Hull."""
    connector = find(path)
    with transaction() as session:
        found = listening(session, connector, query.source)
    subscriptions = [SubscriptionShape.model_validate(each) for each in found.subscriptions]
    failure = zip(ListeningFailureShape.model_fields, found.failure, strict=True) if found.failure else None
    return answer(
        WebhooksAnswer(
            level=found.level,
            sentence=found.sentence,
            last_at=found.last_at,
            failure=ListeningFailureShape(**dict(failure)) if failure else None,
            subscriptions=subscriptions,
            counts=[DeliveryCountShape.model_validate(each) for each in found.counts],
            is_cut=found.is_cut,
            events=[GapShape.model_validate(each) for each in found.events],
        )
    )


def check_webhooks(path: OfConnector) -> Response:
    """Have a worker look at the webhooks now, and make again what is not sound."""
    connector = find(path)
    with transaction() as session:
        audit.note(session, who().name, "webhooks.check", connector.name, connector_key=connector.key)
    if not request_webhook_check(connector.key):
        message = "The broker does not answer, so nobody could be asked."
        raise OperationError(HTTPStatus.SERVICE_UNAVAILABLE, "broker_unreachable", message, "Try again when it does.")
    return answer(Done(done="asked"))


def list_deliveries(path: OfConnector, query: ListedOfSource) -> Response:
    """List what was received, newest first."""
    connector = find(path)
    with transaction() as session:
        found = delivery.latest_deliveries(
            session, connector.key, query.source, before_id=query.before, limit=query.limit
        )
    return answer(DeliveriesAnswer(deliveries=[DeliveryShape.model_validate(each) for each in found]))


def show_delivery(path: OfRow) -> Response:
    """Show one delivery with its body, which holds values of records."""
    connector = find(path)
    with transaction() as session:
        opened = open_delivery(session, connector.key, path.id)
    if opened is None:
        raise not_found("There is no such delivery of this connector.", "Deliveries are kept for 30 days.")
    row = opened.delivery
    plain = {name: getattr(row, name) for name in ("id", "source", "state", "reason", "received_at")}
    return answer(
        DeliveryAnswer(
            delivery=DeliveryShape(**plain, size_bytes=opened.size_bytes),
            meaning=opened.meaning,
            advice=opened.advice,
            about=opened.about,
            document=opened.document,
            text=opened.text,
        )
    )
