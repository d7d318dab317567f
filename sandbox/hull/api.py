"""Hull's HTTP side as a connector meets it: the firehose and the REST paths under /api/v1.

Sources: npm hull-client (lib/lib/rest-api.js, lib/utils/settings.js); https://github.com/hull/hull-connectors
(packages/minihull/src/router.js, packages/hull/src/middlewares/full-context-fetch.js, packages/hull/src/utils).
"""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response

from sandbox.app import json_answer
from sandbox.hull.answers import (
    current_state,
    current_verifier,
    for_connector,
    is_known_connector,
    json_object,
    read_entity_token,
    refusal,
)
from sandbox.hull.control import notify_at, subscription_url
from sandbox.hull.firehose import take_batch
from sandbox.hull.identity import Kind, read_claims
from sandbox.hull.reports import (
    account_report,
    attribute_tree,
    event_list,
    report_of,
    schema_of,
    segment_object,
    user_report,
)
from sandbox.hull.search import QueryRefused, search_page

firehose = Blueprint("firehose", __name__)
api = Blueprint("api", __name__, url_prefix="/api/v1")


@firehose.post("/")
@firehose.post("/firehose")
@firehose.post("/api/v1/firehose")
def take_messages() -> Response:
    """Every batch of a known connector is accepted whole; what is wrong with single messages is in the log."""
    if not is_known_connector():
        return refusal(401, "Unauthorized: Hull-App-Id and Hull-Access-Token do not name a connector")
    body = json_object()
    items = body.get("batch") if body is not None else None
    if not isinstance(items, list):
        return refusal(400, 'the body is {"batch": [message, …]}')
    take_batch(current_state(), current_verifier(), items)
    return json_answer({"ok": True})


@api.get("/app")
def get_app() -> Response:
    """404 means "no such connector or secret", as the real platform's answer is read."""
    if not (is_known_connector() or read_entity_token()):
        return refusal(404, "Not found")
    return json_answer(_public_connector())


@api.get("/<hull_id>")
@for_connector
def get_object(hull_id: str) -> Response:
    """Any object by its id: the connector, a User or an Account."""
    state = current_state()
    if hull_id == state.connector["id"]:
        return json_answer(_public_connector())
    with state.lock:
        entity = state.find(hull_id)
        return refusal(404, "Not found") if entity is None else json_answer(report_of(state, entity))


@api.put("/<hull_id>")
@for_connector
def put_connector(hull_id: str) -> Response:
    """Given fields replace the stored ones whole, private_settings too: two writers can lose each other's settings."""
    state, given = current_state(), json_object()
    if hull_id != state.connector["id"]:
        return refusal(404, "Not found")
    if given is None or not isinstance(given.get("private_settings", {}), dict):
        return refusal(400, "the body is an object of connector fields")
    fields = {name: value for name, value in given.items() if name not in ("id", "secret", "refresh_status")}
    with state.lock:
        url = subscription_url({**state.connector, **fields})
        if url is not None and not fields.keys().isdisjoint(("source_url", "manifest_url", "manifest")):
            notify_at(url)
        state.change_connector(fields)
    return json_answer(_public_connector())


@api.put("/<hull_id>/status")
@for_connector
def put_status(hull_id: str) -> Response:
    state, given = current_state(), json_object()
    if hull_id != state.connector["id"]:
        return refusal(404, "Not found")
    if given is None or given.get("status") not in ("ok", "warning", "error", "setupRequired"):
        return refusal(400, "status is ok, warning, error or setupRequired")
    with state.lock:
        state.connector["status"] = {"status": given["status"], "messages": given.get("messages", [])}
        state.counts["status_reports"] += 1
    return json_answer(_public_connector())


@api.get("/<hull_id>/segments")
@for_connector
def get_segments_of(hull_id: str) -> Response:
    state = current_state()
    with state.lock:
        entity = state.find(hull_id)
        if entity is None:
            return refusal(404, "Not found")
        return json_answer([segment_object(segment) for segment in state.segments.holding(entity.kind, entity.id)])


@api.get("/segments", defaults={"kind": "user"})
@api.get("/users_segments", defaults={"kind": "user"})
@api.get("/accounts_segments", defaults={"kind": "account"})
@for_connector
def get_segments(kind: Kind) -> Response:
    state = current_state()
    with state.lock:
        return json_answer([segment_object(segment) for segment in state.segments.of_kind(kind)])


@api.get("/users/schema", defaults={"kind": "user"})
@api.get("/accounts/schema", defaults={"kind": "account"})
@for_connector
def get_schema(kind: Kind) -> Response:
    with current_state().lock:
        return json_answer(schema_of(current_state(), kind))


@api.get("/search/user_reports/bootstrap", defaults={"kind": "user"})
@api.get("/search/account_reports/bootstrap", defaults={"kind": "account"})
@for_connector
def get_attribute_tree(kind: Kind) -> Response:
    with current_state().lock:
        return json_answer(attribute_tree(current_state(), kind))


@api.get("/search/event/bootstrap")
@for_connector
def get_events() -> Response:
    with current_state().lock:
        return json_answer(event_list(current_state()))


@api.post("/search/user_reports", defaults={"kind": "user"})
@api.post("/search/account_reports", defaults={"kind": "account"})
@for_connector
def search(kind: Kind) -> Response:
    state, wanted = current_state(), json_object()
    if wanted is None:
        return refusal(400, "the body is a search")
    try:
        with state.lock:
            state.counts["searches"] += 1
            return json_answer(search_page(state, state.directory(kind), wanted))
    except QueryRefused as error:
        return refusal(400, str(error))


@api.get("/me/user_report", defaults={"kind": "user"})
@api.get("/me/account_report", defaults={"kind": "account"})
def get_own_report(kind: Kind) -> Response:
    """The record that an entity token names."""
    state, token = current_state(), read_entity_token()
    if token is None:
        return refusal(401, "Unauthorized: an entity token is needed")
    claims = read_claims(kind, token.as_user if kind == "user" else token.as_account, [])
    with state.lock:
        found = state.find_by_claims(kind, claims)
        if found is None:
            return refusal(404, "Not found")
        return json_answer(user_report(state, found) if kind == "user" else account_report(state, found))


def _public_connector() -> dict[str, Any]:
    """The connector object without its secret."""
    with current_state().lock:
        shown: dict[str, Any] = orjson.loads(orjson.dumps(current_state().connector))
    del shown["secret"]
    return shown
