"""A sync event as plain values: in which direction, what became of it, which fields changed from what to what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel

from db.sync_event import SyncEvent
from pipeline.domain.json_text import Text, Value, read_lenient
from pipeline.domain.reasons import REASONS

_NO_LABELS: Final[Mapping[str, str]] = {}
WORDS: Final = {
    "success": "synchronized",
    "skip": "left as it was",
    "error": "not synchronized",
    "retry": "to be read again",
    "park": "waiting",
}
"""Outcome → what became of the record."""


class ChangeShape(BaseModel):
    """One changed field. `is_first`: the value before is not known."""

    name: Text
    label: Text
    before: Value
    after: Value
    is_first: bool


class EventShape(BaseModel):
    """One event of one record; `exchange` is the HTTP call of a write.

    An event with a `field` is about that field alone; the record has another event.
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

    @property
    def mark(self) -> str:
        """Under which sign it is shown: a field that stayed behind weighs less than a record."""
        return "warning" if self.field is not None and self.outcome == "error" else self.outcome

    @property
    def words(self) -> str:
        """The outcome as text, to be read after "was"."""
        if self.field is not None and self.outcome == "error":
            return "synchronized without this field"
        return WORDS.get(self.outcome, self.outcome)


def described(row: SyncEvent, labels: Mapping[str, str] = _NO_LABELS) -> EventShape:
    """Return an event as it is shown. `labels` are the names of Pipedrive's fields, by their keys."""
    reason = REASONS.get(row.reason or "")
    direction, _, rest = row.event.partition(".")
    return EventShape(
        id=row.id,
        at=row.at,
        event=row.event,
        direction=direction,
        outcome=rest.rpartition(".")[2],
        entity=row.entity,
        pipedrive_id=row.pipedrive_id,
        hull_id=row.hull_id,
        cause=row.cause,
        reason=row.reason,
        meaning=reason.meaning if reason else "",
        advice=reason.advice if reason else "",
        detail=row.detail,
        field=row.field,
        run_id=row.run_id,
        batch_id=row.batch_id,
        settings_version=row.settings_version,
        delivery_id=row.delivery_id,
        exchange=json.loads(row.exchange) if row.exchange else None,
        changes=_changes(row, labels),
    )


def values_of(body: bytes | None) -> dict[str, Any]:
    """Return `before` or `after` of an event, with custom fields on the same level."""
    if not body:
        return {}
    read = read_lenient(bytes(body))
    if not isinstance(read, dict):
        return {}
    custom = read.get("custom_fields")
    if not isinstance(custom, dict):
        return read
    return {**{name: value for name, value in read.items() if name != "custom_fields"}, **custom}


def _changes(row: SyncEvent, labels: Mapping[str, str]) -> list[ChangeShape]:
    before, after = values_of(row.before), values_of(row.after)
    is_outgoing = row.event.startswith("outgoing")
    return [
        ChangeShape(
            name=name,
            label=labels.get(name, name) if is_outgoing else name,
            before=before.get(name),
            after=after.get(name),
            is_first=row.before is None,
        )
        for name in {**before, **after}
    ]
