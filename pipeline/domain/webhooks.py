"""The content of one Pipedrive webhook."""

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
    """The head of a webhook, read when it is received, before its fields.

    event_id         the same for every delivery of one event
    sent_at_ms       `meta.timestamp` in milliseconds since the epoch: finer than any `update_time`
    updated_ms       the record's `update_time`, if it has one
    attempt          1 for the first delivery
    merged_to_id     on the delete of a record that was merged into another: that other record
    merged_from_id   on the change of a record that another was merged into: the merged record
    is_old_format    of version 1.0: it says which record to read, and nothing else is used
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
    """A webhook in the format of API v2.

    record      the record as a fetch would have returned it, less what webhooks omit; None after a delete
    previous    record key → value before the change, custom fields under `custom_fields`; after a delete the last state
    absent      codes of custom fields that are missing in the webhook
    unreadable  codes of those in an unknown format; of all of them if it has no custom fields
    """

    head: WebhookHead
    record: dict[str, Any] | None
    previous: dict[str, Any]
    absent: tuple[str, ...]
    unreadable: tuple[str, ...]
