"""The sandbox's own controls of Hull: look inside, act as a person or another connector would, define segments, notify a URL."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast
from urllib.parse import urljoin

import orjson
from flask import Response, current_app, request

from sandbox.app import PREFIX, Control, NotFound, json_answer, read_object
from sandbox.hull.notify.notifier import Notifier
from sandbox.hull.records.entity import Kind
from sandbox.hull.state import HullState
from sandbox.hull.web.answers import the_state
from sandbox.hull.web.files import make_file
from sandbox.hull.web.reports import plain_record, segment_object

_EXPORT_CHUNK = 500  # records serialised while the lock is held once


def get_stats() -> Response:
    state = the_state()
    with state.lock:
        return json_answer(stats_of(state))


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


def get_received() -> Response:
    """`[type, {asUser, asAccount, subjectType}, body]` per line, from message number `since` on; the next number is in a header."""
    state = the_state()
    since = request.args.get("since", 0, int)
    with state.lock:
        lines, following = list(state.received.lines(since)), state.received.count
    response = Response(b"".join(lines), mimetype="application/x-ndjson")
    response.headers["X-Sandbox-Next"] = str(following)
    return response


def get_log() -> Response:
    """What was wrong with messages, newest last."""
    with the_state().lock:
        return json_answer(list(the_state().log))


def get_export() -> Response:
    """Complete records as JSON lines, sorted by id: the oracle that comparisons ask."""
    entity = request.args.get("entity")
    if entity not in ("user", "account"):
        raise ValueError("entity is user or account")
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


def edit(kind: Kind, hull_id: str) -> Response:
    """{attribute: value}, written as by a person or another connector."""
    state, given, problems = the_state(), read_object(), list[str]()
    with state.lock:
        entity = state.directory(kind).find(hull_id)
        if entity is None:
            raise NotFound(f"{kind} {hull_id} does not exist")
        changes = state.write(entity, given, now=state.clock(), problems=problems)
        state.announce(entity, changes)
        return json_answer({"record": plain_record(state, entity), "changes": changes, "problems": problems})


def define_segment() -> Response:
    """{"name", "entity": "user"|"account", "ids": [Hull ids]} → the segment; the ids replace those it listed before."""
    state, given = the_state(), read_object(("name", "entity"), ("ids",))
    name, entity, hull_ids = given["name"], given["entity"], given.get("ids", [])
    if not (isinstance(name, str) and entity in ("user", "account") and isinstance(hull_ids, list)):
        raise ValueError('the body is {"name", "entity": "user"|"account", "ids": [...]}')
    with state.lock:
        segment = state.define_segment(entity, name, hull_ids)
        return json_answer(segment_object(segment))


def set_notify_url() -> Response:
    """{"url", "notify_on_firehose"?}: from now on changes are told to this URL; {"url": null} ends it."""
    given = read_object(("url",), ("notify_on_firehose",))
    url = given["url"]
    if url is None:
        the_notifier().target = None
    elif isinstance(url, str):
        notify_at(url)
    else:
        raise ValueError("url is text or null")
    the_state().notify_on_firehose = given.get("notify_on_firehose") is True
    return json_answer({"url": url})


def get_notifications() -> Response:
    """{"waiting": messages not sent yet, "exchanges": [{"at", "url", "request", "status", "response"}], oldest first}"""
    notifier = the_notifier()
    return json_answer({"waiting": notifier.waiting(), "exchanges": list(notifier.exchanges)})


def get_public_key() -> Response:
    """The PEM a notification's signature is verified with; validators POST, people GET."""
    return Response(the_notifier().signer.public_pem(), mimetype="application/x-pem-file")


def the_notifier() -> Notifier:
    return cast("Notifier", current_app.extensions["hull_notifier"])


def notify_at(url: str) -> None:
    the_notifier().register(url, f"{request.host_url.rstrip('/')}{PREFIX}public-key")
    the_notifier().start()


def subscription_url(connector: dict[str, Any]) -> str | None:
    """Where an installed connector wants its notifications: its subscription's path, on the host of its manifest."""
    base = connector.get("source_url") or connector.get("manifest_url")
    subscriptions = connector.get("manifest", {}).get("subscriptions") or [{}]
    return urljoin(base, subscriptions[0].get("url", "/smart-notifier")) if base else None


CONTROLS: list[Control] = [
    ("GET", "stats", get_stats),
    ("GET", "received", get_received),
    ("GET", "log", get_log),
    ("GET", "export", get_export),
    ("POST", "users/<hull_id>", partial(edit, "user")),
    ("POST", "accounts/<hull_id>", partial(edit, "account")),
    ("POST", "segments", define_segment),
    ("POST", "files", make_file),
    ("POST", "notify_url", set_notify_url),
    ("GET", "notifications", get_notifications),
    ("GET", "public-key", get_public_key),
    ("POST", "public-key", get_public_key),
]
