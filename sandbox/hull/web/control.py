"""What a real Hull does not offer: look inside, act as a person or another connector would, define segments. All under
/__sandbox__.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from flask import Blueprint, Response, request

from sandbox.hull.records.entity import Kind
from sandbox.hull.state import HullState
from sandbox.hull.web.answers import answer, refusal, sent_object, the_state
from sandbox.hull.web.reports import plain_record, segment_object

control = Blueprint("control", __name__, url_prefix="/__sandbox__")

_EXPORT_CHUNK = 500  # records serialised while the lock is held once


@control.get("/stats")
def get_stats() -> Response:
    state = the_state()
    with state.lock:
        return answer(stats_of(state))


def stats_of(state: HullState) -> dict[str, Any]:
    counts = state.counts
    names = (
        "messages",
        "batches",
        "errors",
        "merges",
        "conflicts",
        "events",
        "searches",
        "incinerated",
        "status_reports",
    )
    return {
        **{name: counts[name] for name in names},
        "users_created": counts["users_created"],
        "accounts_created": counts["accounts_created"],
        "users": len(state.users),
        "accounts": len(state.accounts),
        "links": state.links,
        "received": dict(state.received.totals),
    }


@control.get("/received")
def get_received() -> Response:
    """`[type, {asUser, asAccount, subjectType}, body]` per line, from message number `since` on; the next number is in a header."""
    state = the_state()
    since = request.args.get("since", 0, int)
    with state.lock:
        lines, following = list(state.received.lines(since)), state.received.count
    response = Response(b"".join(lines), mimetype="application/x-ndjson")
    response.headers["X-Sandbox-Next"] = str(following)
    return response


@control.get("/log")
def get_log() -> Response:
    """What was wrong with messages, newest last."""
    with the_state().lock:
        return answer(list(the_state().log))


@control.get("/export")
def get_export() -> Response:
    """Complete records as JSON lines, sorted by id: the oracle that comparisons ask."""
    entity = request.args.get("entity")
    if entity not in ("user", "account"):
        return refusal(400, "entity is user or account")
    return Response(_export(the_state(), entity), mimetype="application/x-ndjson")  # type: ignore[arg-type]


def _export(state: HullState, kind: Kind) -> Iterator[bytes]:
    directory = state.directory(kind)
    with state.lock:
        hull_ids = list(directory.by_id)
    for first in range(0, len(hull_ids), _EXPORT_CHUNK):
        with state.lock:
            chunk = [directory.by_id.get(hull_id) for hull_id in hull_ids[first : first + _EXPORT_CHUNK]]
            lines = [orjson.dumps(plain_record(state, entity)) + b"\n" for entity in chunk if entity is not None]
        yield b"".join(lines)


@control.post("/users/<hull_id>", defaults={"kind": "user"})
@control.post("/accounts/<hull_id>", defaults={"kind": "account"})
def edit(hull_id: str, kind: Kind) -> Response:
    """{attribute: value}, written as by a person or another connector."""
    state, given, problems = the_state(), sent_object(), list[str]()
    if given is None:
        return refusal(400, "the body is {attribute: value}")
    with state.lock:
        entity = state.directory(kind).find(hull_id)
        if entity is None:
            return refusal(404, f"no {kind} {hull_id}")
        changes = state.write(entity, given, now=state.clock(), problems=problems)
        state.announce(entity, changes)
        return answer({"record": plain_record(state, entity), "changes": changes, "problems": problems})


@control.post("/segments")
def define_segment() -> Response:
    """{"name", "entity": "user"|"account", "ids": [Hull ids]} → the segment; the ids replace those it listed before."""
    state, given = the_state(), sent_object() or {}
    name, entity, hull_ids = given.get("name"), given.get("entity"), given.get("ids", [])
    if not (isinstance(name, str) and entity in ("user", "account") and isinstance(hull_ids, list)):
        return refusal(400, 'the body is {"name", "entity": "user"|"account", "ids": [...]}')
    with state.lock:
        segment = state.define_segment(entity, name, hull_ids)
        return answer(segment_object(segment))
