"""The quick look at a page sees what a parser would see, or nothing at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from pipeline.domain.paging import scan_page, split_page, usable_id

IDS = some.integers(-5, 2**70) | some.none()
VALUES = (
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | some.text()
)
RECORDS = some.fixed_dictionaries({"id": IDS}, optional={"name": VALUES, "more": some.lists(VALUES, max_size=3)})
ODD = RECORDS | some.dictionaries(some.text(max_size=3), VALUES, max_size=3) | VALUES
CURSORS = some.none() | some.text(max_size=5)


def page(data: Any, cursor: Any = None) -> bytes:
    return json.dumps({"success": True, "data": data, "additional_data": {"next_cursor": cursor}}).encode()


@given(some.lists(RECORDS), CURSORS)
def test_it_sees_the_ids_and_the_cursor(records: list[dict[str, Any]], cursor: str | None) -> None:
    scan = scan_page(page(records, cursor))

    if scan is not None:  # a text that only the standard parser reads is left to it
        assert scan.ids == [usable_id(record["id"]) for record in records]
        assert scan.next_cursor == cursor


@given(some.lists(ODD))
@example([{"id": True}])
@example([{"id": "7"}])
@example([{"id": 1.0}])
def test_it_never_sees_an_id_that_is_none(records: list[Any]) -> None:
    scan = scan_page(page(records))

    if scan is not None:
        assert scan.ids == [usable_id(record.get("id")) for record in records]


@given(some.lists(RECORDS))
def test_the_pieces_are_the_records(records: list[dict[str, Any]]) -> None:
    pieces = split_page(page(records))

    if pieces is not None:
        assert {number: json.loads(piece) for number, piece in pieces.items()} == {
            record["id"]: record for record in records if record["id"]
        }


@given(some.lists(RECORDS, min_size=1), some.data())
def test_what_no_parser_reads_it_does_not_read_either(records: list[dict[str, Any]], data: some.DataObject) -> None:
    body = bytearray(page(records))
    at = data.draw(some.integers(0, len(body) - 1))
    body[at : at + 1] = data.draw(some.binary(max_size=2) | some.sampled_from([b"\\", b'"', b"\xff", b"NaN", b"01"]))
    try:
        json.loads(body.decode())
    except ValueError:
        assert scan_page(bytes(body)) is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data":null}', b'{"data":[1]}', b'{"data":[{"x":"\xff"}]}'])
def test_anything_but_a_page_is_left_to_the_parser(body: bytes) -> None:
    assert scan_page(body) is None
