"""Reads the Persons of one Organization: those who belong to it now, whatever we know of them."""

from __future__ import annotations

from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import Cursors
from pipeline.errors import Rejected


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
