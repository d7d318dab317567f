"""The sandbox's own controls of Hull: look inside, act as a person or another connector does, define segments, notify a URL,
make files.

Files are of Users or Accounts, as Hull names them to a connector with "Send to". Hull keeps such files in an object storage,
which answers range requests. The control that makes a file can switch that off, throttle it, compress it, or replace it
under the same address. Faults apply to the address as to any path of Hull.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast
from urllib.parse import urljoin

import orjson
from flask import Blueprint, Response, current_app, request

from sandbox.app import PREFIX, Control, NotFound, json_answer, read_object
from sandbox.faults import Faults
from sandbox.hull.answers import current_state, refusal
from sandbox.hull.identity import Kind
from sandbox.hull.notifier import HullNotifier
from sandbox.hull.reports import plain_record, report_of, segment_object
from sandbox.hull.state import HullState

files = Blueprint("files", __name__)
_COUNTS = (
    "messages", "batches", "errors", "merges", "conflicts", "events", "searches", "incinerated", "status_reports",
    "users_created", "accounts_created",
)  # fmt: skip
_EXPORT_CHUNK = 500  # records serialised while the lock is held once
_PIECE = 64 * 1024


def _get_stats() -> Response:
    state = current_state()
    with state.lock:
        return json_answer(
            {
                **{name: state.counts[name] for name in _COUNTS},
                "users": len(state.users),
                "accounts": len(state.accounts),
                "links": state.links,
                "received": dict(state.received.totals),
            }
        )


def _get_received() -> Response:
    """`[type, {asUser, asAccount, subjectType}, body]` per line, from message number `since` on; the next number is in a
    header.
    """
    state = current_state()
    since = request.args.get("since", 0, int)
    with state.lock:
        lines, following = list(state.received.lines(since)), state.received.count
    response = Response(b"".join(lines), mimetype="application/x-ndjson")
    response.headers["X-Sandbox-Next"] = str(following)
    return response


def _get_log() -> Response:
    """What was wrong with messages, newest last."""
    with current_state().lock:
        return json_answer(list(current_state().log))


def _get_export() -> Response:
    """Complete records as JSON lines, sorted by id: the oracle that comparisons ask."""
    entity = request.args.get("entity")
    if entity not in ("user", "account"):
        raise ValueError("entity is user or account")
    return Response(_export(current_state(), entity), mimetype="application/x-ndjson")  # type: ignore[arg-type]


def _export(state: HullState, kind: Kind) -> Iterator[bytes]:
    directory = state.directory(kind)
    with state.lock:
        hull_ids = list(directory.by_id)
    for first in range(0, len(hull_ids), _EXPORT_CHUNK):
        with state.lock:
            chunk = [directory.by_id.get(hull_id) for hull_id in hull_ids[first : first + _EXPORT_CHUNK]]
            lines = [orjson.dumps(plain_record(state, entity)) + b"\n" for entity in chunk if entity is not None]
        yield b"".join(lines)


def _edit(kind: Kind, hull_id: str) -> Response:
    """{attribute: value}, written as by a person or another connector."""
    state, given, problems = current_state(), read_object(), list[str]()
    with state.lock:
        entity = state.directory(kind).find(hull_id)
        if entity is None:
            raise NotFound(f"{kind} {hull_id} does not exist")
        changes = state.write(entity, given, now=state.clock(), problems=problems)
        state.announce(entity, changes)
        return json_answer({"record": plain_record(state, entity), "changes": changes, "problems": problems})


def _define_segment() -> Response:
    """{"name", "entity": "user"|"account", "ids": [Hull ids]} → the segment; the ids replace those it listed before."""
    state, given = current_state(), read_object(("name", "entity"), ("ids",))
    name, entity, hull_ids = given["name"], given["entity"], given.get("ids", [])
    if not (isinstance(name, str) and entity in ("user", "account") and isinstance(hull_ids, list)):
        raise ValueError('the body is {"name", "entity": "user"|"account", "ids": [...]}')
    with state.lock:
        segment = state.define_segment(entity, name, hull_ids)
        return json_answer(segment_object(segment))


def _set_notify_url() -> Response:
    """{"url", "notify_on_firehose"?}: from now on changes are sent to this URL; {"url": null} ends that."""
    given = read_object(("url",), ("notify_on_firehose",))
    url = given["url"]
    if url is None:
        current_notifier().target = None
    elif isinstance(url, str):
        notify_at(url)
    else:
        raise ValueError("url is text or null")
    current_state().notify_on_firehose = given.get("notify_on_firehose") is True
    return json_answer({"url": url})


def _get_notifications() -> Response:
    """{"waiting": messages not sent yet, "exchanges": [{"at", "url", "request", "status", "response"}], oldest first}"""
    notifier = current_notifier()
    return json_answer({"waiting": notifier.waiting(), "exchanges": list(notifier.exchanges)})


def _get_public_key() -> Response:
    """The PEM a notification's signature is verified with; validators POST, people GET."""
    return Response(current_notifier().signer.public_pem(), mimetype="application/x-pem-file")


