"""Lists everything that changed since a moment, all pages: what a look-up needs to be sure that something is not there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import Cursors
from pipeline.errors import Retryable


def list_changed(
    pipedrive: PipedriveClient, entity: Entity, since: datetime, include_fields: Sequence[str]
) -> list[dict[str, Any]]:
    """Records by update time, oldest first; one that changes meanwhile may come twice, its newest state last.

    Costs 10 tokens for each 500 records. Raises: Retryable("page_repeats") when the walk does not advance.
    """
    found: dict[Any, dict[str, Any]] = {}
    cursors = Cursors()
    cursor: str | None = None
    while True:
        page = pipedrive.list_page(
            entity, cursor=cursor, updated_since=since, sort_by="update_time", include_fields=include_fields
        )
        found.update({record.get("id"): record for record in page.records if isinstance(record, dict)})
        if page.next_cursor is None:
            return list(found.values())
        if trouble := cursors.trouble_with(page.next_cursor, len(page.ids)):
            raise Retryable("page_repeats", f"{entity.plural} changed since a moment: {trouble}")
        cursor = page.next_cursor
