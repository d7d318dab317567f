"""Read a file of Users or Accounts that Hull exports: one record per line of JSON, or per row of CSV, by attribute name.

An invalid line is returned as an error with its number, and the others continue.
Source: packages/hull/src/utils/extract-stream.js and packages/hull/src/handlers/batch-handler of
https://github.com/hull/hull-connectors
"""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count, islice
from typing import Any, Final

from pipeline.domain.json_text import MAX_DEPTH, is_nested_deeper, read_lenient
from pipeline.domain.kinds import Entity
from pipeline.domain.texts import list_readings, same_text
from pipeline.errors import Rejected

FORMATS: Final = ("json", "csv")
MAX_LINE_BYTES: Final = 1024 * 1024
PIECE_BYTES: Final = 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
_GZIP_FORMAT: Final = 31
"""`wbits` of zlib for gzip with its header and checksum."""
_ID: Final = re.compile(r"(?=.*\d)\S+")
_LISTS: Final = frozenset({"segment_ids", "anonymous_ids"})

Record = dict[str, Any]


def read_records(pieces: Iterable[bytes], form: str, skip: int = 0) -> Iterator[Record | Rejected]:
    """Yield one item for each line that is not empty: the record, or the error.

    skip  number of items to pass without parsing, which takes a twentieth of the time
    """
    lines = split_lines(pieces)
    return _read_rows(lines, skip) if form == "csv" else _read_json_lines(lines, skip)


def unpack(pieces: Iterable[bytes], *, max_bytes: int) -> Iterator[bytes]:
    """Yield the text of a file that may be compressed by gzip, at most `PIECE_BYTES` at a time.

    Raises: Rejected("export_malformed") for a damaged one, Rejected("export_too_large") beyond `max_bytes` of text.
    """
    size = 0
    for piece in _unpack(iter(pieces)):
        size += len(piece)
        if size > max_bytes:
            raise Rejected("export_too_large", f"more than {max_bytes} bytes")
        yield piece


def _unpack(pieces: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    while len(head) < len(_GZIP) and (piece := next(pieces, None)) is not None:
        head += piece
    if head[: len(_GZIP)] != _GZIP:  # neither JSON nor CSV begins with these bytes
        yield from chain([head], pieces)
        return
    decoder = zlib.decompressobj(_GZIP_FORMAT)
    try:
        for piece in chain([head], pieces):
            left = piece
            while left:
                if decoder.eof:  # a file may hold several compressed parts, and zeros behind them
                    left = left.lstrip(b"\0")
                    if not left:
                        break
                    decoder = zlib.decompressobj(_GZIP_FORMAT)
                yield decoder.decompress(left, PIECE_BYTES)
                left = decoder.unconsumed_tail or decoder.unused_data
        yield decoder.flush()
    except zlib.error:
        raise Rejected("export_malformed", "the compressed file is damaged") from None
    if not decoder.eof:
        raise Rejected("export_malformed", "the compressed file ends in its middle")


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream, one in memory at a time. Of a line that is too long, only its beginning."""
    held = bytearray()
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            held += line[: MAX_LINE_BYTES + 1 - len(held)]
            yield bytes(held)
            held.clear()
        held += rest[: MAX_LINE_BYTES + 1 - len(held)]
    if held:
        yield bytes(held)


def message_of(record: Record, entity: Entity, segments: Mapping[str, Any], segment_id: str | None) -> Record:
    """Return the notification message for the record, as sent manually.

    segments    id → segment, as far as they were sent
    segment_id  the segment of the selection
    """
    ids = record.get("segment_ids")
    if isinstance(ids, str):
        ids = _segments_in(ids, segments)
        record = {**record, "segment_ids": ids}
    names = [name for name in ids if isinstance(name, str)] if isinstance(ids, list) else []
    if segment_id and segment_id not in names:
        names.append(segment_id)
    held = [segments.get(name, {"id": name}) for name in names]
    if entity is Entity.ORGANIZATION:
        return {"account": record, "account_segments": held, "is_export": True}
    account = record.get("account")
    user = {name: value for name, value in record.items() if name != "account"}
    return {"user": user, "account": account if isinstance(account, dict) else {}, "segments": held, "is_export": True}


def _read_json_lines(lines: Iterable[bytes], skip: int) -> Iterator[Record | Rejected]:
    filled = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    for number, line in islice(filled, skip, None):
        yield _read_json(line, number)


def _read_json(line: bytes, number: int) -> Record | Rejected:
    if len(line) > MAX_LINE_BYTES:
        return _broken(number, "it is too long")
    try:
        value = read_lenient(line)
    except (ValueError, RecursionError):
        return _broken(number, "it is not JSON")
    if not isinstance(value, dict):
        return _broken(number, "it is not an object")
    return _broken(number, "it is nested too deeply") if is_nested_deeper(value, MAX_DEPTH) else value


def _read_rows(lines: Iterable[bytes], skip: int) -> Iterator[Record | Rejected]:
    """Use the names of the first row. An empty cell is ignored: CSV cannot express null."""
    names: list[str] | None = None
    passed = 0
    for number, row in _rows_of(lines):
        if row is not None and names is None:
            names = [name.lstrip("\ufeff").strip() for name in row]
        elif row is None or any(row):
            passed += 1
            if passed > skip:
                yield _broken(number, "it is not a row") if row is None else _read_row(names or [], row, number)


def _rows_of(lines: Iterable[bytes]) -> Iterator[tuple[int, list[str] | None]]:
    """Yield (number, row); None for an invalid row."""
    rows = csv.reader(f"{line.decode('utf-8', 'replace')}\n" for line in lines)
    for number in count(1):
        try:
            yield number, next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield number, None


def _read_row(names: list[str], row: list[str], number: int) -> Record | Rejected:
    if len(row) != len(names):
        return _broken(number, f"{len(row)} cells under {len(names)} names")
    record: Record = {}
    for name, cell in zip(names, row, strict=True):
        if not (name and cell):
            continue
        of_account = name.startswith("account.")
        holder = record.setdefault("account", {}) if of_account else record
        if isinstance(holder, dict):
            key = name.removeprefix("account.")
            holder[key] = _read_list(cell, key) if key in _LISTS else cell
    return record


def _read_list(cell: str, key: str) -> list[Any] | str:
    """Read a list; segments with commas between them stay a text until it is known which there are."""
    if cell.startswith("["):
        try:
            value = json.loads(cell)
        except ValueError:
            value = None
        if isinstance(value, list):
            return value
    return cell if key == "segment_ids" else [part.strip() for part in cell.split(",") if part.strip()]


def _segments_in(cell: str, segments: Mapping[str, Any]) -> list[str]:
    """Parse a text list of segments, by id or name; a name may contain a comma.

    A part that was not sent as a segment is an id if it looks like one, with digits and without spaces; else the
    whole text is one.
    """
    known: dict[str, str] = {}
    for segment_id, segment in segments.items():
        name = segment.get("name") if isinstance(segment, dict) else None
        for text in (segment_id, name if isinstance(name, str) else segment_id):
            known.setdefault(same_text(text), segment_id)
    if same_text(cell) in known:
        return [known[same_text(cell)]]
    most_commas = max((name.count(",") for name in known), default=0)
    readings = list_readings(cell, lambda part: known.get(same_text(part)), most_commas)
    if len(readings) == 1:
        return readings[0]
    parts = [part.strip() for part in cell.split(",") if part.strip()]
    return [known.get(part, part) for part in parts] if all(map(_ID.fullmatch, parts)) else [cell.strip()]


def _broken(number: int, why: str) -> Rejected:
    return Rejected("export_line_broken", f"line {number}: {why}")
