"""What one webhook of Pipedrive says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.domain.kinds import Entity


class WebhookAction(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookHead:
    """Whom a webhook is about; read at the door, before any field is looked at.

    event_id         the same for every delivery of one event
    sent_at_ms       `meta.timestamp` in milliseconds since the epoch: finer than any `update_time`
    updated_ms       the record's `update_time`, where it tells one
    attempt          1 for the first delivery
    merged_to_id     on the delete of a record that was merged into another: that other record
    merged_from_id   on the change of a record that another was merged into: the record that went
    is_old_format    of version 1.0: it says which record to read, and nothing that could be used
    """

    entity: Entity
    action: WebhookAction
    pipedrive_id: int
    event_id: str
    sent_at_ms: int
    updated_ms: int | None
    attempt: int
    company_id: int | None
    merged_to_id: int | None
    merged_from_id: int | None
    is_old_format: bool

    @property
    def latest_ms(self) -> int:
        """The latest moment it claims, of `meta.timestamp` and the record's `update_time`."""
        return max(self.sent_at_ms, self.updated_ms or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRecord:
    """A webhook in the words of API v2.

    record      the record as a fetch would have given it, less what webhooks leave out; None after a delete
    previous    record key → value before the change, custom fields under `custom_fields`; after a delete the last state
    absent      codes of custom fields about which the webhook says nothing
    unreadable  codes of those it gives in a shape that is not known; of all of them where it gives no custom fields
    """

    head: WebhookHead
    record: dict[str, Any] | None
    previous: dict[str, Any]
    absent: tuple[str, ...]
    unreadable: tuple[str, ...]
