"""Read the next page of a slice, and return the walk's new position.

Two walks by id move towards each other: ids that the other one has passed are skipped, and when the two meet, both are
done. A cursor is Pipedrive's and opaque. A walk in a circle is detected by ids that do not advance, or by a repeated
cursor: one is stored as an anchor, and replaced whenever the number of pages has doubled, so a circle of any length
reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import MOST_EMPTY, Cursors, usable_id
from pipeline.errors import Rejected

CHUNK_OF_IDS = 100
"""Ids one request may name (https://developers.pipedrive.com/docs/api/v1/Persons#getPersons)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageWanted:
    """walk      `ascending` or `descending` by id, or `catch_up` by update time from `since` on
    cursor    the walk's position, None at its beginning
    frontier  the last id it has read
    anchor    a cursor of some pages ago
    empty     pages without a record in a row so far
    """

    walk: str
    cursor: str | None
    frontier: int | None
    anchor: str | None = None
    empty: int = 0
    since: datetime | None
    limit: int
    include_fields: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRead:
    """body      the answer as it came
    ids       those of its records, where they have one that is usable
    frontier  the last id read now
    ended     no page follows
    """

    body: bytes
    records: int
    ids: list[int]
    next_cursor: str | None
    frontier: int | None
    ended: bool


def read_page(pipedrive: PipedriveClient, entity: Entity, wanted: PageWanted) -> PageRead:
    """Fetch the page.

    Raises: Rejected("page_repeats") when the walk does not advance; what the client raises.
    """
    by_time = wanted.walk == "catch_up"
    page = pipedrive.list_page(
        entity,
        cursor=wanted.cursor,
        limit=wanted.limit,
        updated_since=wanted.since if by_time else None,
        sort_by="update_time" if by_time else "id",
        sort_direction="desc" if wanted.walk == "descending" else "asc",
        include_fields=wanted.include_fields,
    )
    if page.next_cursor is not None:
        if page.next_cursor in (wanted.cursor, wanted.anchor):
            raise Rejected("page_repeats", f"{entity.plural}, {wanted.walk}: a cursor came again")
        if not page.ids and wanted.empty + 1 >= MOST_EMPTY:
            raise Rejected("page_repeats", f"{entity.plural}, {wanted.walk}: {MOST_EMPTY} empty pages in a row")
    ids = [record_id for record_id in page.ids if record_id is not None]
    frontier = None if by_time else _advance(wanted, ids, entity)
    return PageRead(
        body=page.body,
        records=len(page.ids),
        ids=ids,
        next_cursor=page.next_cursor,
        frontier=frontier,
        ended=page.next_cursor is None,
    )


def _advance(wanted: PageWanted, ids: list[int], entity: Entity) -> int | None:
    if not ids:
        return wanted.frontier
    furthest = ids[-1]
    if wanted.frontier is not None and not _beyond(wanted.walk, furthest, wanted.frontier):
        raise Rejected("page_repeats", f"{entity.plural}, {wanted.walk}: no id beyond {wanted.frontier}")
    return furthest


def have_met(walk: str, frontier: int | None, other: int | None) -> bool:
    """Whether no id is left between this walk and the other one."""
    if frontier is None or other is None:
        return False
    return frontier <= other + 1 if walk == "descending" else frontier >= other - 1


def ids_of(records: list[Any]) -> list[int]:
    """The ids of those records that have a usable one."""
    return [record_id for record in records if (record_id := id_of(record)) is not None]


def id_of(record: Any) -> int | None:
    """The id of a record, None where it has none that is usable."""
    return usable_id(record.get("id")) if isinstance(record, dict) else None


def _beyond(walk: str, record_id: int, frontier: int) -> bool:
    return record_id < frontier if walk == "descending" else record_id > frontier


def read_by_ids(
    pipedrive: PipedriveClient, entity: Entity, ids: Sequence[int], include_fields: Sequence[str]
) -> list[Any]:
    """Read chosen records, 100 to a request, as a page would give them; those that are gone or invisible are left out."""
    found: list[Any] = []
    for at in range(0, len(ids), CHUNK_OF_IDS):
        chunk = ids[at : at + CHUNK_OF_IDS]
        page = pipedrive.list_page(entity, ids=chunk, limit=CHUNK_OF_IDS, include_fields=include_fields)
        found.extend(page.records)
    return found


def read_members(pipedrive: PipedriveClient, organization_id: int) -> list[int]:
    """The ids of an Organization's Persons, 500 to a request.

    Raises: Rejected("page_repeats") when the list does not advance; what the client raises.
    """
    found: list[int] = []
    cursors = Cursors()
    cursor: str | None = None
    while True:
        page = pipedrive.list_page(Entity.PERSON, cursor=cursor, org_id=organization_id)
        found.extend(record_id for record_id in page.ids if record_id is not None)
        if page.next_cursor is None:
            return found
        if trouble := cursors.trouble_with(page.next_cursor, len(page.ids)):
            raise Rejected("page_repeats", f"persons of organization {organization_id}: {trouble}")
        cursor = page.next_cursor
