"""Persons and Organizations over HTTP: list, get, create, update, delete, merge and search.

A merge of Persons answers in v1's shape, without custom fields, which the OpenAPI file does not have there; a merge of
Organizations answers with the id only. Search results are in the order of their ids, a possible order of relevance and a
stable one. Sources: the v1 and v2 OpenAPI files; docs pages pipedrive-api-v2-migration-guide and guide-for-webhooks-v2.
"""

from __future__ import annotations

from typing import Any, cast

import orjson
from flask import Response, request

from sandbox.app import JSON, json_answer
from sandbox.company import ENTITIES, Company, Entity, Invalid, Record
from sandbox.company.records import encode
from sandbox.company.search import Kind, SearchQuery, texts
from sandbox.pipedrive import answers, query
from sandbox.pipedrive.answers import ApiError

_COUNTS = (
    "email_messages", "activities", "done_activities", "undone_activities", "files", "notes", "followers", "open_deals",
    "related_open_deals", "closed_deals", "related_closed_deals", "won_deals", "related_won_deals", "lost_deals",
    "related_lost_deals", "participant_open_deals", "participant_closed_deals",
)  # fmt: skip
_UNSET = (
    "last_incoming_mail_time", "last_outgoing_mail_time", "next_activity_date", "next_activity_time", "next_activity_id",
    "last_activity_id", "last_activity_date", "picture_id",
)  # fmt: skip
_KINDS: dict[Entity, tuple[Kind, ...]] = {
    "person": ("name", "email", "phone", "custom_fields", "notes"),
    "organization": ("name", "address", "custom_fields", "notes"),
}
_MAX_ITEM_SEARCH = 100


def list_page(company: Company, entity: Entity) -> Response:
    """Answer GET /api/v2/persons."""
    parameters = request.args
    page_query = query.page_query(parameters, with_organization=entity == "person")
    rows, bodies = company.page(entity, page_query)
    wanted = page_query.limit - 1
    marker = query.write_cursor(rows[wanted - 1], page_query) if len(rows) > wanted else None
    return answers.page(query.reshape(company, entity, parameters, bodies[:wanted]), marker)


def get(company: Company, entity: Entity, record_id: int) -> Response:
    """Answer GET /api/v2/persons/{id}."""
    body = company.body(entity, record_id)
    if body is None:
        raise missing(company, entity, record_id)
    return answers.item(query.reshape(company, entity, request.args, [body])[0])


def create(company: Company, entity: Entity) -> Response:
    """Answer POST /api/v2/persons."""
    try:
        record = company.create(entity, json_object())
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    return answers.item(encode(record))


def update(company: Company, entity: Entity, record_id: int) -> Response:
    """Answer PATCH /api/v2/persons/{id}."""
    try:
        record = company.edit(entity, record_id, json_object())
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    if record is None:
        raise missing(company, entity, record_id)
    return answers.item(encode(record))


def delete(company: Company, entity: Entity, record_id: int) -> Response:
    """Answer DELETE /api/v2/persons/{id}; a second time is a 404."""
    if not company.delete(entity, record_id):
        raise missing(company, entity, record_id)
    return answers.item(b'{"id":%d}' % record_id)


def merge(company: Company, entity: Entity, record_id: int) -> Response:
    """Answer PUT /v1/persons/{id}/merge with the survivor; the record in the path is the loser."""
    other = json_object().get("merge_with_id")
    if isinstance(other, bool) or not isinstance(other, int):
        raise answers.invalid("merge_with_id: must be an integer")
    try:
        record = company.merge(entity, record_id, other)
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    if record is None:
        raise missing(company, entity, record_id)
    data = {"id": other} if entity == "organization" else _v1_person(company, record, merged=record_id)
    return json_answer({"success": True, "data": data})


def search(company: Company, entity: Entity) -> Response:
    """Answer GET /api/v2/persons/search."""
    wanted = query.limit(request.args)
    kinds = cast("list[Kind]", query.words(request.args, "fields"))
    if any(kind not in _KINDS[entity] for kind in kinds):
        raise answers.invalid(f"fields: must be among {', '.join(_KINDS[entity])}")
    return _search_answer(_search(company, entity, request.args, wanted), wanted, {})


def item_search(company: Company) -> Response:
    """Answer GET /api/v2/itemSearch, for Persons and Organizations; other item types have no items here."""
    wanted = query.limit(request.args)
    if wanted > _MAX_ITEM_SEARCH:
        raise answers.invalid(f"limit: must be between 1 and {_MAX_ITEM_SEARCH}")
    types = query.words(request.args, "item_types") or ENTITIES
    found = [item for entity in ENTITIES if entity in types for item in _search(company, entity, request.args, wanted)]
    found.sort(key=lambda item: (item["item"]["id"], item["item"]["type"]))
    return _search_answer(found, wanted, {"related_items": []})


def json_object() -> dict[str, Any]:
    """Read the request's body, which v2 takes as a JSON object only."""
    body = json_body()
    if not isinstance(body, dict):
        raise answers.invalid("body: must be an object")
    return body


