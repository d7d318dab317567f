"""Files of Users or Accounts, as Hull names them to a connector with "Send to": made on order, then served by an address.

Hull keeps such files in an object storage, which answers range requests. Orders can take that away, slow a file down, compress
it, or replace it under the same address. Faults apply to the address as to any path of Hull.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from flask import Blueprint, Response, current_app, request

from sandbox.app import json_answer, read_object
from sandbox.faults import Faults
from sandbox.hull.web.answers import refusal, the_state
from sandbox.hull.web.reports import report_of

files = Blueprint("files", __name__)

_PIECE = 64 * 1024


@dataclass(slots=True, kw_only=True)
class File:
    """ranges       answer range requests; without it there is no validator either
    bytes_per_s  how fast it is sent; None: as fast as it goes
    """

    content: bytes = field(repr=False)
    mimetype: str
    encoding: str | None
    ranges: bool
    bytes_per_s: float | None


def make_file() -> Response:
    """{"entity": "user"|"account", "format": "json"|"csv", "gzip"?, "ranges"?, "bytes_per_s"?, "number"?} → {"number", "path",
    "records", "bytes"}; a number replaces that file.
    """
    given = read_object(("entity",), ("format", "gzip", "ranges", "bytes_per_s", "number"))
    kind, form = given.get("entity"), given.get("format", "json")
    if kind not in ("user", "account") or form not in ("json", "csv"):
        raise ValueError("entity is user or account, format is json or csv")
    state = the_state()
    with state.lock:
        records = [report_of(state, entity) for entity in state.directory(kind).by_id.values()]
    content = _as_csv(records) if form == "csv" else b"".join(orjson.dumps(record) + b"\n" for record in records)
    is_packed = given.get("gzip") is True
    made = File(
        content=gzip.compress(content, mtime=0) if is_packed else content,
        mimetype="text/csv" if form == "csv" else "application/json",
        encoding="gzip" if is_packed else None,
        ranges=given.get("ranges", True) is True,
        bytes_per_s=given.get("bytes_per_s"),
    )
    known = _known()
    number = int(given.get("number", len(known) + 1))
    known[number] = made
    path = f"/exports/{number}/extract.{form}"
    return json_answer({"number": number, "path": path, "records": len(records), "bytes": len(made.content)})


@files.get("/exports/<int:number>/<name>")
def get_file(number: int, name: str) -> Response:  # noqa: ARG001 - a part of the address
    """The file, or the range of it that is requested."""
    file = _known().get(number)
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
        response.response = _slowly(cast("Iterable[bytes]", response.response), file.bytes_per_s, faults)
    return response


def _known() -> dict[int, File]:
    return cast("dict[int, File]", current_app.extensions.setdefault("hull_files", {}))


def _slowly(body: Iterable[bytes], bytes_per_s: float, faults: Faults) -> Iterator[bytes]:
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
