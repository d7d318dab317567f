"""Pack what one stage leaves for the next: it is stored compressed in the batch row, and cleared by the last stage.

A page is staged as Pipedrive sent it, after a line with the interval of ids that belong to it. Transform's result is staged as
records and troubles. The page stays until load has stored the snapshots.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
import zstandard

from pipeline.domain.deletions import Deletion
from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.paging import split_page

LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A record that was left out of its batch: why, and the record as Pipedrive sent it."""

    pipedrive_id: int | None
    outcome: str
    reason: str
    detail: str
    field: str | None
    payload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformed:
    """Transform's result: IncomingRecords and LeftOuts, as dicts.

    fields_read_at  when its field definitions were read
    """

    records: list[dict[str, Any]]
    troubles: list[dict[str, Any]]
    settings_version: int
    fields_read_at: datetime | None = None


def pack_page(body: bytes, *, above: int | None = None, below: int | None = None) -> bytes:
    """Pack a page as Pipedrive sent it, with the open interval of ids that belong to its slice."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(orjson.dumps([above, below]) + b"\n" + body)


def unpack_page(staged: bytes) -> tuple[list[Any], int | None, int | None]:
    """Return the records of a staged page, and the interval (above, below)."""
    bounds, _, body = zstandard.ZstdDecompressor().decompress(staged).partition(b"\n")
    above, below = orjson.loads(bounds)
    return read_lenient(body)["data"], above, below


def pack_changes(records: list[Any], deletions: list[Deletion]) -> bytes:
    """Pack the records of some changes, with the deleted ones."""
    more = {"deleted": [asdict(deleted) for deleted in deletions]} if deletions else {}
    return pack_page(write_lenient({"data": records, **more}))


def unpack_deletions(staged: bytes) -> list[Deletion]:
    """Return the deletions staged with a page."""
    body = zstandard.ZstdDecompressor().decompress(staged).partition(b"\n")[2]
    if b'"deleted":' not in body:
        return []
    return [Deletion(**each) for each in read_lenient(body).get("deleted", ())]


def unpack_bodies(staged: bytes) -> dict[int, bytes]:
    """Return id → record as Pipedrive sent it, for every record of a staged page; of two with one id the later, newer one."""
    body = zstandard.ZstdDecompressor().decompress(staged).partition(b"\n")[2]
    bodies = split_page(body)
    if bodies is not None:
        return bodies
    records = [record for record in read_lenient(body)["data"] if isinstance(record, dict) and _is_id(record.get("id"))]
    return {int(record["id"]): write_lenient(record) for record in records}


def _is_id(value: Any) -> bool:
    """Return whether transform accepts this as an id: not `true`, and at most 18 digits."""
    return type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18)


def pack_transformed(
    records: list[Any], troubles: list[LeftOut], version: int, fields_read_at: datetime | None = None
) -> bytes:
    """Pack transform's result."""
    staged = orjson.dumps([records, troubles, version, fields_read_at])
    return zstandard.ZstdCompressor(level=LEVEL).compress(staged)


def unpack_transformed(staged: bytes) -> Transformed:
    """The counterpart of `pack_transformed`; data staged by an earlier version has no `fields_read_at`."""
    records, troubles, version, *more = orjson.loads(zstandard.ZstdDecompressor().decompress(staged))
    read_at = datetime.fromisoformat(more[0]) if more and more[0] else None
    return Transformed(records=records, troubles=troubles, settings_version=version, fields_read_at=read_at)
