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
    parameters = request.args
    asked = _search_query(parameters, entity)
    items = [_item(company, entity, record, asked) for record in company.search(entity, asked)]
    return _answer(items, asked.limit - 1, {})


def item_search(company: Company) -> Response:
    """Answer GET /api/v2/itemSearch, for Persons and Organizations; other item types have no items here."""
    parameters = request.args
    if query.limit(parameters) > MAX_ITEM_SEARCH:
        raise answers.invalid(f"limit: must be between 1 and {MAX_ITEM_SEARCH}")
    types = query.words(parameters, "item_types") or ["person", "organization"]
    items: list[dict[str, Any]] = []
    for entity in ENTITIES:
        if entity in types:
            asked = _search_query(parameters, entity, strict_fields=False)
            items += (
                [_item(company, entity, record, asked) for record in company.search(entity, asked)]
                if asked.kinds
                else []
            )
    return _answer(items[:MAX_ITEM_SEARCH], MAX_ITEM_SEARCH, {"related_items": []})


def _search_query(parameters: query.Parameters, entity: Entity, *, strict_fields: bool = True) -> SearchQuery:
    exact = query.boolean(parameters, "exact_match")
    term = parameters.get("term", "").strip()
    shortest = 1 if exact else 2
    if len(term) < shortest:
        raise answers.invalid(f"term: must be at least {shortest} characters long")
    kinds = cast("list[Kind]", query.words(parameters, "fields"))
    if strict_fields and any(kind not in KINDS[entity] for kind in kinds):
        raise answers.invalid(f"fields: must be among {', '.join(KINDS[entity])}")
    cursor = parameters.get("cursor")
    after = query.read_cursor(cursor, "id", "asc")
    return SearchQuery(
        term=term,
        kinds=tuple(kind for kind in kinds if kind in KINDS[entity]) if kinds else KINDS[entity],
        exact=exact,
        organization_id=query.integer(parameters, "organization_id") if entity == "person" else None,
        limit=query.limit(parameters) + 1,
        after=after[1] if after else 0,
    )


def _answer(items: list[dict[str, Any]], wanted: int, more: dict[str, Any]) -> Response:
    marker = None
    if len(items) > wanted:
        last = items[wanted - 1]["item"]["id"]
        marker = query.encode_cursor({"field": "id", "fieldValue": last, "sortDirection": "asc", "id": last})
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
        "name": record["name"],
        "visible_to": record["visible_to"],
        "owner": {"id": record["owner_id"]},
        "custom_fields": matched,
        "notes": [],
    }
    own = _person_members(company, record) if entity == "person" else {"address": _line(record.get("address"))}
    return {"result_score": 1.0 if exact else 0.5, "item": {**shared, **own}}


def _person_members(company: Company, record: Record) -> dict[str, Any]:
    emails = [email["value"] for email in record["emails"]]
    primary = next((email["value"] for email in record["emails"] if email["primary"]), None)
    phones = [phone["value"] for phone in record["phones"]]
    organization = None
    if record["org_id"] is not None:
        found = company.record("organization", record["org_id"])
        if found is not None:
            organization = {"id": found["id"], "name": found["name"], "address": _line(found.get("address"))}
    return {"phones": phones, "emails": emails, "primary_email": primary, "organization": organization}


def _line(address: dict[str, Any] | None) -> str | None:
    return None if address is None else address.get("value")