def json_body() -> Any:
    """Read the request's body as JSON."""
    if request.mimetype != JSON:
        raise answers.gateway(415, "Unsupported Media Type")
    try:
        return orjson.loads(request.get_data())
    except orjson.JSONDecodeError as error:
        raise answers.invalid("body: is not valid JSON") from error


def missing(company: Company, entity: Entity, record_id: int) -> ApiError:
    """Refuse a record that does not exist; one that was deleted may have another status."""
    if company.was_deleted(entity, record_id) and company.behaviour.gone_status != 404:
        return answers.not_found(company.behaviour.gone_status)
    return answers.not_found()


def _v1_person(company: Company, record: Record, *, merged: int) -> dict[str, Any]:
    """Return a Person as v1 shows it."""
    organization = company.record("organization", record["org_id"]) if record.get("org_id") else None
    owner = next((user.name for user in company.users if user.id == record.get("owner_id")), None)
    labels = record.get("label_ids") or []
    same = {key: record.get(key) for key in ("id", "owner_id", "org_id", "name", "first_name", "last_name")}
    return {
        **same,
        "company_id": company.id,
        "active_flag": True,
        "email": record.get("emails"),
        "phone": record.get("phones"),
        "first_char": str(record.get("name"))[:1].lower(),
        "add_time": _v1_time(record.get("add_time")),
        "update_time": _v1_time(record.get("update_time")),
        "visible_to": str(record.get("visible_to")),
        "label": labels[0] if labels else None,
        "label_ids": labels,
        "org_name": organization and organization.get("name"),
        "owner_name": owner,
        "cc_email": f"{company.domain}@pipedrivemail.com",
        "merge_what_id": merged,
        **{f"{name}_count": 0 for name in _COUNTS},
        **dict.fromkeys(_UNSET),
    }


def _v1_time(value: Any) -> Any:
    """2026-01-10T08:00:00Z → 2026-01-10 08:00:00"""
    return value.replace("T", " ").removesuffix("Z") if isinstance(value, str) else value


def _search(company: Company, entity: Entity, parameters: query.Parameters, wanted: int) -> list[dict[str, Any]]:
    """Find up to one more than wanted, so that it is known whether there is a next page."""
    exact = query.boolean(parameters, "exact_match")
    term = parameters.get("term", "").strip()
    shortest = 1 if exact else 2
    if len(term) < shortest:
        raise answers.invalid(f"term: must be at least {shortest} characters long")
    kinds = query.words(parameters, "fields")
    search_query = SearchQuery(
        term=term,
        kinds=tuple(kind for kind in _KINDS[entity] if not kinds or kind in kinds),
        exact=exact,
        organization_id=query.integer(parameters, "organization_id") if entity == "person" else None,
        limit=wanted + 1,
        after=_position_of(parameters, entity),
    )
    return [_search_item(company, entity, record, search_query) for record in company.search(entity, search_query)]


def _position_of(parameters: query.Parameters, entity: Entity) -> int:
    """Read where the page before ended: at an id and a type, since a Person and an Organization may share an id."""
    cursor = parameters.get("cursor")
    if cursor is None:
        return 0
    marker = query.decode_cursor(cursor)
    last, kind = marker.get("id"), marker.get("type")
    if not isinstance(last, int) or not isinstance(kind, str):
        raise answers.invalid("cursor: is malformed")
    return last - 1 if entity > kind else last


def _search_answer(items: list[dict[str, Any]], wanted: int, more: dict[str, Any]) -> Response:
    marker = None
    if len(items) > wanted:
        last = items[wanted - 1]["item"]
        position = {"field": "id", "fieldValue": last["id"], "sortDirection": "asc", "id": last["id"]}
        marker = query.encode_cursor({**position, "type": last["type"]})
    data = {"items": items[:wanted], **more}
    return json_answer({"success": True, "data": data, "additional_data": {"next_cursor": marker}})


def _search_item(company: Company, entity: Entity, record: Record, searched: SearchQuery) -> dict[str, Any]:
    fields = company.custom_fields(entity)
    term = searched.term.casefold()
    matched = [text for text in texts(record, "custom_fields", fields) if term in text.casefold()]
    exact = any(term == text.casefold() for kind in searched.kinds for text in texts(record, kind, fields))
    shared: dict[str, Any] = {
        "id": record["id"],
        "type": entity,
        "name": record.get("name"),
        "visible_to": record.get("visible_to"),
        "owner": {"id": record.get("owner_id")},
        "custom_fields": matched,
        "notes": [],
    }
    own = _search_person(company, record) if entity == "person" else {"address": _line(record.get("address"))}
    return {"result_score": 1.0 if exact else 0.5, "item": {**shared, **own}}


def _search_person(company: Company, record: Record) -> dict[str, Any]:
    """Add what only Persons have; e-mails and phones are plain strings here."""
    emails = texts(record, "email", [])
    primary = next((email["value"] for email in record.get("emails") or () if email.get("primary")), None)
    found = company.record("organization", record["org_id"]) if record.get("org_id") is not None else None
    organization = found and {"id": found["id"], "name": found.get("name"), "address": _line(found.get("address"))}
    phones = texts(record, "phone", [])
    return {"phones": phones, "emails": emails, "primary_email": primary, "organization": organization}


def _line(address: dict[str, Any] | None) -> str | None:
    return None if address is None else address.get("value")
