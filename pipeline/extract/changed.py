"""List what changed and what was added since a moment: a look-up needs both to be sure that a record does not exist.

Two walks, because a record that was never changed may have no `update_time`, and a list filtered by it may then omit
the record. Both are limited: of a longer list the caller gets the beginning, and a flag.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pipeline.clients.pipedrive import MAX_LIMIT, PipedriveClient
from pipeline.clients.pipedrive import Page as PageOfRecords
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import Cursors
from pipeline.domain.times import epoch_seconds
from pipeline.errors import Retryable

PER_PAGE: Final = MAX_LIMIT
PAGES_AT_MOST: Final = 20
"""Pages of one walk, 10,000 records: searching for every claim is cheaper than more, and a worker holds no more in memory."""
FIRST_ADDED: Final = 100
"""Records on the first page of what was added: seldom more than a few are new, and the price of a page is the same."""

Page = list[dict[str, Any]]


@dataclass(slots=True)
class Extent:
    """How far a walk came.

    is_whole  it saw everything from its moment on
    until_s   else: everything that changed before this moment (seconds since the epoch) was seen; None where nothing is proven
    """

    is_whole: bool = False
    until_s: int | None = None


def walk_changed(
    pipedrive: PipedriveClient, entity: Entity, since: datetime, include_fields: Sequence[str], extent: Extent
) -> Iterator[Page]:
    """Records by update time, oldest first; one that changes during the walk may come twice, its newest state last.

    `extent` is filled in. 10 tokens a page of 500. Raises: Retryable("page_repeats") when the walk does not advance.
    """
    cursors = Cursors()
    cursor: str | None = None
    for _ in range(PAGES_AT_MOST):
        page = pipedrive.list_page(
            entity,
            cursor=cursor,
            limit=PER_PAGE,
            updated_since=since,
            sort_by="update_time",
            include_fields=include_fields,
        )
        records = [record for record in page.records if isinstance(record, dict)]
        times = [at for each in records if (at := epoch_seconds(each.get("update_time"))) is not None]
        extent.until_s = max(times, default=extent.until_s)
        yield records
        if page.next_cursor is None:
            extent.is_whole = True
            return
        _check(entity, cursors, page)
        cursor = page.next_cursor


def walk_added(
    pipedrive: PipedriveClient, entity: Entity, since: datetime, include_fields: Sequence[str], extent: Extent
) -> Iterator[Page]:
    """Records by id, the newest first, down to the first page on which none was added since.

    `extent` is filled in. 10 tokens a page. Raises: Retryable("page_repeats") when the walk does not advance.
    """
    cursors = Cursors()
    cursor: str | None = None
    for number in range(PAGES_AT_MOST):
        limit = FIRST_ADDED if number == 0 else PER_PAGE
        page = pipedrive.list_page(
            entity, cursor=cursor, sort_direction="desc", include_fields=include_fields, limit=limit
        )
        records = [record for record in page.records if isinstance(record, dict)]
        yield records
        if page.next_cursor is None or not any(was_added_since(each, since) for each in records):
            extent.is_whole = True
            return
        _check(entity, cursors, page)
        cursor = page.next_cursor


def was_added_since(record: dict[str, Any], since: datetime) -> bool:
    """Return whether the record was added at this moment or later."""
    return (epoch_seconds(record.get("add_time")) or 0) >= int(since.timestamp())


def _check(entity: Entity, cursors: Cursors, page: PageOfRecords) -> None:
    if trouble := cursors.trouble_with(page.next_cursor or "", len(page.ids)):
        raise Retryable("page_repeats", f"{entity.plural} since a moment: {trouble}")
