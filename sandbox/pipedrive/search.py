"""GET /api/v2/persons/search, /organizations/search and /itemSearch.

Source: the v2 OpenAPI file. Results come in the order of their ids, which is a possible order of relevance and a stable one.
"""

from __future__ import annotations

from typing import Any, cast

from flask import Response, request

from sandbox.company import ENTITIES, Company, Entity, Record
from sandbox.company.search import Kind, SearchQuery, texts
from sandbox.pipedrive import answers, query

KINDS: dict[Entity, tuple[Kind, ...]] = {
    "person": ("name", "email", "phone", "custom_fields", "notes"),
    "organization": ("name", "address", "custom_fields", "notes"),
}
MAX_ITEM_SEARCH = 100


def search(company: Company, entity: Entity) -> Response:
    """Answer GET /api/v2/persons/search."""
    wanted = query.limit(request.args)
    kinds = cast("list[Kind]", query.words(request.args, "fields"))
    if any(kind not in KINDS[entity] for kind in kinds):
        raise answers.invalid(f"fields: must be among {', '.join(KINDS[entity])}")
    return _answer(_found(company, entity, request.args, wanted), wanted, {})


def item_search(company: Company) -> Response:
    """Answer GET /api/v2/itemSearch, for Persons and Organizations; other item types have no items here."""
    wanted = query.limit(request.args)
    if wanted > MAX_ITEM_SEARCH:
        raise answers.invalid(f"limit: must be between 1 and {MAX_ITEM_SEARCH}")
    types = query.words(request.args, "item_types") or ENTITIES
    found = [item for entity in ENTITIES if entity in types for item in _found(company, entity, request.args, wanted)]
    found.sort(key=lambda item: (item["item"]["id"], item["item"]["type"]))
    return _answer(found, wanted, {"related_items": []})


def _found(company: Company, entity: Entity, parameters: query.Parameters, wanted: int) -> list[dict[str, Any]]:
    """Find up to one more than wanted, so that it is known whether there is a next page."""
    exact = query.boolean(parameters, "exact_match")
    term = parameters.get("term", "").strip()
    shortest = 1 if exact else 2
    if len(term) < shortest:
        raise answers.invalid(f"term: must be at least {shortest} characters long")
    asked = query.words(parameters, "fields")
    search_query = SearchQuery(
        term=term,
        kinds=tuple(kind for kind in KINDS[entity] if not asked or kind in asked),
        exact=exact,
        organization_id=query.integer(parameters, "organization_id") if entity == "person" else None,
        limit=wanted + 1,
        after=_after(parameters, entity),
    )
    return [_item(company, entity, record, search_query) for record in company.search(entity, search_query)]


def _after(parameters: query.Parameters, entity: Entity) -> int:
    """Read where the page before ended: at an id and a type, since a Person and an Organization may share an id."""
    cursor = parameters.get("cursor")
    if cursor is None:
        return 0
    marker = query.decode_cursor(cursor)
    last, kind = marker.get("id"), marker.get("type")
    if not isinstance(last, int) or not isinstance(kind, str):
        raise answers.invalid("cursor: is malformed")
    return last - 1 if entity > kind else last


def _answer(items: list[dict[str, Any]], wanted: int, more: dict[str, Any]) -> Response:
    marker = None
    if len(items) > wanted:
        last = items[wanted - 1]["item"]
        position = {"field": "id", "fieldValue": last["id"], "sortDirection": "asc", "id": last["id"]}
        marker = query.encode_cursor({**position, "type": last["type"]})
    data = {"items": items[:wanted], **more}
    return answers.plain({"success": True, "data": data, "additional_data": {"next_cursor": marker}})


def _item(company: Company, entity: Entity, record: Record, asked: SearchQuery) -> dict[str, Any]:
    fields = company.custom_fields(entity)
    term = asked.term.casefold()
    matched = [text for text in texts(record, "custom_fields", fields) if term in text.casefold()]
    exact = any(term == text.casefold() for kind in asked.kinds for text in texts(record, kind, fields))
    shared: dict[str, Any] = {
        "id": record["id"],
        "type": entity,
        "name": record.get("name"),
        "visible_to": record.get("visible_to"),
        "owner": {"id": record.get("owner_id")},
        "custom_fields": matched,
        "notes": [],
    }
    own = _person_members(company, record) if entity == "person" else {"address": _line(record.get("address"))}
    return {"result_score": 1.0 if exact else 0.5, "item": {**shared, **own}}


def _person_members(company: Company, record: Record) -> dict[str, Any]:
    """Add what only Persons have; e-mails and phones are plain strings here."""
    emails = texts(record, "email", [])
    primary = next((email["value"] for email in record.get("emails") or () if email.get("primary")), None)
    found = company.record("organization", record["org_id"]) if record.get("org_id") is not None else None
    organization = found and {"id": found["id"], "name": found.get("name"), "address": _line(found.get("address"))}
    phones = texts(record, "phone", [])
    return {"phones": phones, "emails": emails, "primary_email": primary, "organization": organization}


def _line(address: dict[str, Any] | None) -> str | None:
    return None if address is None else address.get("value")