def current_notifier() -> HullNotifier:
    return cast("HullNotifier", current_app.extensions["hull_notifier"])


def notify_at(url: str) -> None:
    current_notifier().register(url, f"{request.host_url.rstrip('/')}{PREFIX}public-key")
    current_notifier().start()


def subscription_url(connector: dict[str, Any]) -> str | None:
    """Where an installed connector wants its notifications: its subscription's path, on the host of its manifest."""
    base = connector.get("source_url") or connector.get("manifest_url")
    subscriptions = connector.get("manifest", {}).get("subscriptions") or [{}]
    return urljoin(base, subscriptions[0].get("url", "/smart-notifier")) if base else None


@dataclass(slots=True, kw_only=True)
class HullFile:
    """`ranges`: answer range requests; without it there is no validator either. `bytes_per_s` None: as fast as possible."""

    content: bytes = field(repr=False)
    mimetype: str
    encoding: str | None
    ranges: bool
    bytes_per_s: float | None


def _make_file() -> Response:
    """{"entity": "user"|"account", "format": "json"|"csv", "gzip"?, "ranges"?, "bytes_per_s"?, "number"?} → {"number", "path",
    "records", "bytes"}; a number replaces that file.
    """
    given = read_object(("entity",), ("format", "gzip", "ranges", "bytes_per_s", "number"))
    kind, form = given.get("entity"), given.get("format", "json")
    if kind not in ("user", "account") or form not in ("json", "csv"):
        raise ValueError("entity is user or account, format is json or csv")
    state = current_state()
    with state.lock:
        records = [report_of(state, entity) for entity in state.directory(kind).by_id.values()]
    content = _as_csv(records) if form == "csv" else b"".join(orjson.dumps(record) + b"\n" for record in records)
    is_packed = given.get("gzip") is True
    made = HullFile(
        content=gzip.compress(content, mtime=0) if is_packed else content,
        mimetype="text/csv" if form == "csv" else "application/json",
        encoding="gzip" if is_packed else None,
        ranges=given.get("ranges", True) is True,
        bytes_per_s=given.get("bytes_per_s"),
    )
    known = _files()
    number = int(given.get("number", len(known) + 1))
    known[number] = made
    path = f"/exports/{number}/extract.{form}"
    return json_answer({"number": number, "path": path, "records": len(records), "bytes": len(made.content)})


@files.get("/exports/<int:number>/<name>")
def _get_file(number: int, name: str) -> Response:  # noqa: ARG001 - a part of the address
    """The file, or the range of it that is requested."""
    file = _files().get(number)
    if file is None:
        return refusal(404, "no such file")
    response = Response(file.content, mimetype=file.mimetype)
    if file.encoding:
        response.headers["Content-Encoding"] = file.encoding
    if file.ranges:
        response.set_etag(hashlib.sha256(file.content).hexdigest()[:32])
        response.make_conditional(request.environ, accept_ranges=True, complete_length=len(file.content))
    if file.bytes_per_s:
        faults = cast("Faults", current_app.extensions["hull_faults"])
        response.response = _throttled(cast("Iterable[bytes]", response.response), file.bytes_per_s, faults)
    return response


def _files() -> dict[int, HullFile]:
    return cast("dict[int, HullFile]", current_app.extensions.setdefault("hull_files", {}))


def _throttled(body: Iterable[bytes], bytes_per_s: float, faults: Faults) -> Iterator[bytes]:
    for part in body:
        for at in range(0, len(part), _PIECE):
            piece = part[at : at + _PIECE]
            faults.sleep(len(piece) / bytes_per_s)
            yield piece


def _as_csv(records: list[dict[str, Any]]) -> bytes:
    """A column for each attribute; those of the Account under `account.`."""
    rows = [_flat(record) for record in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _flat(record: dict[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": text for inner, text in _flat(value).items()}
        elif value is not None:
            flat[name] = value if isinstance(value, str) else orjson.dumps(value).decode()
    return flat


CONTROLS: list[Control] = [
    ("GET", "stats", _get_stats),
    ("GET", "received", _get_received),
    ("GET", "log", _get_log),
    ("GET", "export", _get_export),
    ("POST", "users/<hull_id>", partial(_edit, "user")),
    ("POST", "accounts/<hull_id>", partial(_edit, "account")),
    ("POST", "segments", _define_segment),
    ("POST", "files", _make_file),
    ("POST", "notify_url", _set_notify_url),
    ("GET", "notifications", _get_notifications),
    ("GET", "public-key", _get_public_key),
    ("POST", "public-key", _get_public_key),
]
