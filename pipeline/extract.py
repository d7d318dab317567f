"""Read from Pipedrive: the next page of a fetch, records by id, records that changed or were added since a moment, and searches.

Two walks by id move towards each other. Ids that the other walk has read are skipped, and when they meet, both are done. Cursors
are opaque. A walk in a circle is detected by ids that do not advance, or by a repeated cursor: one is stored as an anchor, and
replaced whenever the number of pages has doubled, so a circle of any length reaches it.

A look-up must list what changed and what was added since a moment, to be sure that a record does not exist. These are two walks:
a record that was never changed may have no `update_time`, and a list filtered by it may omit the record. Both are limited: of a
longer list the caller gets the beginning, and a flag.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pipeline.clients.pipedrive import Page, PipedriveClient
from pipeline.domain.kinds import Claim, Entity
from pipeline.domain.paging import MAX_IDS, MAX_LIMIT, MOST_EMPTY, Cursors, usable_id
from pipeline.domain.texts import shown_host
from pipeline.domain.times import epoch_seconds
from pipeline.errors import Rejected, Retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class PageWanted:
    """The page to read.

    walk      `ascending` or `descending` by id, or `catch_up` by update time from `since` on
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
    """A page that was read.

    body      the answer as it came
    ids       ids of its records, as far as they are usable
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


def _beyond(walk: str, record_id: int, frontier: int) -> bool:
    return record_id < frontier if walk == "descending" else record_id > frontier


def have_met(walk: str, frontier: int | None, other: int | None) -> bool:
    """Return whether no id is left between this walk and the other one."""
    if frontier is None or other is None:
        return False
    return frontier <= other + 1 if walk == "descending" else frontier >= other - 1


def ids_of(records: list[Any]) -> list[int]:
    """Return the usable ids of records."""
    return [record_id for record in records if (record_id := id_of(record)) is not None]


def id_of(record: Any) -> int | None:
    """Return the id of a record; None if it has no usable one."""
    return usable_id(record.get("id")) if isinstance(record, dict) else None


def read_by_ids(
    pipedrive: PipedriveClient, entity: Entity, ids: Sequence[int], include_fields: Sequence[str]
) -> list[Any]:
    """Read records by their ids, 100 per request; deleted and invisible ones are left out."""
    found: list[Any] = []
    for at in range(0, len(ids), MAX_IDS):
        chunk = ids[at : at + MAX_IDS]
        page = pipedrive.list_page(entity, ids=chunk, limit=MAX_IDS, include_fields=include_fields)
        found.extend(page.records)
    return found


def read_members(pipedrive: PipedriveClient, organization_id: int) -> list[int]:
    """Return the ids of an Organization's Persons, 500 per request.

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


PER_PAGE: Final = MAX_LIMIT
PAGES_AT_MOST: Final = 20
"""Limit of one walk, 10,000 records: beyond it, searching for each claim is cheaper."""
FIRST_ADDED: Final = 100
"""Records on the first page of added records: few are new, and the price of a page is the same."""

Records = list[dict[str, Any]]


@dataclass(slots=True)
class Extent:
    """How far a walk came.

    is_whole  it read everything since its moment
    until_s   otherwise, everything that changed before this moment (seconds since the epoch) was read; None if nothing is proven
    """

    is_whole: bool = False
    until_s: int | None = None


def walk_changed(
    pipedrive: PipedriveClient, entity: Entity, since: datetime, include_fields: Sequence[str], extent: Extent
) -> Iterator[Records]:
    """Yield pages of records by update time, oldest first. A record that changes during the walk may come twice.

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
) -> Iterator[Records]:
    """Yield pages of records by id, the newest first, until a page without a record that was added since.

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


def _check(entity: Entity, cursors: Cursors, page: Page) -> None:
    if trouble := cursors.trouble_with(page.next_cursor or "", len(page.ids)):
        raise Retryable("page_repeats", f"{entity.plural} since a moment: {trouble}")


SEARCHABLE: Final = frozenset({"address", "varchar", "text", "varchar_auto", "double", "monetary", "phone"})
"""Types of custom fields that the search knows: https://developers.pipedrive.com/docs/api/v1/Persons#searchPersons."""


def search_claim(
    pipedrive: PipedriveClient, entity: Entity, claim: str, field: tuple[str, str, bool] | None, value: str
) -> list[int] | None:
    """Return ids of the records that the search finds for a whole value.

    field    (key, type, whether it is a custom field) of the field with the claim
    Returns  None if the search cannot answer: it does not know the field, or the claim is a domain and the field has a whole
             web address. Costs 20 tokens, twice for a host with two spellings.
    """
    fields = None if claim == Claim.DOMAIN else _fields(entity, field)
    if fields is None:
        return None
    spellings = dict.fromkeys((value, _as_shown(value) if claim == Claim.EMAIL else value))
    items = [item for spelling in spellings for item in pipedrive.search(entity, spelling, fields=fields)]
    return sorted({found for item in items if (found := id_of(item)) is not None})


def _as_shown(email: str) -> str:
    """Return the e-mail with its host as people write it: the search does not convert `xn--`."""
    mailbox, at, host = email.rpartition("@")
    return f"{mailbox}{at}{shown_host(host)}"


def _fields(entity: Entity, field: tuple[str, str, bool] | None) -> str | None:
    if field is None:
        return None
    key, kind, is_custom = field
    if is_custom:
        return "custom_fields" if kind in SEARCHABLE else None
    if key == "emails" and entity is Entity.PERSON:
        return "email"
    return {"phones": "phone", "notes": "notes"}.get(key)
