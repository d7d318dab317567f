"""A sync event as it is told: of the log, of a record's history, and of one field."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pipeline.operations.models import Shape
from pipeline.operations.values import Text, Value


class ChangeShape(Shape):
    """One field, from what to what. `is_first` when nothing is known of what stood there before."""

    name: Text
    label: Text
    before: Value
    after: Value
    is_first: bool


class EventShape(Shape):
    """One thing that happened to one record; `exchange` is the call by which a write was made.

    An event with a `field` is about that field alone: the record was carried over, or left as it was, and has its own event.
    """

    id: int
    at: datetime
    event: str
    direction: str
    outcome: str
    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    cause: str
    reason: str | None
    meaning: str
    advice: str
    detail: Text | None
    field: Text | None
    run_id: int | None
    batch_id: int | None
    settings_version: int | None
    delivery_id: int | None
    exchange: dict[str, Any] | None
    changes: list[ChangeShape]
