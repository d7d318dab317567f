"""Pipedrive's API: dicts of v2 for Persons and Organizations, v1 for what v2 does not have (webhooks, me).

Every call waits for its slot, costs tokens, and ends with a value or an error of `pipeline.errors`.
Source: https://developers.pipedrive.com/docs/api/v1 and https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from pipeline.clients.http_answers import json_answer
from pipeline.clients.pipedrive_calls import PipedriveCalls
from pipeline.domain.json_text import read_strict
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import MAX_IDS, MAX_LIMIT, Cursors, scan_page, usable_id
from pipeline.errors import Retryable

Record = dict[str, Any]

SEARCH_FIELDS: Final[Mapping[Entity, str]] = {Entity.PERSON: "email", Entity.ORGANIZATION: "name"}


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of a list: the body as received, the id of each record or None, and the cursor of the next page or None."""

    body: bytes = field(repr=False)
    ids: list[int | None] = field(repr=False)
    next_cursor: str | None

    @cached_property
    def records(self) -> list[Any]:
        """The records, parsed on first use."""
        found: list[Any] = read_strict(self.body, max_depth=None)["data"]
        return found


class PipedriveClient(PipedriveCalls):
    """The calls of one connector."""

    def __repr__(self) -> str:
        return f"PipedriveClient({self.base_url})"

    def list_page(  # noqa: PLR0913 - the parameters of the list call
        self,
        entity: Entity,
        *,
        cursor: str | None = None,
        limit: int = MAX_LIMIT,
        ids: Sequence[int] | None = None,
        org_id: int | None = None,
        updated_since: datetime | None = None,
        updated_until: datetime | None = None,
        sort_by: str = "id",
        sort_direction: str = "asc",
        include_fields: Sequence[str] = (),
    ) -> Page:
        """Fetch one page: `updated_since` is inclusive, `updated_until` exclusive, both cut to whole seconds.

        At most 100 `ids`; deleted or invisible ones are silently omitted. `org_id` requests one Organization's
        Persons. The caller checks for repeated cursors. Only the parser limits the nesting
        (1,024): walking a page costs 4 µs a record.
        Raises: Retryable("page_malformed") if `data` is not a list.
        """
        if ids is not None and len(ids) > MAX_IDS:
            raise ValueError(f"at most {MAX_IDS} ids per request")
        query = {
            "limit": limit,
            "sort_by": sort_by,
            "sort_direction": sort_direction,
            "cursor": cursor,
            "ids": ",".join(map(str, ids)) if ids is not None else None,
            "org_id": org_id,
            "updated_since": _timestamp(updated_since),
            "updated_until": _timestamp(updated_until),
            "include_fields": ",".join(include_fields) or None,
        }
        return self._page(f"/api/v2/{entity.plural}", "list", query)

    def get(self, entity: Entity, pipedrive_id: int) -> Record:
        """Fetch one record. Raises: Rejected("gone") if it does not exist or is not visible."""
        return self._record("get", "GET", f"/api/v2/{entity.plural}/{int(pipedrive_id)}")

    def create(self, entity: Entity, values: Mapping[str, Any]) -> Record:
        """Create a record and return it completely.

        After a Retryable with a reason that is not in `pipeline.errors.NOTHING_SENT`, the record may exist.
        """
        return self._record("create", "POST", f"/api/v2/{entity.plural}", values)

    def update(self, entity: Entity, pipedrive_id: int, values: Mapping[str, Any]) -> Record:
        """Change the given fields, and return the complete record."""
        return self._record("update", "PATCH", f"/api/v2/{entity.plural}/{int(pipedrive_id)}", values)

    def delete(self, entity: Entity, pipedrive_id: int) -> None:
        self._data("delete", "DELETE", f"/api/v2/{entity.plural}/{int(pipedrive_id)}")

    def search(
        self, entity: Entity, term: str, *, fields: str | None = None, exact_match: bool = True, limit: int = 100
    ) -> list[Record]:
        """Find records by an exact value, in any case; the index may lag behind writes.

        Shape: [{id, type, name, emails: [text], ...}], not records; `fields` is `email` or `name` unless given.
        """
        query = {
            "term": term,
            "fields": fields or SEARCH_FIELDS[entity],
            "exact_match": "true" if exact_match else "false",
            "limit": limit,
        }
        data = self._data("search", "GET", f"/api/v2/{entity.plural}/search", query=query)
        items = data.get("items") if isinstance(data, dict) else None
        if not isinstance(items, list) or not all(isinstance(row, dict) for row in items):
            raise Retryable("page_malformed", "the search answered no list of items")
        return [row["item"] for row in items if isinstance(row.get("item"), dict)]

    def fields(self, entity: Entity) -> list[Record]:
        """Return every active field with its type and options, from all pages.

        Shape: [{field_code, field_name, field_type, options, is_custom_field, is_optional_response_field, ...}]
        """
        found: list[Record] = []
        cursors = Cursors()
        cursor: str | None = None
        while True:
            page = self._page(f"/api/v2/{entity.value}Fields", "fields", {"limit": MAX_LIMIT, "cursor": cursor})
            found.extend(page.records)
            if page.next_cursor is None:
                return found
            if trouble := cursors.trouble_with(page.next_cursor, len(page.ids)):
                raise Retryable("page_repeats", f"{entity.value}Fields: {trouble}")
            cursor = page.next_cursor

    def me(self) -> Record:
        """Return the user and the company of the credentials: `id`, `company_id`, `company_domain`, `timezone_name`, ..."""
        return self._record("me", "GET", "/api/v1/users/me")

    def webhooks(self) -> list[Record]:
        """Return every webhook; with OAuth only those that this app created."""
        data = self._data("webhooks", "GET", "/api/v1/webhooks")
        if data is None:
            return []
        if not isinstance(data, list):
            raise Retryable("page_malformed", "webhooks: `data` is no list")
        return data

    def create_webhook(self, subscription: Mapping[str, Any]) -> Record:
        """Subscribe; needs `subscription_url`, `event_action`, `event_object` and `name`. Rejected if the URL is refused
        or the limit of 40 is reached."""
        return self._record("create_webhook", "POST", "/api/v1/webhooks", subscription)

    def delete_webhook(self, webhook_id: int | str) -> None:
        """Delete a webhook. Raises: Rejected("gone") if it does not exist."""
        self.send("delete_webhook", "DELETE", f"/api/v1/webhooks/{int(webhook_id)}")

    def _page(self, path: str, operation: str, query: Mapping[str, Any]) -> Page:
        response = self.send(operation, "GET", path, query=query)
        if scan := scan_page(response.body):
            return Page(body=response.body, ids=scan.ids, next_cursor=scan.next_cursor or None)
        answer = json_answer(response, max_depth=None)
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            raise Retryable("page_malformed", f"{path}: `data` is no list")
        ids = [usable_id(record.get("id")) if isinstance(record, dict) else None for record in data]
        return Page(body=response.body, ids=ids, next_cursor=_next_cursor(answer, path))

    def _record(self, operation: str, method: str, path: str, values: Mapping[str, Any] | None = None) -> Record:
        data = self._data(operation, method, path, values=values)
        if not isinstance(data, dict):
            raise Retryable("page_malformed", f"{path}: `data` is no record")
        return data

    def _data(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Any:
        answer = json_answer(self.send(operation, method, path, query=query, values=values))
        if not isinstance(answer, dict):
            raise Retryable("page_malformed", f"{path}: the answer is no object")
        return answer.get("data")


def _next_cursor(answer: dict[str, Any], path: str) -> str | None:
    """Return the next cursor; a missing, null or empty one ends the walk. Reject other values that are not text."""
    more = answer.get("additional_data") or {}
    cursor = more.get("next_cursor") if isinstance(more, dict) else more
    if not cursor:
        return None
    if more is cursor or not isinstance(cursor, str):
        raise Retryable("page_malformed", f"{path}: the cursor is no text")
    return cursor


def _timestamp(moment: datetime | None) -> str | None:
    """Return a moment in whole seconds in UTC: Pipedrive refuses fractions."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
